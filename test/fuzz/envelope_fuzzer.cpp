// envelope_fuzzer.cpp - any bytes as a stored secret: never opened unless sealed here, and sealing what they hold comes
// back.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/secret/envelope.h"

using namespace keypool;

static Keyring *MakeKeyring() {
  static Keyring keyring = {};
  if (!ParseKeyring("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &keyring).ok()) abort();
  return &keyring;
}

// What is sealed opens to the same, and not for another owner.
static void CheckRoundTrip(Keyring *keyring, std::string_view secret, const SecretOwner &owner) {
  static char sealed[kMaxSealedText + 1], opened[kMaxSecretBytes];
  static uint8_t payload[kMaxSealedText + 1];
  const uint8_t nonce[kNonceBytes] = {1, 2, 3};
  size_t size = 0, opened_size = 0;
  if (!Seal(keyring->keys[0], nonce, owner, secret, sealed, &size).ok()) return;
  StoredSecret stored;
  ParseStored({sealed, size}, payload, &stored);
  if (!Open(keyring, stored, owner, opened, &opened_size).ok()) abort();
  if (std::string_view(opened, opened_size) != secret) abort();
  if (Open(keyring, stored, {owner.id, "another"}, opened, &opened_size).ok()) abort();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Keyring *keyring = MakeKeyring();
  static char opened[kMaxSecretBytes];
  std::string_view text(reinterpret_cast<const char *>(data), size);
  std::vector<uint8_t> payload(size + 1);
  StoredSecret stored;
  ParseStored(text, payload.data(), &stored);
  size_t opened_size = 0;
  SecretOwner owner = {{{7}}, "openai"};
  bool opens = Open(keyring, stored, owner, opened, &opened_size).ok();
  // The seeds hold one value that opens in each form; nobody finds another.
  if (opens && stored.form == SecretForm::kPlain && std::string_view(opened, opened_size) != text) abort();
  if (opens && stored.form == SecretForm::kMalformed) abort();
  if (size % 16 == 0) CheckRoundTrip(keyring, text, owner);
  return 0;
}
