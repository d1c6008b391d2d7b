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

uint16_t Longer(uint16_t length, size_t by) { return length == kNever ? kNever : static_cast<uint16_t>(length + by); }

// The shortest text that both characters, no stars, take before `rest`.
uint16_t ShortestOfBoth(std::string_view a, std::string_view b, uint16_t rest) {
  if (a == "?") return Longer(rest, b.size());
  return b == "?" || a == b ? Longer(rest, a.size()) : kNever;
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

// From the ends to the beginnings: shortest[j] is the length of the shortest text that both the rest of `a` and the
// rest of `b` from j on match. Only character boundaries of `b` are used.
bool Overlap(std::string_view a, std::string_view b) noexcept {
  assert(a.size() <= kMaxPatternBytes && b.size() <= kMaxPatternBytes);
  uint16_t starts[kMaxPatternBytes + 1], shortest[kMaxPatternBytes + 1], below[kMaxPatternBytes + 1];
  uint16_t a_starts[kMaxPatternBytes + 1];
  auto split = [](std::string_view text, uint16_t *out) {
    int count = 0;
    for (size_t at = 0; at < text.size(); at += CharacterSize(text, at)) out[count++] = static_cast<uint16_t>(at);
    out[count] = static_cast<uint16_t>(text.size());
    return count;
  };
  int a_count = split(a, a_starts), b_count = split(b, starts);
  auto character = [](std::string_view text, const uint16_t *at, int i) {
    return text.substr(at[i], at[i + 1] - at[i]);
  };
  shortest[b_count] = 0;
  for (int j = b_count - 1; j >= 0; --j) shortest[j] = b[starts[j]] == '*' ? shortest[j + 1] : kNever;
  for (int i = a_count - 1; i >= 0; --i) {
    std::copy(shortest, shortest + b_count + 1, below);
    std::string_view in_a = character(a, a_starts, i);
    shortest[b_count] = in_a == "*" ? below[b_count] : kNever;
    for (int j = b_count - 1; j >= 0; --j) {
      std::string_view in_b = character(b, starts, j);
      uint16_t best = kNever;
      if (in_a == "*" && in_b == "*")
        best = std::min(below[j], shortest[j + 1]);
      else if (in_a == "*")
        best = std::min(below[j], Longer(shortest[j + 1], in_b.size()));
      else if (in_b == "*")
        best = std::min(shortest[j + 1], Longer(below[j], in_a.size()));
      else
        best = ShortestOfBoth(in_a, in_b, below[j + 1]);
      shortest[j] = best;
    }
  }
  return shortest[0] <= kMaxModelBytes;
}

uint32_t ModelHash(std::string_view model) noexcept {
  uint32_t hash = static_cast<uint32_t>(HashOfText(model) >> 32);
  return hash == 0 ? 1 : hash;
}

}  // namespace keypool
