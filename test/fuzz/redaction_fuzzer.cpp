// redaction_fuzzer.cpp - any text: it never grows, what is redacted once stays as it is, and the work is bounded.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "core/secret/known_values.h"
#include "core/secret/log_redaction.h"
#include "core/secret/redaction.h"

using namespace keypool;

static void Require(bool condition) {
  if (!condition) abort();
}

static void CheckStatement(std::vector<char> text) {
  Redaction once = RedactConstants(text.data(), text.size());
  Require(once.read == text.size() && once.written <= text.size());
  Require(once.looked_at <= kMaxLooks * text.size());
  std::vector<char> again(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(once.written));
  Require(RedactConstants(again.data(), again.size()).written == once.written);
  Require(std::equal(again.begin(), again.end(), text.begin()));
}

static void CheckEntry(std::vector<char> text) {
  size_t size = text.size();
  if (!RedactKnownShape(text.data(), &size, {})) size = RedactDoubtful(text.data(), size);
  Require(size <= text.size());
  Require(RedactQuotedInput(text.data(), size) <= size);
}

// The first half is known, and looked for in all of it.
static void CheckValues(std::vector<char> text) {
  KnownValues values;
  std::string_view known(text.data(), text.size() / 2);
  values.Remember(known);
  ForEachConstant(
      known, [](void *all, std::string_view constant) { static_cast<KnownValues *>(all)->Remember(constant); },
      &values);
  NamesExecute(known);
  Require(values.Hide(text.data(), text.size()) <= text.size());
  values.Wipe();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<char> text(data, data + size);
  CheckStatement(text);
  CheckEntry(text);
  CheckValues(text);
  return 0;
}
