// secret_fingerprint.cpp - telling that two keys have the same secret.
#include "core/secret/secret_fingerprint.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstring>

#include "core/secret/envelope.h"
#include "core/secret/registers.h"

namespace keypool {

namespace {

constexpr std::string_view kPurpose = "keypool secret fingerprint v1";

struct Message {
  uint8_t bytes[2 * 4 + kMaxProviderBytes + kMaxSecretBytes];
  size_t size = 0;

  void Append(std::string_view field) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes[size++] = static_cast<uint8_t>(field.size() >> shift);
    memcpy(bytes + size, field.data(), field.size());
    size += field.size();
  }
};

bool Mac(const uint8_t *key, size_t key_size, const uint8_t *message, size_t size,
         uint8_t (&out)[kSecretFingerprintBytes]) {
  unsigned int written = 0;
  return HMAC(EVP_sha256(), key, static_cast<int>(key_size), message, size, out, &written) != nullptr &&
         written == kSecretFingerprintBytes;
}

}  // namespace

Status FingerprintSecret(const MasterKey &key, std::string_view provider, std::string_view secret,
                         uint8_t (&out)[kSecretFingerprintBytes]) noexcept {
  if (secret.size() > kMaxSecretBytes)
    return Failure(Code::kInvalidArgument, "key_value must not be longer than %zu bytes", kMaxSecretBytes);
  Message message;
  message.Append(provider.substr(0, kMaxProviderBytes));
  message.Append(secret);
  uint8_t derived[kSecretFingerprintBytes];
  auto *purpose = reinterpret_cast<const uint8_t *>(kPurpose.data());
  bool done = Mac(key.bytes, sizeof(key.bytes), purpose, kPurpose.size(), derived) &&
              Mac(derived, sizeof(derived), message.bytes, message.size, out);
  OPENSSL_cleanse(derived, sizeof(derived));
  OPENSSL_cleanse(&message, sizeof(message));
  WipeVectorRegisters();
  return done ? Status() : Failure(Code::kInternal, "the cipher library failed");
}

}  // namespace keypool
