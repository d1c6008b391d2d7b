// registers_test.cpp - nothing is left in the vector registers.
#include "core/secret/registers.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace keypool {
namespace {

#if defined(__x86_64__)

constexpr uint64_t kMarker = 0x6b72616d2d6b7321;

TEST(Registers, OfSseAreWiped) {
  uint64_t left = kMarker;
  asm volatile("movq %0, %%xmm11" : : "r"(kMarker) : "xmm11");
  WipeVectorRegisters();
  asm volatile("movq %%xmm11, %0" : "=r"(left));
  EXPECT_EQ(left, 0u);
}

TEST(Registers, OfAvx512AreWiped) {
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "no AVX-512 here";
  uint64_t left[8] = {kMarker};
  asm volatile("vpbroadcastq %0, %%zmm21" : : "r"(kMarker));
  WipeVectorRegisters();
  asm volatile("vmovdqu64 %%zmm21, %0" : "=m"(left));
  for (uint64_t lane : left) EXPECT_EQ(lane, 0u);
}

#endif

}  // namespace
}  // namespace keypool
