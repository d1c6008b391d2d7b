// secret_fingerprint.h - what tells that two keys of a provider have the same secret, without telling the secret.
//
// HMAC-SHA-256 over the provider and the secret, each after its length as four bytes, most significant first. Its key
// is HMAC-SHA-256 of "keypool secret fingerprint v1" under a master key: nobody can try secrets without the keyring.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/secret/keyring.h"
#include "core/status.h"

namespace keypool {

inline constexpr size_t kSecretFingerprintBytes = 32;

// kInternal: the cipher library failed.
Status FingerprintSecret(const MasterKey &key, std::string_view provider, std::string_view secret,
                         uint8_t (&out)[kSecretFingerprintBytes]) noexcept;

}  // namespace keypool
