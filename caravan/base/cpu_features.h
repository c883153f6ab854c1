// What cpuid says, and the level it amounts to: the pure half of isa.h, apart so that tests can play other processors.
#pragma once

#include <cstdint>
#include <string>

#include "caravan/base/isa.h"

namespace caravan {

// Registers as cpuid and xgetbv return them; zero where the processor has no such leaf.
struct CpuFeatures {
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0;
  std::uint32_t leaf7_ecx = 0;
  std::uint32_t leaf7_edx = 0;
  std::uint32_t leaf7_1_eax = 0;     // leaf 7, sub-leaf 1
  std::uint32_t extended1_ecx = 0;   // leaf 0x80000001
  std::uint64_t xcr0 = 0;            // register state that the operating system saves
  bool amx_tile_permission = false;  // Linux granted tile data to this process
};

// Asks this machine.  Requests the tile permission when the processor has AMX.
CpuFeatures read_cpu_features();

// The highest level that the features hold.
Isa highest_isa(const CpuFeatures& features);

// What kAvx2 needs and the features lack, as a list for a sentence ("AVX2, FMA"); empty when nothing is missing.
std::string missing_for_avx2(const CpuFeatures& features);

// `detected` lowered to the level named by `max_isa`, the text of CARAVAN_MAX_ISA; null or empty changes nothing.
// Throws InputError when it names no level.
Isa lower_isa(Isa detected, const char* max_isa);

}  // namespace caravan
