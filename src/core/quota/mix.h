// mix.h - a hash for ids and names. Not one that withstands an attack.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/key_id.h"

namespace keypool {

// The finalizer of MurmurHash3 (Austin Appleby, public domain): spreads every bit over all others.
inline constexpr uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

inline uint64_t HashOfId(const KeyId &id) {
  uint64_t halves[2];
  memcpy(halves, id.bytes, sizeof(halves));
  return MixBits(halves[0] ^ MixBits(halves[1]));
}

// FNV-1a, mixed.
inline uint64_t HashOfText(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return MixBits(hash);
}

}  // namespace keypool
