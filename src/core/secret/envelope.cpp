// envelope.cpp - sealing and opening secrets.
#include "core/secret/envelope.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstdio>

#include "core/secret/base64.h"
#include "core/secret/registers.h"

namespace keypool {

namespace {

constexpr std::string_view kEncrypted = "enc:";
constexpr std::string_view kSealedPrefix = "enc:v1:";
constexpr std::string_view kVersion = "v1";

// The additional data of a sealed secret.
class OwnerData {
 public:
  // A provider whose name is too long, which no row should have, owns nothing that was ever sealed.
  OwnerData(std::string_view master_key_id, const SecretOwner &owner) {
    Append(kVersion);
    Append(master_key_id);
    Append({reinterpret_cast<const char *>(owner.id.bytes), sizeof(owner.id.bytes)});
    Append(owner.provider.substr(0, kMaxProviderBytes));
  }
  const uint8_t *bytes() const { return bytes_; }
  int size() const { return static_cast<int>(size_); }

 private:
  void Append(std::string_view field) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes_[size_++] = static_cast<uint8_t>(field.size() >> shift);
    memcpy(bytes_ + size_, field.data(), field.size());
    size_ += field.size();
  }

  uint8_t bytes_[4 * 4 + kVersion.size() + kMaxMasterKeyId + sizeof(KeyId) + kMaxProviderBytes];
  size_t size_ = 0;
};

Status CipherFailed() { return Failure(Code::kInternal, "the cipher library failed"); }

// The context that opens with this key, made at its first use: setting a key up costs more than a short decryption.
EVP_CIPHER_CTX *Opener(MasterKey *key) {
  if (key->opener != nullptr) return key->opener;
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context == nullptr) return nullptr;
  if (EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), nullptr, key->bytes, nullptr) != 1) {
    EVP_CIPHER_CTX_free(context);
    return nullptr;
  }
  return key->opener = context;
}

// Opens nonce | ciphertext | tag. `data` is null where there is no additional data.
Status OpenPayload(MasterKey *key, const StoredSecret &stored, const OwnerData *data, char *out, size_t *size) {
  EVP_CIPHER_CTX *context = Opener(key);
  if (context == nullptr) return CipherFailed();
  const uint8_t *ciphertext = stored.bytes + kNonceBytes;
  int length = static_cast<int>(stored.payload_size - kNonceBytes - kTagBytes);
  auto *tag = const_cast<uint8_t *>(ciphertext + length);
  auto *plaintext = reinterpret_cast<unsigned char *>(out);
  int written = 0;
  bool opened = EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, stored.bytes) == 1 &&
                (data == nullptr || EVP_DecryptUpdate(context, nullptr, &written, data->bytes(), data->size()) == 1) &&
                EVP_DecryptUpdate(context, plaintext, &written, ciphertext, length) == 1 &&
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag) == 1 &&
                EVP_DecryptFinal_ex(context, plaintext + length, &written) == 1;
  WipeVectorRegisters();
  if (!opened) {
    OPENSSL_cleanse(out, static_cast<size_t>(length));
    return Failure(Code::kNotAuthentic, "the secret does not open: it was altered, moved, or sealed with another key");
  }
  *size = static_cast<size_t>(length);
  return {};
}

Status OpenSealed(Keyring *keyring, const StoredSecret &stored, const SecretOwner &owner, char *out, size_t *size) {
  std::string_view id = stored.master_key_id();
  const MasterKey *key = FindMasterKey(*keyring, id);
  if (key == nullptr)
    return Failure(Code::kMissingMasterKey, "master key \"%.*s\" is not in the keyring", static_cast<int>(id.size()),
                   id.data());
  OwnerData data(id, owner);
  return OpenPayload(const_cast<MasterKey *>(key), stored, &data, out, size);
}

// The old form does not say which key sealed it.
Status OpenLegacy(Keyring *keyring, const StoredSecret &stored, char *out, size_t *size) {
  if (keyring->count == 0) return Failure(Code::kMissingMasterKey, "the keyring holds no master key");
  Status status;
  for (int i = 0; i < keyring->count; ++i) {
    status = OpenPayload(&keyring->keys[i], stored, nullptr, out, size);
    if (status.code != Code::kNotAuthentic) return status;
  }
  return status;
}

