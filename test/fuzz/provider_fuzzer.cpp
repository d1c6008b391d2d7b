// provider_fuzzer.cpp - any bytes as the name of a provider: what passes is short and has no control characters.
#include <cstdlib>
#include <cstring>

#include "core/key_id.h"
#include "core/provider_name.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view name(reinterpret_cast<const char *>(data), size);
  if (!CheckProviderName(name).ok()) return 0;
  if (name.empty() || name.size() > kMaxProviderBytes) abort();
  for (unsigned char c : name)
    if (c < 0x20 || c == 0x7f) abort();
  const uint8_t random[kKeyIdRandomBytes] = {};
  KeyId id;
  if (!MakeKeyId(name, random, &id).ok() || (id.bytes[6] & 0xf0) != 0x80) abort();
  return 0;
}
