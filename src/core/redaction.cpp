// redaction.cpp - taking the constants out of the text of a statement.
#include "core/redaction.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace keypool {

namespace {

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0; }
bool IsWord(char c) { return IsLetter(c) || (c >= '0' && c <= '9') || c == '$'; }

bool SameWord(std::string_view word, std::string_view lower) {
  return std::equal(word.begin(), word.end(), lower.begin(), lower.end(), [](char a, char b) { return (a | 32) == b; });
}

// What a word means for a dollar quote after it.
enum class Before { kNothing, kBody, kLanguage };

Before Meaning(std::string_view word, Before before) {
  if (SameWord(word, "do") || SameWord(word, "as") || before == Before::kLanguage) return Before::kBody;
  return SameWord(word, "language") ? Before::kLanguage : Before::kNothing;
}

// Reads `source` and writes to `out`, which may be the same memory: it is never ahead, and nothing is read twice.
class Redactor {
 public:
  Redactor(std::string_view source, char *out, bool backslashes)
      : source_(source), out_(out), backslashes_(backslashes) {}

  // Returns the end of what was written.
  char *Run() {
    while (at_ < source_.size()) {
      char c = source_[at_];
      if (IsWord(c) && c != '$')
        Word();
      else if (c == '\'')
        Quoted();
      else if (c == '$' && TagSize() > 0)
        DollarQuoted(TagSize());
      else if (c == '"')
        CopyTo(Find("\"", at_ + 1));
      else if (source_.substr(at_).starts_with("--"))
        CopyTo(Find("\n", at_ + 2));
      else if (source_.substr(at_).starts_with("/*"))
        Comment();
      else
        Character(c);
    }
    return out_;
  }

 private:
  // One past the next `what`, or the end.
  size_t Find(std::string_view what, size_t from) const {
    size_t found = source_.find(what, std::min(from, source_.size()));
    return found == std::string_view::npos ? source_.size() : found + what.size();
  }

  void CopyTo(size_t end) {
    memmove(out_, source_.data() + at_, end - at_);
    out_ += end - at_;
    at_ = end;
  }

  void Word() {
    size_t end = at_;
    while (end < source_.size() && IsWord(source_[end])) ++end;
    std::string_view word = source_.substr(at_, end - at_);
    before_ = Meaning(word, before_);
    escape_prefix_at_ = SameWord(word, "e") ? end : std::string_view::npos;
    CopyTo(end);
  }

  void Character(char c) {
    if (strchr(" \t\r\n", c) == nullptr) before_ = Before::kNothing;
    CopyTo(at_ + 1);
  }

  void Comment() {
    size_t end = at_ + 2;
    for (int depth = 1; depth > 0 && end < source_.size();) {
      if (source_.substr(end).starts_with("/*"))
        ++depth, end += 2;
      else if (source_.substr(end).starts_with("*/"))
        --depth, end += 2;
      else
        ++end;
    }
    CopyTo(end);
  }

  // Passes over a constant's content up to `end`.
  void Hide(size_t end) {
    size_t stars = std::min<size_t>(end - at_, 3);
    memset(out_, '*', stars);
    out_ += stars;
    at_ = end;
  }

  void Quoted() {
    bool escape = backslashes_ || escape_prefix_at_ == at_;
    before_ = Before::kNothing;
    size_t end = at_ + 1;
    while (end < source_.size()) {
      bool doubled = source_.substr(end).starts_with("''");
      if (source_[end] == '\'' && !doubled) break;
      end += doubled || (escape && source_[end] == '\\') ? 2 : 1;
    }
    CopyTo(at_ + 1);
    Hide(std::min(end, source_.size()));
    if (at_ < source_.size()) CopyTo(at_ + 1);
  }

  // The size of the $tag$ here; 0 if there is none.
  size_t TagSize() const {
    size_t end = at_ + 1;
    if (end < source_.size() && IsLetter(source_[end]))
      while (end < source_.size() && source_[end] != '$' && IsWord(source_[end])) ++end;
    return end < source_.size() && source_[end] == '$' ? end + 1 - at_ : 0;
  }

  void DollarQuoted(size_t tag_size) {
    std::string_view tag = source_.substr(at_, tag_size);
    bool body = before_ == Before::kBody;
    before_ = Before::kNothing;
    size_t close = source_.find(tag, at_ + tag_size);
    size_t end = std::min(close, source_.size());
    CopyTo(at_ + tag_size);
    if (body) {
      out_ = Redactor(source_.substr(at_, end - at_), out_, backslashes_).Run();
      at_ = end;
    } else {
      Hide(end);
    }
    if (close != std::string_view::npos) CopyTo(at_ + tag_size);
  }

  std::string_view source_;
  size_t at_ = 0;
  char *out_;
  bool backslashes_;
  Before before_ = Before::kNothing;
  size_t escape_prefix_at_ = std::string_view::npos;  // where the E of E'...' ended
};

}  // namespace

size_t RedactConstants(char *text, size_t size, bool backslashes) noexcept {
  return static_cast<size_t>(Redactor({text, size}, text, backslashes).Run() - text);
}

}  // namespace keypool
