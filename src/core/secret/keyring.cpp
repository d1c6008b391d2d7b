// keyring.cpp - reading, finding and wiping master keys.
#include "core/secret/keyring.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/secret/base64.h"

namespace keypool {

namespace {

constexpr size_t kMasterKeyText = Base64Size(kMasterKeyBytes);

std::string_view TrimBlanks(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  size_t first = line.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(kBlanks) - first + 1);
}

Status ParseLine(std::string_view line, int number, Keyring *keyring) {
  size_t colon = line.find(':');
  if (colon == std::string_view::npos)
    return Failure(Code::kKeyring, "line %d of the keyring is not of the form id:base64", number);
  std::string_view id = line.substr(0, colon);
  std::string_view encoded = line.substr(colon + 1);
  if (!IsMasterKeyId(id))
    return Failure(Code::kKeyring,
                   "line %d of the keyring has an id that is not 1 to %zu letters, digits, '.', '_', '-'", number,
                   kMaxMasterKeyId);
  if (FindMasterKey(*keyring, id) != nullptr)
    return Failure(Code::kKeyring, "line %d of the keyring repeats an id", number);
  if (keyring->count == kMaxMasterKeys)
    return Failure(Code::kKeyring, "line %d of the keyring is one key too many; it may hold %d", number,
                   kMaxMasterKeys);
  MasterKey *key = &keyring->keys[keyring->count];
  uint8_t decoded[kMasterKeyText / 4 * 3];
  size_t size = 0;
  bool valid = encoded.size() == kMasterKeyText && DecodeBase64(encoded, decoded, &size) && size == kMasterKeyBytes;
  if (valid) {
    memcpy(key->id, id.data(), id.size());
    key->id[id.size()] = '\0';
    memcpy(key->bytes, decoded, kMasterKeyBytes);
    ++keyring->count;
  }
  OPENSSL_cleanse(decoded, sizeof(decoded));
  if (!valid)
    return Failure(Code::kKeyring, "line %d of the keyring does not hold %zu bytes in base64", number, kMasterKeyBytes);
  return {};
}

Status ParseLines(std::string_view text, Keyring *keyring) {
  for (int number = 1; !text.empty(); ++number) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = TrimBlanks(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    if (Status status = ParseLine(line, number, keyring); !status.ok()) return status;
  }
  if (keyring->count == 0) return Failure(Code::kKeyring, "the keyring holds no master key");
  return {};
}

}  // namespace

Status ParseKeyring(std::string_view text, Keyring *keyring) noexcept {
  Status status = ParseLines(text, keyring);
  if (!status.ok()) WipeKeyring(keyring);
  return status;
}

const MasterKey *FindMasterKey(const Keyring &keyring, std::string_view id) noexcept {
  const MasterKey *end = keyring.keys + keyring.count;
  const MasterKey *found = std::find_if(keyring.keys, end, [id](const MasterKey &key) { return id == key.id; });
  return found == end ? nullptr : found;
}

void Fingerprint(const MasterKey &key, char (&out)[kFingerprintText + 1]) noexcept {
  static constexpr uint8_t kMessage[] = "keypool master key fingerprint";
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  out[0] = '\0';
  if (HMAC(EVP_sha256(), key.bytes, sizeof(key.bytes), kMessage, sizeof(kMessage) - 1, digest, &size) == nullptr)
    return;
  for (size_t i = 0; i < kFingerprintText / 2; ++i) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void WipeKeyring(Keyring *keyring) noexcept {
  for (MasterKey &key : keyring->keys) EVP_CIPHER_CTX_free(key.opener);
  OPENSSL_cleanse(keyring, sizeof(*keyring));
}

void MoveKeyring(Keyring *from, Keyring *to) noexcept {
  WipeKeyring(to);
  memcpy(to, from, sizeof(*to));
  OPENSSL_cleanse(from, sizeof(*from));
}

bool IsMasterKeyId(std::string_view id) noexcept {
  auto allowed = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !id.empty() && id.size() <= kMaxMasterKeyId && std::all_of(id.begin(), id.end(), allowed);
}

}  // namespace keypool
