// json_reader.cpp - reads JSON piece by piece.
#include "core/provider/json_reader.h"

#include <algorithm>
#include <charconv>

namespace keypool {

namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsOfNumber(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

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

char JsonReader::Take() noexcept {
  char c = rest_.front();
  rest_.remove_prefix(1);
  return c;
}

void JsonReader::SkipBlanks() noexcept {
  while (!rest_.empty() && IsBlank(rest_.front())) rest_.remove_prefix(1);
}

JsonReader::Piece JsonReader::Next() noexcept {
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

// \uXXXX, of which only ASCII matters to anybody, and what Escaped knows.
char JsonReader::ReadEscape() noexcept {
  if (rest_.empty()) return '?';
  char c = Take();
  if (c != 'u') return Escaped(c);
  std::string_view digits = rest_.substr(0, 4);
  unsigned code = 0;
  const char *end = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16).ptr;
  auto read = static_cast<size_t>(end - digits.data());
  rest_.remove_prefix(read);
  return read == 4 && code < 0x80 ? static_cast<char>(code) : '?';
}

// The usual text has no escapes, and is taken at once.
JsonReader::Piece JsonReader::ReadText() noexcept {
  rest_.remove_prefix(1);
  std::string_view text = rest_.substr(0, rest_.find('"'));
  if (text.find('\\') == text.npos) {
    value_ = text.substr(0, kMaxJsonValue);
    rest_.remove_prefix(std::min(text.size() + 1, rest_.size()));
  } else {
    ReadEscapedText();
  }
  SkipBlanks();
  if (rest_.empty() || rest_.front() != ':') return Piece::kText;
  rest_.remove_prefix(1);
  return Piece::kName;
}

void JsonReader::ReadEscapedText() noexcept {
  size_t size = 0;
  while (!rest_.empty()) {
    char c = Take();
    if (c == '"') break;
    if (c == '\\') c = ReadEscape();
    if (size < kMaxJsonValue) unescaped_[size++] = c;
  }
  value_ = {unescaped_, size};
}

JsonReader::Piece JsonReader::ReadWord() noexcept {
  bool number = !IsLetter(rest_.front());
  size_t size = 0;
  while (size < rest_.size() && (IsOfNumber(rest_[size]) || IsLetter(rest_[size]))) ++size;
  value_ = rest_.substr(0, std::min(size, kMaxJsonValue));
  rest_.remove_prefix(size);
  return number ? Piece::kNumber : Piece::kOther;
}

}  // namespace keypool
