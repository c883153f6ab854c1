#include "caravan/base/isa.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "caravan/base/cpu_features.h"
#include "caravan/base/error.h"

namespace caravan {
namespace {

constexpr std::array<const char*, 5> kNames = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};

}  // namespace

const char* to_string(Isa isa) {
  return kNames[static_cast<std::size_t>(isa)];
}

std::optional<Isa> parse_isa(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) {
      return static_cast<Isa>(i);
    }
  }
  return std::nullopt;
}

Isa detect_isa() {
  return highest_isa(read_cpu_features());
}

Isa usable_isa() {
  const CpuFeatures features = read_cpu_features();
  const Isa detected = highest_isa(features);
  if (detected < Isa::kAvx2) {
    throw UnsupportedError(fmt::format(
        "this processor ({}) is below Caravan's minimum, x86-64-v3: it lacks {}; run on a processor of 2015 or later",
        processor_name(), missing_for_avx2(features)));
  }
  const Isa usable = lower_isa(detected, std::getenv("CARAVAN_MAX_ISA"));
  if (usable < Isa::kAvx2) {
    throw UnsupportedError(
        fmt::format("CARAVAN_MAX_ISA is \"{}\", below Caravan's minimum, avx2; set it to avx2 or higher, or unset it",
                    to_string(usable)));
  }
  return usable;
}

std::vector<Isa> isa_levels(Isa highest) {
  std::vector<Isa> levels;
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (isa <= highest) {
      levels.push_back(isa);
    }
  }
  return levels;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown processor";
}

}  // namespace caravan
