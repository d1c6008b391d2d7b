// envelope.h - how a secret is kept: the sealed form, and the older ones that can still be read.
//
//   enc:v1:<master key id>:<base64(nonce 12 | ciphertext | tag 16)>   sealed by keypool
//   enc:<base64(nonce 12 | ciphertext | tag 16)>                      of the service that keypool replaces
//   enc:none                                                          a key that has no secret yet
//   anything else                                                     plaintext of the same service
//
// All are AES-256-GCM (NIST SP 800-38D) with a random nonce. The sealed form authenticates, besides the ciphertext,
// where it belongs: the additional data is "v1", the master key's id, the 16 bytes of the row's id and the provider,
// each after its length as four bytes, most significant first. A value that is copied to another row does not open.
// Provider and secret are UTF-8 (src/pg/server/utf8.h).
#pragma once

#include "core/key_id.h"
#include "core/provider_name.h"
#include "core/secret/keyring.h"

namespace keypool {

inline constexpr size_t kNonceBytes = 12;
inline constexpr size_t kTagBytes = 16;
inline constexpr size_t kMaxSecretBytes = 8192;
inline constexpr size_t kMaxPayloadBytes = kNonceBytes + kMaxSecretBytes + kTagBytes;
inline constexpr size_t kMaxSealedText = 8 + kMaxMasterKeyId + (kMaxPayloadBytes + 2) / 3 * 4;

enum class SecretForm : uint8_t {
  kPlain,
  kLegacy,
  kSealed,
  kNone,
  kMalformed,  // starts like one of ours and is none
};

inline constexpr std::string_view kNoSecret = "enc:none";

// A stored value, taken apart once so that opening it needs no parsing.
struct StoredSecret {
  const uint8_t *bytes;  // nonce | ciphertext | tag, or the plaintext; then the master key's id. Not owned
  uint16_t payload_size;
  uint8_t master_key_id_size;  // 0 but of kSealed
  SecretForm form;

  size_t size() const { return size_t{payload_size} + master_key_id_size; }
  std::string_view master_key_id() const {
    return {reinterpret_cast<const char *>(bytes) + payload_size, master_key_id_size};
  }
};
static_assert(kMaxPayloadBytes <= UINT16_MAX && kMaxMasterKeyId <= UINT8_MAX);

// The row that a secret belongs to.
struct SecretOwner {
  KeyId id;
  std::string_view provider;
};

// The id of the master key that a value says it is sealed under; empty if it is not sealed. The first
// kSealedPrefixMax bytes of the value are enough. Nothing else of it is looked at.
inline constexpr size_t kSealedPrefixMax = 8 + kMaxMasterKeyId;
std::string_view SealedUnder(std::string_view stored) noexcept;

// Sets every master key of a keyring up to open secrets, which the first use of each would do else. kInternal: the
// cipher library failed.
Status PrepareOpeners(Keyring *keyring) noexcept;

// Whether a value claims to be encrypted already, so that it must not be sealed again.
bool ClaimsEncryption(std::string_view stored) noexcept;

// Takes a stored value apart. `buffer` holds at least stored.size() bytes, gets secret->size() of them, and must
// outlive `secret`.
void ParseStored(std::string_view stored, uint8_t *buffer, StoredSecret *secret) noexcept;

// Encrypts. `out` holds at least kMaxSealedText + 1 bytes and gets a NUL. The nonce must never be used twice with a
// master key. kInvalidArgument: the secret is empty or longer than kMaxSecretBytes.
Status Seal(const MasterKey &master_key, const uint8_t (&nonce)[kNonceBytes], const SecretOwner &owner,
            std::string_view secret, char *out, size_t *size) noexcept;

// Decrypts into `out`, which holds at least kMaxSecretBytes; the caller wipes it. On failure `out` is wiped already.
// kMissingMasterKey: the keyring lacks its master key. kNotAuthentic: it does not open.
Status Open(Keyring *keyring, const StoredSecret &stored, const SecretOwner &owner, char *out, size_t *size) noexcept;

}  // namespace keypool
