// keyring_fuzzer.cpp - any bytes as a keyring: refused and wiped, or a keyring with distinct well-formed ids.
#include <cstdlib>
#include <cstring>

#include "core/secret/keyring.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Keyring keyring, empty;
  Status status = ParseKeyring({reinterpret_cast<const char *>(data), size}, &keyring);
  if (!status.ok() && memcmp(&keyring, &empty, sizeof(empty)) != 0) abort();
  if (status.ok() && (keyring.count < 1 || keyring.count > kMaxMasterKeys)) abort();
  for (int i = 0; i < keyring.count; ++i)
    if (!IsMasterKeyId(keyring.keys[i].id) || FindMasterKey(keyring, keyring.keys[i].id) != &keyring.keys[i]) abort();
  if (keyring.count > 0) WipeKeyring(&keyring);
  return 0;
}
