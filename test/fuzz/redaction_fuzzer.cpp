// redaction_fuzzer.cpp - any text: it never grows, and what is redacted once stays as it is.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "core/redaction.h"

using namespace keypool;

static void Check(std::vector<char> text, bool backslashes) {
  size_t once = RedactConstants(text.data(), text.size(), backslashes);
  if (once > text.size()) abort();
  std::vector<char> again(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(once));
  if (RedactConstants(again.data(), again.size(), backslashes) != once) abort();
  if (!std::equal(again.begin(), again.end(), text.begin())) abort();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<char> text(data, data + size);
  Check(text, false);
  Check(text, true);
  return 0;
}
