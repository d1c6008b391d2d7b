// model_pattern.cpp - which models a key or a quota is for.
#include "core/quota/model_pattern.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/quota/mix.h"

namespace keypool {

namespace {

constexpr uint16_t kNever = UINT16_MAX;

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool Continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// The bytes of the character that begins at `at`; of text that is not UTF-8, one byte or a few.
size_t CharacterSize(std::string_view text, size_t at) {
  assert(at < text.size());
  size_t size = 1;
  if (static_cast<unsigned char>(text[at]) >= 0xc0)
    while (size < 4 && at + size < text.size() && Continues(text[at + size])) ++size;
  return size;
}

Status CheckText(std::string_view text, size_t max_bytes, const char *what) {
  if (text.empty()) return Failure(Code::kInvalidArgument, "%s must not be empty", what);
  if (text.size() > max_bytes)
    return Failure(Code::kInvalidArgument, "%s must not be longer than %zu bytes", what, max_bytes);
  if (std::any_of(text.begin(), text.end(), IsControl))
    return Failure(Code::kInvalidArgument, "%s must not contain control characters", what);
  return {};
}

// Whether the pattern's character at `p`, which is no star, takes the model's at `m`; if so, passes both.
bool TakeCharacter(std::string_view pattern, std::string_view model, size_t *p, size_t *m) {
  size_t of_model = CharacterSize(model, *m), of_pattern = CharacterSize(pattern, *p);
  bool equal = of_model == of_pattern && memcmp(&pattern[*p], &model[*m], of_model) == 0;
  if (pattern[*p] != '?' && !equal) return false;
  *p += of_pattern;
  *m += of_model;
  return true;
}

// A pattern by its characters.
struct Characters {
  std::string_view character[kMaxPatternBytes];
  int count = 0;

  explicit Characters(std::string_view pattern) {
    assert(pattern.size() <= kMaxPatternBytes);
    for (size_t at = 0; at < pattern.size(); at += character[count++].size())
      character[count] = pattern.substr(at, CharacterSize(pattern, at));
  }
};

uint16_t Longer(uint16_t length, size_t by) { return length == kNever ? kNever : static_cast<uint16_t>(length + by); }

// The length of the shortest text that two patterns have in common, each of which begins with one of these characters:
// by that of what they have in common without a's, without b's, and without both.
uint16_t Shortest(std::string_view a, std::string_view b, uint16_t without_a, uint16_t without_b, uint16_t without) {
  if (a == "*" && b == "*") return std::min(without_a, without_b);
  if (a == "*") return std::min(without_a, Longer(without_b, b.size()));
  if (b == "*") return std::min(without_b, Longer(without_a, a.size()));
  if (a == "?") return Longer(without, b.size());
  return b == "?" || a == b ? Longer(without, a.size()) : kNever;
}

}  // namespace

Status CheckPattern(std::string_view pattern) noexcept { return CheckText(pattern, kMaxPatternBytes, "model pattern"); }
Status CheckModel(std::string_view model) noexcept { return CheckText(model, kMaxModelBytes, "model"); }

bool Matches(std::string_view pattern, std::string_view model) noexcept {
  size_t p = 0, m = 0;
  size_t after_star = std::string_view::npos, star_from = 0;  // the last star, and what it has not taken yet
  while (m < model.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      star_from = m;
    } else if (p >= pattern.size() || !TakeCharacter(pattern, model, &p, &m)) {
      if (after_star == std::string_view::npos) return false;
      star_from += CharacterSize(model, star_from);
      p = after_star;
      m = star_from;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// From the ends to the beginnings: shortest[j] is of the rest of `a` from i on and the rest of `b` from j on.
bool Overlap(std::string_view a, std::string_view b) noexcept {
  Characters of_a(a), of_b(b);
  uint16_t shortest[kMaxPatternBytes + 1];
  shortest[of_b.count] = 0;
  for (int j = of_b.count; j-- > 0;) shortest[j] = of_b.character[j] == "*" ? shortest[j + 1] : kNever;
  for (int i = of_a.count; i-- > 0;) {
    std::string_view in_a = of_a.character[i];
    uint16_t without = shortest[of_b.count];
    shortest[of_b.count] = in_a == "*" ? without : kNever;
    for (int j = of_b.count; j-- > 0;) {
      uint16_t without_a = shortest[j];
      shortest[j] = Shortest(in_a, of_b.character[j], without_a, shortest[j + 1], without);
      without = without_a;
    }
  }
  return shortest[0] <= kMaxModelBytes;
}

uint32_t ModelHash(std::string_view model) noexcept {
  uint32_t hash = static_cast<uint32_t>(HashOfText(model) >> 32);
  return hash == 0 ? 1 : hash;
}

}  // namespace keypool
