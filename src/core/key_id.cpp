// key_id.cpp - making the id of a new key.
#include "core/key_id.h"

#include <openssl/evp.h>

namespace keypool {

Status MakeKeyId(std::string_view provider, const uint8_t (&random)[kKeyIdRandomBytes], KeyId *id) noexcept {
  uint8_t digest[EVP_MAX_MD_SIZE];
  if (EVP_Digest(provider.data(), provider.size(), digest, nullptr, EVP_sha256(), nullptr) != 1)
    return Failure(Code::kInternal, "could not compute SHA-256");
  memcpy(id->bytes, digest, 4);
  memcpy(id->bytes + 4, random, sizeof(random));
  id->bytes[6] = (id->bytes[6] & 0x0f) | 0x80;  // version 8
  id->bytes[8] = (id->bytes[8] & 0x3f) | 0x80;  // variant 10
  return {};
}

}  // namespace keypool
