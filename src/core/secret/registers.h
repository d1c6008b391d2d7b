// registers.h - wiping what a cipher leaves in the processor's registers.
#pragma once

namespace keypool {

// Zeroes the vector registers. AES-GCM works in them and leaves a block of plaintext there; the upper ones are so
// rarely used that it stays for long, and goes into a core file of the process. Does nothing on processors other than
// x86-64.
void WipeVectorRegisters() noexcept;

}  // namespace keypool
