#include "caravan/base/cpu_features.h"

#include <cpuid.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan {
namespace {

// Bit positions: Intel SDM volume 2A, CPUID; volume 1, section 13.3 for XCR0.
constexpr std::uint32_t bit(int position) {
  return std::uint32_t{1} << position;
}

constexpr std::uint32_t kOsXsave = bit(27);  // leaf 1 ecx: xgetbv may be used
constexpr std::uint64_t kYmmState = 0x6;     // SSE and AVX
constexpr std::uint64_t kZmmState = 0xe6;    // and the opmasks, upper halves, upper registers
constexpr std::uint64_t kTileState = 0x60000;

struct Requirement {
  std::uint32_t CpuFeatures::*word;
  std::uint32_t mask;
  const char* name;
};

// x86-64-v2 and -v3 of the psABI (what -march=x86-64-v3 lets a compiler use), above the baseline.
constexpr std::array<Requirement, 14> kAvx2Requirements = {{
    {&CpuFeatures::leaf1_ecx, bit(0), "SSE3"},
    {&CpuFeatures::leaf1_ecx, bit(9), "SSSE3"},
    {&CpuFeatures::leaf1_ecx, bit(13), "CMPXCHG16B"},
    {&CpuFeatures::leaf1_ecx, bit(19), "SSE4.1"},
    {&CpuFeatures::leaf1_ecx, bit(20), "SSE4.2"},
    {&CpuFeatures::leaf1_ecx, bit(23), "POPCNT"},
    {&CpuFeatures::leaf1_ecx, bit(28), "AVX"},
    {&CpuFeatures::leaf7_ebx, bit(5), "AVX2"},
    {&CpuFeatures::leaf1_ecx, bit(12), "FMA"},
    {&CpuFeatures::leaf1_ecx, bit(29), "F16C"},
    {&CpuFeatures::leaf7_ebx, bit(3), "BMI1"},
    {&CpuFeatures::leaf7_ebx, bit(8), "BMI2"},
    {&CpuFeatures::extended1_ecx, bit(5), "LZCNT"},
    {&CpuFeatures::leaf1_ecx, bit(22), "MOVBE"},
}};

constexpr std::uint32_t kAvx512Mask = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);  // F, DQ, CD, BW, VL
constexpr std::uint32_t kAvx512Bf16 = bit(5);                                           // leaf 7.1 eax
constexpr std::uint32_t kAvx512Vnni = bit(11);                                          // leaf 7 ecx
constexpr std::uint32_t kAmxMask = bit(22) | bit(24);                                   // BF16, TILE (leaf 7 edx)

bool saves(const CpuFeatures& features, std::uint64_t state) {
  return (features.xcr0 & state) == state;
}

// xgetbv by its opcode: the mnemonic's intrinsic needs a compiler flag that this file must not have.
std::uint64_t read_xcr0() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

// Linux 5.16 gives tile data only to processes that ask (Documentation/arch/x86/xstate.rst).
bool request_tile_permission() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) == 0;
}

}  // namespace

CpuFeatures read_cpu_features() {
  CpuFeatures features;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) {
    features.leaf1_ecx = c;
  }
  unsigned subleaves = 0;
  if (__get_cpuid_count(7, 0, &subleaves, &b, &c, &d) != 0) {
    features.leaf7_ebx = b;
    features.leaf7_ecx = c;
    features.leaf7_edx = d;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
      features.leaf7_1_eax = a;
    }
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0) {
    features.extended1_ecx = c;
  }
  if ((features.leaf1_ecx & kOsXsave) != 0) {
    features.xcr0 = read_xcr0();
  }
  if ((features.leaf7_edx & kAmxMask) == kAmxMask && saves(features, kTileState)) {
    features.amx_tile_permission = request_tile_permission();
  }
  return features;
}

Isa highest_isa(const CpuFeatures& features) {
  if (!missing_for_avx2(features).empty()) {
    return Isa::kBaseline;
  }
  if ((features.leaf7_ebx & kAvx512Mask) != kAvx512Mask || !saves(features, kZmmState)) {
    return Isa::kAvx2;
  }
  if ((features.leaf7_1_eax & kAvx512Bf16) == 0 || (features.leaf7_ecx & kAvx512Vnni) == 0) {
    return Isa::kAvx512;
  }
  const bool amx = (features.leaf7_edx & kAmxMask) == kAmxMask && saves(features, kTileState);
  return amx && features.amx_tile_permission ? Isa::kAmx : Isa::kAvx512Bf16;
}

std::string missing_for_avx2(const CpuFeatures& features) {
  std::string missing;
  const auto add = [&missing](const char* name) { missing += (missing.empty() ? "" : ", ") + std::string(name); };
  for (const Requirement& requirement : kAvx2Requirements) {
    if ((features.*requirement.word & requirement.mask) == 0) {
      add(requirement.name);
    }
  }
  if (!saves(features, kYmmState)) {
    add("the operating system's support for AVX registers");
  }
  return missing;
}

Isa lower_isa(Isa detected, const char* max_isa) {
  if (max_isa == nullptr || *max_isa == '\0') {
    return detected;
  }
  const std::optional<Isa> limit = parse_isa(max_isa);
  if (!limit) {
    throw InputError(fmt::format(
        "CARAVAN_MAX_ISA is \"{}\", which names no instruction set; use avx2, avx512, avx512_bf16 or amx, or unset it",
        printable(max_isa, 40)));
  }
  return std::min(detected, *limit);
}

}  // namespace caravan
