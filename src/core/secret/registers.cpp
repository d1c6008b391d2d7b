// registers.cpp - wiping what a cipher leaves in the processor's registers.
#include "core/secret/registers.h"

namespace keypool {

#if defined(__x86_64__)

namespace {

void WipeSse() noexcept {
  asm volatile(
      "pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2; pxor %%xmm3, %%xmm3;"
      "pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5; pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7;"
      "pxor %%xmm8, %%xmm8; pxor %%xmm9, %%xmm9; pxor %%xmm10, %%xmm10; pxor %%xmm11, %%xmm11;"
      "pxor %%xmm12, %%xmm12; pxor %%xmm13, %%xmm13; pxor %%xmm14, %%xmm14; pxor %%xmm15, %%xmm15"
      :
      :
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15");
}

// Whole registers 0 to 15.
void WipeAvx() noexcept {
  asm volatile("vzeroall"
               :
               :
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                 "xmm12", "xmm13", "xmm14", "xmm15");
}

// Registers 16 to 31. Code for the baseline of x86-64 never uses them, so none need be named as changed.
void WipeAvx512() noexcept {
  asm volatile(
      "vpxord %zmm16, %zmm16, %zmm16; vpxord %zmm17, %zmm17, %zmm17; vpxord %zmm18, %zmm18, %zmm18;"
      "vpxord %zmm19, %zmm19, %zmm19; vpxord %zmm20, %zmm20, %zmm20; vpxord %zmm21, %zmm21, %zmm21;"
      "vpxord %zmm22, %zmm22, %zmm22; vpxord %zmm23, %zmm23, %zmm23; vpxord %zmm24, %zmm24, %zmm24;"
      "vpxord %zmm25, %zmm25, %zmm25; vpxord %zmm26, %zmm26, %zmm26; vpxord %zmm27, %zmm27, %zmm27;"
      "vpxord %zmm28, %zmm28, %zmm28; vpxord %zmm29, %zmm29, %zmm29; vpxord %zmm30, %zmm30, %zmm30;"
      "vpxord %zmm31, %zmm31, %zmm31; vzeroupper");
}

}  // namespace

void WipeVectorRegisters() noexcept {
  if (__builtin_cpu_supports("avx512f")) WipeAvx512();
  if (__builtin_cpu_supports("avx"))
    WipeAvx();
  else
    WipeSse();
}

#else

void WipeVectorRegisters() noexcept {}

#endif

}  // namespace keypool
