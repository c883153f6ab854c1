// Which instruction set this processor offers, and which one Caravan may use.
//
// The program itself is compiled for plain x86-64; kernels for higher levels live in objects of their own and are
// chosen at run time.  Each level contains the ones before it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

enum class Isa {
  kBaseline,    // x86-64: enough to print a sentence, not to compute
  kAvx2,        // x86-64-v3: AVX2, FMA, F16C, BMI2.  Caravan's minimum
  kAvx512,      // x86-64-v4: AVX-512 F, BW, CD, DQ, VL
  kAvx512Bf16,  // + AVX512_BF16 and AVX512_VNNI (Cooper Lake, Zen 4)
  kAmx,         // + AMX-TILE, AMX-BF16 (Sapphire Rapids), with the kernel's permission to use the tiles
};

// "baseline", "avx2", "avx512", "avx512_bf16", "amx": the words CARAVAN_MAX_ISA takes.
const char* to_string(Isa isa);

// The level of that name, or nothing.
std::optional<Isa> parse_isa(std::string_view name);

// The highest level that processor and operating system offer.  Asks Linux for permission to use AMX tiles, which
// covers threads started afterwards: call it before any thread starts.
Isa detect_isa();

// detect_isa() lowered to the environment variable CARAVAN_MAX_ISA where that is set.
// Throws InputError when the variable names no level, UnsupportedError when the processor is below kAvx2.
Isa usable_isa();

// Every level from kAvx2 to `highest`, lowest first.
std::vector<Isa> isa_levels(Isa highest);

// The processor's own name, as in /proc/cpuinfo, or "unknown processor".
std::string processor_name();

}  // namespace caravan
