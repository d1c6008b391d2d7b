// json_reader.cpp - reads JSON piece by piece.
#include "core/provider/json_reader.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace keypool {

namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsOfNumber(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

bool IsMark(char c) { return c == '"' || c == '\\'; }

// Whether one of eight bytes is 0; well known (Mycroft, 1987).
constexpr uint64_t kOnes = 0x0101010101010101;
uint64_t HasZero(uint64_t bytes) { return (bytes - kOnes) & ~bytes & (kOnes << 7); }

// Whether one of the eight bytes from here on is a mark.
bool HoldsMark(const char *from) {
  uint64_t bytes;
  memcpy(&bytes, from, sizeof(bytes));
  return (HasZero(bytes ^ kOnes * '"') | HasZero(bytes ^ kOnes * '\\')) != 0;
}

// What a backslash and a letter stand for, but for u.
char Escaped(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return c;
  }
}

}  // namespace

bool JsonReader::Take(char *c) noexcept {
  if (rest_.empty()) return false;
  *c = rest_.front();
  rest_.remove_prefix(1);
  return true;
}

void JsonReader::Keep(char c) noexcept {
  if (size_ < kMaxJsonValue) value_[size_++] = c;
}

// All of a text up to its end or an escape, at once.
void JsonReader::KeepUntilMark() noexcept {
  size_t size = 0;
  while (size + sizeof(uint64_t) <= rest_.size() && !HoldsMark(rest_.data() + size)) size += sizeof(uint64_t);
  while (size < rest_.size() && !IsMark(rest_[size])) ++size;
  size_t kept = std::min(size, kMaxJsonValue - size_);
  memcpy(value_ + size_, rest_.data(), kept);
  size_ += kept;
  rest_.remove_prefix(size);
}

void JsonReader::SkipBlanks() noexcept {
  while (!rest_.empty() && IsBlank(rest_.front())) rest_.remove_prefix(1);
}

JsonReader::Piece JsonReader::Next() noexcept {
  size_ = 0;
  SkipBlanks();
  while (!rest_.empty() && rest_.front() == ',') {
    rest_.remove_prefix(1);
    SkipBlanks();
  }
  if (rest_.empty()) return Piece::kEnd;
  char first = rest_.front();
  if (first == '"') return ReadText();
  if (IsOfNumber(first) || IsLetter(first)) return ReadWord();
  rest_.remove_prefix(1);
  if (first == '{' || first == '[') {
    ++depth_;
    return Piece::kOpen;
  }
  if ((first == '}' || first == ']') && depth_ > 0) {
    --depth_;
    return Piece::kClose;
  }
  rest_ = {};
  return Piece::kEnd;
}

// \uXXXX, of which only ASCII matters to anybody.
void JsonReader::ReadEscape() noexcept {
  char c;
  if (!Take(&c)) return;
  if (c != 'u') return Keep(Escaped(c));
  std::string_view digits = rest_.substr(0, 4);
  unsigned code = 0;
  const char *end = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16).ptr;
  auto read = static_cast<size_t>(end - digits.data());
  rest_.remove_prefix(read);
  Keep(read == 4 && code < 0x80 ? static_cast<char>(code) : '?');
}

JsonReader::Piece JsonReader::ReadText() noexcept {
  rest_.remove_prefix(1);
  for (;;) {
    KeepUntilMark();
    char c;
    if (!Take(&c) || c == '"') break;
    ReadEscape();
  }
  SkipBlanks();
  if (rest_.empty() || rest_.front() != ':') return Piece::kText;
  rest_.remove_prefix(1);
  return Piece::kName;
}

JsonReader::Piece JsonReader::ReadWord() noexcept {
  bool number = !IsLetter(rest_.front());
  while (!rest_.empty() && (IsOfNumber(rest_.front()) || IsLetter(rest_.front()))) {
    Keep(rest_.front());
    rest_.remove_prefix(1);
  }
  return number ? Piece::kNumber : Piece::kOther;
}

}  // namespace keypool
