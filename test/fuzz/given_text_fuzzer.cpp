// given_text_fuzzer.cpp - any bytes as a secret and as a name: what passes has nothing at its ends to cut, one line
// unless it may have more, and no control character.
#include <algorithm>
#include <cstdlib>

#include "core/provider_name.h"
#include "core/secret/envelope.h"
#include "core/secret/given_text.h"

using namespace keypool;

static bool HasControl(std::string_view text, bool lines) {
  return std::any_of(text.begin(), text.end(), [lines](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && !(lines && (c == '\n' || c == '\r' || c == '\t'))) || c == 0x7f;
  });
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view given(reinterpret_cast<const char *>(data), size);
  std::string_view cut = CutWhiteSpace(given);
  if (CutWhiteSpace(cut) != cut || given.find(cut) == given.npos) abort();
  if (CheckGivenSecret(cut).ok()) {
    bool lines = cut.front() == '{' || cut.front() == '-';
    if (cut.size() > kMaxSecretBytes || HasControl(cut, lines) || cut.find("\xe2\x80\x8b") != cut.npos) abort();
  }
  if (CheckGivenName(given, "name").ok() && (cut != given || HasControl(given, false))) abort();
  if (CheckGivenLabel(given).ok() && size > kMaxLabelBytes) abort();
  if (CheckNewProviderName(given).ok() && !CheckProviderName(given).ok()) abort();
  return 0;
}
