#include "caravan/base/isa.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "caravan/base/cpu_features.h"
#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan {
namespace {

using test::message_of;

// Bits as the Intel SDM's CPUID tables give them.
CpuFeatures haswell() {
  CpuFeatures features;
  for (const int bit : {0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29}) {
    features.leaf1_ecx |= 1U << bit;
  }
  features.leaf7_ebx = (1U << 3) | (1U << 5) | (1U << 8);
  features.extended1_ecx = 1U << 5;
  features.xcr0 = 0x7;
  return features;
}

CpuFeatures skylake_server() {
  CpuFeatures features = haswell();
  features.leaf7_ebx |= (1U << 16) | (1U << 17) | (1U << 28) | (1U << 30) | (1U << 31);
  features.xcr0 = 0xe7;
  return features;
}

CpuFeatures zen4() {
  CpuFeatures features = skylake_server();
  features.leaf7_1_eax = 1U << 5;
  features.leaf7_ecx = 1U << 11;
  return features;
}

CpuFeatures sapphire_rapids() {
  CpuFeatures features = zen4();
  features.leaf7_edx = (1U << 22) | (1U << 24);
  features.xcr0 = 0x600e7;
  features.amx_tile_permission = true;
  return features;
}

TEST(Isa, NamesRoundTrip) {
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    EXPECT_EQ(parse_isa(to_string(isa)), isa);
  }
  EXPECT_EQ(parse_isa("avx512_bf16"), Isa::kAvx512Bf16);
  EXPECT_FALSE(parse_isa("AVX2"));
  EXPECT_FALSE(parse_isa(""));
}

TEST(Isa, LevelsRunFromAvx2ToTheHighest) {
  EXPECT_TRUE(isa_levels(Isa::kBaseline).empty());
  EXPECT_EQ(isa_levels(Isa::kAvx2), std::vector<Isa>{Isa::kAvx2});
  EXPECT_EQ(isa_levels(Isa::kAmx), (std::vector<Isa>{Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}));
}

TEST(CpuFeatures, KnownProcessorsHaveTheirLevels) {
  EXPECT_EQ(highest_isa(CpuFeatures{}), Isa::kBaseline);
  EXPECT_EQ(highest_isa(haswell()), Isa::kAvx2);
  EXPECT_EQ(highest_isa(skylake_server()), Isa::kAvx512);
  EXPECT_EQ(highest_isa(zen4()), Isa::kAvx512Bf16);
  EXPECT_EQ(highest_isa(sapphire_rapids()), Isa::kAmx);
}

TEST(CpuFeatures, AnOperatingSystemThatDoesNotSaveRegistersLowersTheLevel) {
  CpuFeatures features = sapphire_rapids();
  features.xcr0 = 0xe7;  // no tiles
  EXPECT_EQ(highest_isa(features), Isa::kAvx512Bf16);
  features.xcr0 = 0x7;  // no ZMM
  EXPECT_EQ(highest_isa(features), Isa::kAvx2);
  features.xcr0 = 0x3;  // no YMM
  EXPECT_EQ(highest_isa(features), Isa::kBaseline);
  EXPECT_EQ(missing_for_avx2(features), "the operating system's support for AVX registers");
}

TEST(CpuFeatures, PairsOfBf16AndProductsOfBytesAreOneLevel) {
  CpuFeatures features = zen4();
  features.leaf7_ecx = 0;
  EXPECT_EQ(highest_isa(features), Isa::kAvx512);
  features = zen4();
  features.leaf7_1_eax = 0;
  EXPECT_EQ(highest_isa(features), Isa::kAvx512);
}

TEST(CpuFeatures, AmxNeedsTheKernelsPermission) {
  CpuFeatures features = sapphire_rapids();
  features.amx_tile_permission = false;
  EXPECT_EQ(highest_isa(features), Isa::kAvx512Bf16);
}

TEST(CpuFeatures, EachMissingInstructionSetIsNamed) {
  EXPECT_EQ(missing_for_avx2(haswell()), "");
  CpuFeatures features = haswell();
  features.leaf7_ebx &= ~(1U << 5);
  features.leaf1_ecx &= ~(1U << 12);
  EXPECT_EQ(missing_for_avx2(features), "AVX2, FMA");
  EXPECT_EQ(highest_isa(features), Isa::kBaseline);
}

TEST(LowerIsa, TakesTheLowerOfProcessorAndVariable) {
  EXPECT_EQ(lower_isa(Isa::kAmx, nullptr), Isa::kAmx);
  EXPECT_EQ(lower_isa(Isa::kAmx, ""), Isa::kAmx);
  EXPECT_EQ(lower_isa(Isa::kAmx, "avx2"), Isa::kAvx2);
  EXPECT_EQ(lower_isa(Isa::kAvx512, "amx"), Isa::kAvx512);
  EXPECT_EQ(lower_isa(Isa::kAvx512, "baseline"), Isa::kBaseline);
}

TEST(LowerIsa, RefusesAWordThatNamesNoLevel) {
  const std::string message = message_of<InputError>([] { lower_isa(Isa::kAmx, "sse4"); });
  EXPECT_NE(message.find("CARAVAN_MAX_ISA is \"sse4\""), std::string::npos) << message;
  EXPECT_NE(message.find("avx512_bf16"), std::string::npos) << message;
}

// The environment as it was, whatever the test does to it.
class WithMaxIsa {
 public:
  explicit WithMaxIsa(const char* value) {
    if (const char* former = getenv("CARAVAN_MAX_ISA")) {
      former_ = former;
    }
    setenv("CARAVAN_MAX_ISA", value, 1);
  }
  ~WithMaxIsa() {
    if (former_.empty()) {
      unsetenv("CARAVAN_MAX_ISA");
    } else {
      setenv("CARAVAN_MAX_ISA", former_.c_str(), 1);
    }
  }

 private:
  std::string former_;
};

TEST(UsableIsa, FollowsTheVariable) {
  if (detect_isa() < Isa::kAvx2) {
    GTEST_SKIP() << "this processor is below x86-64-v3";
  }
  {
    const WithMaxIsa variable("avx2");
    EXPECT_EQ(usable_isa(), Isa::kAvx2);
  }
  {
    const WithMaxIsa variable("amx");
    EXPECT_EQ(usable_isa(), detect_isa());
  }
  {
    const WithMaxIsa variable("baseline");
    const std::string message = message_of<UnsupportedError>([] { usable_isa(); });
    EXPECT_NE(message.find("CARAVAN_MAX_ISA is \"baseline\""), std::string::npos) << message;
  }
}

TEST(DetectIsa, AgreesWithTheCompilersOwnCheck) {
  const Isa isa = detect_isa();
  EXPECT_EQ(isa >= Isa::kAvx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(isa >= Isa::kAvx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                                     __builtin_cpu_supports("avx512cd"));
}

TEST(ProcessorName, IsNotEmpty) {
  EXPECT_FALSE(processor_name().empty());
}

}  // namespace
}  // namespace caravan
