// given_text.cpp - finding what is wrong with secrets and names that people type or paste.
#include "core/secret/given_text.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "core/secret/envelope.h"

namespace keypool {

namespace {

enum class Kind : uint8_t {
  kVisible,
  kBlank,
  kNoBreak,  // a blank that looks like the usual one
  kLineEnd,
  kTab,
  kControl,
  kInvisible,
  kJoiner,    // invisible, and of use between others
  kSelector,  // invisible, and of use after another
  kMask,      // stands for a character that is not shown
};

struct Range {
  char32_t first, last;
  Kind kind;
};

// In ascending order. What is in none of these is visible.
constexpr Range kRanges[] = {
    {0x0000, 0x0008, Kind::kControl},     {0x0009, 0x0009, Kind::kTab},         {0x000a, 0x000d, Kind::kLineEnd},
    {0x000e, 0x001f, Kind::kControl},     {0x0020, 0x0020, Kind::kBlank},       {0x007f, 0x0084, Kind::kControl},
    {0x0085, 0x0085, Kind::kLineEnd},     {0x0086, 0x009f, Kind::kControl},     {0x00a0, 0x00a0, Kind::kNoBreak},
    {0x00ad, 0x00ad, Kind::kInvisible},   {0x00b7, 0x00b7, Kind::kMask},        {0x034f, 0x034f, Kind::kInvisible},
    {0x061c, 0x061c, Kind::kInvisible},   {0x115f, 0x1160, Kind::kInvisible},   {0x1680, 0x1680, Kind::kBlank},
    {0x17b4, 0x17b5, Kind::kInvisible},   {0x180b, 0x180d, Kind::kSelector},    {0x180e, 0x180e, Kind::kInvisible},
    {0x180f, 0x180f, Kind::kSelector},    {0x2000, 0x2006, Kind::kBlank},       {0x2007, 0x2007, Kind::kNoBreak},
    {0x2008, 0x200a, Kind::kBlank},       {0x200b, 0x200b, Kind::kInvisible},   {0x200c, 0x200d, Kind::kJoiner},
    {0x200e, 0x200f, Kind::kInvisible},   {0x2022, 0x2027, Kind::kMask},        {0x2028, 0x2029, Kind::kLineEnd},
    {0x202a, 0x202e, Kind::kInvisible},   {0x202f, 0x202f, Kind::kNoBreak},     {0x2043, 0x2043, Kind::kMask},
    {0x204e, 0x204e, Kind::kMask},        {0x205f, 0x205f, Kind::kBlank},       {0x2060, 0x206f, Kind::kInvisible},
    {0x2217, 0x2219, Kind::kMask},        {0x22c5, 0x22c6, Kind::kMask},        {0x2588, 0x2593, Kind::kMask},
    {0x25a0, 0x25ff, Kind::kMask},        {0x26aa, 0x26ab, Kind::kMask},        {0x2731, 0x2731, Kind::kMask},
    {0x2800, 0x2800, Kind::kInvisible},   {0x2b1b, 0x2b1c, Kind::kMask},        {0x2b24, 0x2b24, Kind::kMask},
    {0x3000, 0x3000, Kind::kBlank},       {0x30fb, 0x30fb, Kind::kMask},        {0x3164, 0x3164, Kind::kInvisible},
    {0xfe00, 0xfe0f, Kind::kSelector},    {0xfeff, 0xfeff, Kind::kInvisible},   {0xff0a, 0xff0a, Kind::kMask},
    {0xff65, 0xff65, Kind::kMask},        {0xffa0, 0xffa0, Kind::kInvisible},   {0xfff0, 0xfffb, Kind::kInvisible},
    {0x1bca0, 0x1bca3, Kind::kInvisible}, {0x1d173, 0x1d17a, Kind::kInvisible}, {0xe0000, 0xe001f, Kind::kInvisible},
    {0xe0020, 0xe007f, Kind::kSelector},  {0xe0080, 0xe00ff, Kind::kInvisible}, {0xe0100, 0xe01ef, Kind::kSelector},
    {0xe01f0, 0xe0fff, Kind::kInvisible},
};
static_assert(std::is_sorted(std::begin(kRanges), std::end(kRanges),
                             [](const Range &a, const Range &b) { return a.last < b.first; }));

Kind KindOf(char32_t code) {
  auto *range =
      std::partition_point(std::begin(kRanges), std::end(kRanges), [code](const Range &r) { return r.last < code; });
  return range != std::end(kRanges) && range->first <= code ? range->kind : Kind::kVisible;
}

struct Character {
  char32_t code;
  Kind kind;
  size_t size;
};

// The character at the front of a text that is not empty. A byte that begins none is one, and visible.
Character FrontOf(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  char32_t code = byte(0);
  if (code < 0x80) return {code, KindOf(code), 1};
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t size = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : code >= 0xc0 ? 2 : 1;
  bool valid = size > 1 && code < 0xf8 && size <= text.size();
  code &= 0x7fu >> size;
  for (size_t i = 1; valid && i < size; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    code = code << 6 | (byte(i) & 0x3f);
  }
  valid = valid && code >= kSmallest[size] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
  return valid ? Character{code, KindOf(code), size} : Character{0xfffd, Kind::kVisible, 1};
}

// The character at the back, likewise.
Character BackOf(std::string_view text) {
  for (size_t size = std::min<size_t>(4, text.size()); size > 1; --size)
    if (Character last = FrontOf(text.substr(text.size() - size)); last.size == size) return last;
  return FrontOf(text.substr(text.size() - 1));
}

bool IsWhiteSpace(Kind kind) {
  return kind == Kind::kBlank || kind == Kind::kNoBreak || kind == Kind::kLineEnd || kind == Kind::kTab;
}

// In ASCII, whatever the case.
bool BeginsWith(std::string_view text, std::string_view lower_case) {
  auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  return text.size() >= lower_case.size() &&
         std::equal(lower_case.begin(), lower_case.end(), text.begin(), [&](char b, char a) { return same(a, b); });
}

bool IsHeader(std::string_view secret) {
  constexpr std::string_view kBearer = "bearer";
  if (BeginsWith(secret, "authorization:")) return true;
  if (!BeginsWith(secret, kBearer)) return false;
  secret.remove_prefix(kBearer.size());
  return secret.empty() || secret.front() == ':' || IsWhiteSpace(FrontOf(secret).kind);
}

// Whether a secret is of a form that has lines.
bool HasLines(std::string_view secret) {
  return (secret.starts_with('{') && secret.ends_with('}')) ||
         (secret.starts_with("-----BEGIN ") && secret.ends_with("-----"));
}

bool IsLetterOrDigit(const Character &c) {
  if (c.code >= 0x80) return c.kind == Kind::kVisible;
  return (c.code >= '0' && c.code <= '9') || (c.code >= 'A' && c.code <= 'Z') || (c.code >= 'a' && c.code <= 'z');
}

bool IsMasked(std::string_view secret) {
  if (secret.find("***") != secret.npos || secret.find("...") != secret.npos) return true;
  bool has_letter = false;
  while (!secret.empty()) {
    Character c = FrontOf(secret);
    if (c.kind == Kind::kMask) return true;
    has_letter = has_letter || IsLetterOrDigit(c);
    secret.remove_prefix(c.size);
  }
  return !has_letter;
}

Status Unseen(const char *argument, const char *what, char32_t code) {
  return Failure(Code::kInvalidArgument, "%s must not contain %s (U+%04X)", argument, what,
                 static_cast<unsigned>(code));
}

// What is wrong with one character inside of a secret.
Status CheckInSecret(const Character &c, bool lines) {
  constexpr const char *kArgument = "key_value";
  switch (c.kind) {
    case Kind::kLineEnd:
      if (lines && (c.code == '\n' || c.code == '\r')) return {};
      return Failure(Code::kInvalidArgument, "%s must not hold more than one line", kArgument);
    case Kind::kTab:
      if (lines) return {};
      [[fallthrough]];
    case Kind::kControl:
      return Unseen(kArgument, "control characters", c.code);
    case Kind::kNoBreak:
      return Unseen(kArgument, "no-break spaces", c.code);
    case Kind::kInvisible:
    case Kind::kJoiner:
    case Kind::kSelector:
      return Unseen(kArgument, "invisible characters", c.code);
    case Kind::kVisible:
    case Kind::kBlank:
    case Kind::kMask:
      break;
  }
  return {};
}

// What is wrong with one character of a name. `joins`: it follows one that a joiner or a selector may belong to.
Status CheckInName(const Character &c, const char *argument, bool at_end, bool joins) {
  switch (c.kind) {
    case Kind::kLineEnd:
    case Kind::kTab:
    case Kind::kControl:
      return Failure(Code::kInvalidArgument, "%s must not contain control characters", argument);
    case Kind::kNoBreak:
      return Unseen(argument, "no-break spaces", c.code);
    case Kind::kBlank:
      if (!at_end) return {};
      return Failure(Code::kInvalidArgument, "%s must not begin or end with a blank", argument);
    case Kind::kJoiner:
      if (joins && !at_end) return {};
      return Unseen(argument, "invisible characters", c.code);
    case Kind::kSelector:
      if (joins) return {};
      [[fallthrough]];
    case Kind::kInvisible:
      return Unseen(argument, "invisible characters", c.code);
    case Kind::kVisible:
    case Kind::kMask:
      break;
  }
  return {};
}

}  // namespace

std::string_view CutWhiteSpace(std::string_view text) noexcept {
  for (Character c; !text.empty() && IsWhiteSpace((c = FrontOf(text)).kind);) text.remove_prefix(c.size);
  for (Character c; !text.empty() && IsWhiteSpace((c = BackOf(text)).kind);) text.remove_suffix(c.size);
  return text;
}

Status CheckGivenSecret(std::string_view secret) noexcept {
  if (secret.empty()) return Failure(Code::kInvalidArgument, "key_value must not be empty");
  if (secret.size() > kMaxSecretBytes)
    return Failure(Code::kInvalidArgument, "key_value must not be longer than %zu bytes", kMaxSecretBytes);
  if (IsHeader(secret))
    return Failure(Code::kInvalidArgument,
                   "key_value must be the secret alone, without \"Bearer\" or what else precedes it in a header");
  bool lines = HasLines(secret);
  for (std::string_view rest = secret; !rest.empty();) {
    Character c = FrontOf(rest);
    if (Status status = CheckInSecret(c, lines); !status.ok()) return status;
    rest.remove_prefix(c.size);
  }
  if (!lines && IsMasked(secret))
    return Failure(Code::kInvalidArgument,
                   "key_value is masked: asterisks, dots or bullets stand where the secret was");
  return {};
}

Status CheckGivenName(std::string_view name, const char *argument) noexcept {
  bool after_ascii = true;
  for (std::string_view rest = name; !rest.empty();) {
    Character c = FrontOf(rest);
    bool at_end = rest.size() == name.size() || rest.size() == c.size;
    if (Status status = CheckInName(c, argument, at_end, !after_ascii); !status.ok()) return status;
    after_ascii = c.code < 0x80;
    rest.remove_prefix(c.size);
  }
  return {};
}

Status CheckGivenLabel(std::string_view label) noexcept {
  if (label.size() > kMaxLabelBytes)
    return Failure(Code::kInvalidArgument, "key_label must not be longer than %zu bytes", kMaxLabelBytes);
  return CheckGivenName(label, "key_label");
}

}  // namespace keypool
