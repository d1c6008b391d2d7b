// key_id.h - the id of a key: a UUID whose first bytes tell the provider.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/status.h"

namespace keypool {

struct KeyId {
  uint8_t bytes[16];

  friend bool operator==(const KeyId &a, const KeyId &b) { return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0; }
  friend bool operator<(const KeyId &a, const KeyId &b) { return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) < 0; }
};

inline constexpr size_t kKeyIdRandomBytes = 12;

// Makes a UUIDv8 (RFC 9562, section 5.8): bytes 0-3 are the first four bytes of SHA-256(provider), so that a router
// finds the key's shard from the id alone; the rest is `random`, less the version and variant bits.
Status MakeKeyId(std::string_view provider, const uint8_t (&random)[kKeyIdRandomBytes], KeyId *id) noexcept;

}  // namespace keypool