bool EncryptPayload(EVP_CIPHER_CTX *context, const MasterKey &key, const OwnerData &data, std::string_view secret,
                    uint8_t *payload) {
  auto *plaintext = reinterpret_cast<const unsigned char *>(secret.data());
  int length = static_cast<int>(secret.size());
  uint8_t *ciphertext = payload + kNonceBytes;
  int written = 0;
  return EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, key.bytes, payload) == 1 &&
         EVP_EncryptUpdate(context, nullptr, &written, data.bytes(), data.size()) == 1 &&
         EVP_EncryptUpdate(context, ciphertext, &written, plaintext, length) == 1 &&
         EVP_EncryptFinal_ex(context, ciphertext + length, &written) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagBytes, ciphertext + length) == 1;
}

}  // namespace

std::string_view SealedUnder(std::string_view stored) noexcept {
  if (!stored.starts_with(kSealedPrefix)) return {};
  stored.remove_prefix(kSealedPrefix.size());
  size_t colon = stored.find(':');
  if (colon == std::string_view::npos || !IsMasterKeyId(stored.substr(0, colon))) return {};
  return stored.substr(0, colon);
}

Status PrepareOpeners(Keyring *keyring) noexcept {
  for (int i = 0; i < keyring->count; ++i)
    if (Opener(&keyring->keys[i]) == nullptr) return CipherFailed();
  WipeVectorRegisters();
  return {};
}

bool ClaimsEncryption(std::string_view stored) noexcept { return stored.starts_with(kEncrypted); }

void ParseStored(std::string_view stored, uint8_t *buffer, StoredSecret *secret) noexcept {
  *secret = {buffer, 0, 0, SecretForm::kMalformed};
  if (!ClaimsEncryption(stored)) {
    if (stored.empty() || stored.size() > kMaxSecretBytes) return;
    memcpy(buffer, stored.data(), stored.size());
    secret->payload_size = static_cast<uint16_t>(stored.size());
    secret->form = SecretForm::kPlain;
    return;
  }
  if (stored == kNoSecret) {
    secret->form = SecretForm::kNone;
    return;
  }
  bool sealed = stored.starts_with(kSealedPrefix);
  stored.remove_prefix(sealed ? kSealedPrefix.size() : kEncrypted.size());
  std::string_view id;
  if (sealed) {
    size_t colon = std::min(stored.find(':'), stored.size());
    id = stored.substr(0, colon);
    if (!IsMasterKeyId(id) || colon == stored.size()) return;
    stored.remove_prefix(colon + 1);
  }
  size_t size;
  if (!DecodeBase64(stored, buffer, &size)) return;
  if (size <= kNonceBytes + kTagBytes || size > kMaxPayloadBytes) return;
  std::copy(id.begin(), id.end(), buffer + size);
  secret->payload_size = static_cast<uint16_t>(size);
  secret->master_key_id_size = static_cast<uint8_t>(id.size());
  secret->form = sealed ? SecretForm::kSealed : SecretForm::kLegacy;
}

Status Seal(const MasterKey &master_key, const uint8_t (&nonce)[kNonceBytes], const SecretOwner &owner,
            std::string_view secret, char *out, size_t *size) noexcept {
  if (!IsMasterKeyId(master_key.id)) return Failure(Code::kInternal, "the master key has no name");
  if (secret.empty()) return Failure(Code::kInvalidArgument, "key_value must not be empty");
  if (secret.size() > kMaxSecretBytes)
    return Failure(Code::kInvalidArgument, "key_value must not be longer than %zu bytes", kMaxSecretBytes);
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context == nullptr) return CipherFailed();
  uint8_t payload[kMaxPayloadBytes];
  memcpy(payload, nonce, kNonceBytes);
  bool sealed = EncryptPayload(context, master_key, OwnerData(master_key.id, owner), secret, payload);
  EVP_CIPHER_CTX_free(context);
  WipeVectorRegisters();
  if (!sealed) return CipherFailed();
  size_t prefix = static_cast<size_t>(snprintf(out, kMaxSealedText, "%s%s:", kSealedPrefix.data(), master_key.id));
  *size = prefix + EncodeBase64(payload, kNonceBytes + secret.size() + kTagBytes, out + prefix);
  return {};
}

Status Open(Keyring *keyring, const StoredSecret &stored, const SecretOwner &owner, char *out, size_t *size) noexcept {
  switch (stored.form) {
    case SecretForm::kPlain:
      memcpy(out, stored.bytes, stored.payload_size);
      *size = stored.payload_size;
      return {};
    case SecretForm::kLegacy:
      return OpenLegacy(keyring, stored, out, size);
    case SecretForm::kSealed:
      return OpenSealed(keyring, stored, owner, out, size);
    case SecretForm::kNone:
      return Failure(Code::kNotAuthentic, "the key has no secret yet");
    case SecretForm::kMalformed:
      break;
  }
  return Failure(Code::kNotAuthentic, "the secret is malformed");
}

}  // namespace keypool
