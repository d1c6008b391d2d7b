// account_fuzzer.cpp - any two accounts: each covers itself, and what it covers begins with its segments.
#include <algorithm>
#include <cstdlib>

#include "core/quota/account.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view text(reinterpret_cast<const char *>(data), size);
  size_t end = std::min(text.find('\n'), text.size());
  std::string_view a = text.substr(0, end), b = text.substr(std::min(end + 1, text.size()));
  if (!CheckAccount(a).ok() || !CheckAccount(b).ok()) return 0;
  if (!Covers(a, a) || !Covers(b, b)) abort();
  if (Covers(a, b) && Covers(b, a) && a != b) abort();
  if (Covers(a, b) && a != b && (b.size() < a.size() + 2 || b[a.size()] != '/')) abort();
  for (size_t at = b.find('/'); at != std::string_view::npos; at = b.find('/', at + 1))
    if (!CheckAccount(b.substr(0, at)).ok() || !Covers(b.substr(0, at), b)) abort();
  return 0;
}
