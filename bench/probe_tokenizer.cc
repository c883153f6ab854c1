// Encodes a file on one thread and prints "case<TAB>seconds", the median of the rounds each:
//
//   load    reading the tokenizer
//   cold    the whole text, by a tokenizer that has not met any
//   warm    the same again
//   lines   its lines, one by one, by a tokenizer that has not met any
//
//   probe_tokenizer TOKENIZER FILE ROUNDS [IDS]
//
// Special tokens are text and none is added.  IDS gets the ids of the whole text, four bytes each.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/tokenizer/tokenizer.h"

namespace {

using caravan::tokenizer::Tokenizer;

template <typename Work>
double seconds_of(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.push_back(text.substr(at, end - at));
    at = end;
  }
  return lines;
}

void run(const char* path, const char* text_path, int rounds, const char* ids_path) {
  const std::string text = caravan::read_text_file(text_path, std::int64_t{1} << 30);
  const std::vector<std::string_view> lines = lines_of(text);
  constexpr caravan::tokenizer::EncodeOptions kBare = {.add_special = false, .plain = true};
  std::map<std::string, std::vector<double>> seconds;
  std::vector<std::int32_t> ids;
  std::size_t count = 0;
  for (int round = 0; round < rounds; ++round) {
    std::optional<Tokenizer> tokenizer;
    seconds["load"].push_back(seconds_of([&] { tokenizer = Tokenizer::load(path); }));
    seconds["cold"].push_back(seconds_of([&] { ids = tokenizer->encode(text, kBare); }));
    seconds["warm"].push_back(seconds_of([&] { count += tokenizer->encode(text, kBare).size(); }));
    tokenizer = Tokenizer::load(path);
    seconds["lines"].push_back(seconds_of([&] {
      for (const std::string_view line : lines) {
        count += tokenizer->encode(line, kBare).size();
      }
    }));
  }
  for (auto& [name, all] : seconds) {
    std::sort(all.begin(), all.end());
    std::printf("%s\t%.6f\n", name.c_str(), all[all.size() / 2]);
  }
  if (ids_path != nullptr) {
    std::ofstream(ids_path, std::ios::binary)
        .write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof ids[0]));
  }
  std::fprintf(stderr, "%zu ids\n", count);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4) {
      std::fprintf(stderr, "usage: probe_tokenizer TOKENIZER FILE ROUNDS [IDS]\n");
      return 2;
    }
    run(argv[1], argv[2], std::max(std::atoi(argv[3]), 1), argc > 4 ? argv[4] : nullptr);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "probe_tokenizer: %s\n", error.what());
    return 2;
  }
}
