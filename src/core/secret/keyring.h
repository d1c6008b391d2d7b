// keyring.h - the master keys that seal the secrets.
//
// File format: one `id:base64(32 bytes)` a line; the first is the primary, which seals; all of them open. Blank lines
// and lines that start with '#' are passed over. An id is 1 to 64 letters, digits, '.', '_' or '-'.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/status.h"

struct evp_cipher_ctx_st;

namespace keypool {

inline constexpr size_t kMasterKeyBytes = 32;
inline constexpr size_t kMaxMasterKeyId = 64;
inline constexpr int kMaxMasterKeys = 64;

struct MasterKey {
  char id[kMaxMasterKeyId + 1];
  uint8_t bytes[kMasterKeyBytes];
  evp_cipher_ctx_st *opener;  // a cipher context with this key set up, made at its first use; owned by the keyring
};

// All zero is the empty keyring. Not copyable by assignment once used: MoveKeyring.
struct Keyring {
  int count;
  MasterKey keys[kMaxMasterKeys];
};

// Reads the file's text into an empty keyring. On failure (kKeyring; the message gives the line, never what is in it)
// the keyring is wiped. Refused: no key at all, a malformed line or id, a key that is not 32 bytes, an id twice.
Status ParseKeyring(std::string_view text, Keyring *keyring) noexcept;

// Null if there is none. Belongs to the keyring.
const MasterKey *FindMasterKey(const Keyring &keyring, std::string_view id) noexcept;

// What tells master keys apart without telling anything of them: the first eight bytes of HMAC-SHA-256 over a constant,
// in hexadecimal. Empty if the cipher library fails.
inline constexpr size_t kFingerprintText = 16;
void Fingerprint(const MasterKey &key, char (&out)[kFingerprintText + 1]) noexcept;

// Overwrites the key material, frees the cipher contexts, and leaves the empty keyring.
void WipeKeyring(Keyring *keyring) noexcept;

// Puts `from` into `to`, whose old content is wiped, and leaves `from` empty.
void MoveKeyring(Keyring *from, Keyring *to) noexcept;

// An id as the format allows it.
bool IsMasterKeyId(std::string_view id) noexcept;

}  // namespace keypool
