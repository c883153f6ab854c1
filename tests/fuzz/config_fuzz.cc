// Any bytes as a configuration: what is accepted can be printed and read again, what is not is a ConfigError.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/train/config_keys.h"

namespace {

using caravan::train::Config;

void expect_same_when_printed(const Config& config) {
  Config again;
  caravan::train::read_toml(again, caravan::train::print_toml(config), "again");
  if (!(again == config)) {
    std::abort();
  }
}

}  // namespace

// The first byte: a key's number, for a value from a command line; else the rest is a file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto& keys = caravan::train::config_keys();
  Config config;
  try {
    if (data[0] < keys.size()) {
      caravan::train::set_key(config, keys[data[0]].name, text);
    } else {
      caravan::train::read_toml(config, text, "x.toml");
    }
  } catch (const caravan::ConfigError&) {
    if (!(config == Config{})) {
      std::abort();
    }
    return 0;
  }
  expect_same_when_printed(config);
  return 0;
}
