// model_pattern_fuzzer.cpp - any patterns and model: if both match, they overlap; overlapping is mutual.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/quota/model_pattern.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view rest(reinterpret_cast<const char *>(data), size), part[3];
  for (std::string_view &each : part) {
    size_t end = std::min(rest.find('\n'), rest.size());
    each = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  auto [a, b, model] = part;
  if (!CheckPattern(a).ok() || !CheckPattern(b).ok() || !CheckModel(model).ok()) return 0;
  bool overlap = Overlap(a, b);
  if (overlap != Overlap(b, a)) abort();
  if (Matches(a, model) && Matches(b, model) && !overlap) abort();
  if (!Matches("*", model) || !Overlap(a, "*") || ModelHash(model) == 0) abort();
  if (a.find_first_of("*?") == std::string_view::npos && Matches(a, model) != (a == model)) abort();
  return 0;
}
