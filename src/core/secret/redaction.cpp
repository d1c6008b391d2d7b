// redaction.cpp - taking the constants out of the text of a statement.
#include "core/secret/redaction.h"

#include <algorithm>
#include <cstring>

namespace keypool {

namespace {

// What a secret is given to: functions, and the table. Each has an underscore, and a letter after it, by which it is
// found: every statement that is executed is looked through.
struct Name {
  constexpr explicit Name(std::string_view given) : name(given), before(given.find('_')), after(given[before + 1]) {}
  std::string_view name;
  size_t before;
  char after;
};
constexpr Name kNames[] = {Name("keypool_add_key"),       Name("keypool_apply"), Name("keypool_set_secret"),
                           Name("keypool_update_key"),    Name("provider_keys"), Name("keypool_report"),
                           Name("keypool_explain_answer")};

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsWord(char c) { return IsLetter(c) || IsDigit(c) || c == '$'; }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

bool SameWord(std::string_view word, std::string_view lower) {
  return std::equal(word.begin(), word.end(), lower.begin(), lower.end(), [](char a, char b) { return Lower(a) == b; });
}

// Whether the underscore at `at` is the first one of a name.
bool NameAt(std::string_view text, size_t at) {
  char after = at + 1 < text.size() ? Lower(text[at + 1]) : '\0';
  for (const Name &each : kNames)
    if (each.after == after && at >= each.before &&
        SameWord(text.substr(at - each.before, each.name.size()), each.name))
      return true;
  return false;
}

// Reads `source` and writes to `out`, which may be the same memory: it is never ahead.
class Redactor {
 public:
  Redactor(std::string_view source, char *out, LineTest ends)
      : source_(source), end_(source.size()), out_(out), out_begin_(out), ends_(ends) {}

  void set_use(ConstantUse use, void *argument) {
    use_ = use;
    use_argument_ = argument;
  }

  Redaction Run() {
    while (!AtEnd()) {
      if (at_ < end_)
        Token();
      else
        LeaveBody();
    }
    return {at_, static_cast<size_t>(out_ - out_begin_), looked_at_};
  }

 private:
  // What a word means for what comes after it.
  enum class Before { kNothing, kBody, kLanguage };

  bool AtEnd() {
    if (body_tag_ != 0) return false;
    if (at_ == source_.size()) return true;
    if (ends_ == nullptr || at_ == 0 || source_[at_ - 1] != '\n') return false;
    return ends_(source_.substr(at_));
  }

  void Token() {
    char c = source_[at_];
    std::string_view rest = source_.substr(at_, end_ - at_);
    if (IsWord(c) && c != '$')
      Word();
    else if (c == '\'')
      Quoted();
    else if (c == '$' && TagSize() > 0)
      DollarQuoted(TagSize());
    else if (c == '"')
      Identifier();
    else if (rest.starts_with("--"))
      CopyTo(Find("\n", at_ + 2));
    else if (rest.starts_with("/*"))
      Comment();
    else
      Character(c);
  }

  // One past the next `what`, or the end.
  size_t Find(std::string_view what, size_t from) {
    size_t found = source_.substr(0, end_).find(what, std::min(from, end_));
    size_t end = found == std::string_view::npos ? end_ : found + what.size();
    looked_at_ += end - std::min(from, end);
    return end;
  }

  void CopyTo(size_t end) {
    if (use_ == nullptr) memmove(out_, source_.data() + at_, end - at_);
    out_ += end - at_;
    looked_at_ += end - at_;
    at_ = end;
  }

  // Passes over a constant's content up to `end`.
  void Hide(size_t end) {
    if (use_ != nullptr)
      use_(use_argument_, source_.substr(at_, end - at_));
    else
      memset(out_, '*', std::min<size_t>(end - at_, kStars));
    out_ += std::min<size_t>(end - at_, kStars);
    at_ = end;
  }

  void Word() {
    size_t end = at_;
    bool number = IsDigit(source_[at_]);  // after which a dollar begins a quote
    while (end < end_ && IsWord(source_[end]) && !(number && source_[end] == '$')) ++end;
    std::string_view word = source_.substr(at_, end - at_);
    escape_prefix_at_ = SameWord(word, "e") ? end : std::string_view::npos;
    CopyTo(end);
    if (body_tag_ != 0) return;
    bool language = before_ == Before::kLanguage;
    if (language && !SameWord(word, "sql") && !SameWord(word, "plpgsql")) OtherLanguage();
    if (SameWord(word, "language"))
      before_ = Before::kLanguage;
    else
      before_ = language || SameWord(word, "do") || SameWord(word, "as") ? Before::kBody : Before::kNothing;
  }

  // A body in another language is no SQL: it is hidden, whether it is still to come or was read already.
  void OtherLanguage() {
    other_language_ = true;
    if (body_begin_ == nullptr) return;
    auto stars = std::min<std::ptrdiff_t>(body_end_ - body_begin_, kStars);
    if (use_ == nullptr) {
      memset(body_begin_, '*', static_cast<size_t>(stars));
      memmove(body_begin_ + stars, body_end_, static_cast<size_t>(out_ - body_end_));
    }
    looked_at_ += static_cast<size_t>(out_ - body_end_);
    out_ -= (body_end_ - body_begin_) - stars;
    body_begin_ = nullptr;
  }

  void Character(char c) {
    if (strchr(" \t\r\n", c) == nullptr) before_ = Before::kNothing;
    if (c == ';' && body_tag_ == 0) {
      body_begin_ = nullptr;
      other_language_ = false;
    }
    CopyTo(at_ + 1);
  }

  // One without an end is an error, in which constants may stand anywhere.
  void Identifier() {
    if (before_ == Before::kLanguage) OtherLanguage();
    before_ = before_ == Before::kLanguage ? Before::kBody : Before::kNothing;
    size_t end = Find("\"", at_ + 1);
    bool closed = end > at_ + 1 && source_[end - 1] == '"';
    CopyTo(closed ? end : at_ + 1);
    if (!closed) Hide(end);
  }

  void Comment() {
    size_t end = at_ + 2;
    for (int depth = 1; depth > 0 && end < end_;) {
      std::string_view two = source_.substr(end, std::min<size_t>(end_ - end, 2));
      depth += two == "/*" ? 1 : two == "*/" ? -1 : 0;
      end += two == "/*" || two == "*/" ? 2 : 1;
    }
    CopyTo(end);
  }

  // Where the constant that begins here ends: at its closing quote, or at the end.
  size_t EndOfQuoted(bool escapes) {
    size_t end = at_ + 1;
    while (end < end_) {
      size_t slashes = end;
      while (end < end_ && source_[end] == '\\') ++end;
      bool slash = (end - slashes) % 2 == 1;
      if (end == end_) break;
      if (source_[end] != '\'') {
        ++end;
      } else if (slash) {
        if (!escapes)
          end = end_;  // is this its end?
        else
          ++end;
      } else if (end + 1 < end_ && source_[end + 1] == '\'') {
        end += 2;
      } else {
        break;
      }
    }
    return std::min(end, end_);
  }

  void Quoted() {
    if (before_ == Before::kLanguage) OtherLanguage();
    before_ = before_ == Before::kLanguage ? Before::kBody : Before::kNothing;
    size_t end = EndOfQuoted(escape_prefix_at_ == at_);
    looked_at_ += end - at_;
    CopyTo(at_ + 1);
    Hide(end);
    if (at_ < end_) CopyTo(at_ + 1);
  }

  // The size of the $tag$ here; 0 if there is none.
  size_t TagSize() {
    size_t end = at_ + 1;
    if (end < end_ && IsLetter(source_[end]))
      while (end < end_ && source_[end] != '$' && IsWord(source_[end])) ++end;
    looked_at_ += end - at_;
    return end < end_ && source_[end] == '$' ? end + 1 - at_ : 0;
  }

  // Within a body, which ends where its tag comes again, any dollar quote is a constant: nothing is read within a
  // body's body.
  void DollarQuoted(size_t tag_size) {
    std::string_view tag = source_.substr(at_, tag_size);
    bool body = before_ == Before::kBody && body_tag_ == 0;
    before_ = Before::kNothing;
    size_t end = Find(tag, at_ + tag_size);
    bool closed = end >= at_ + 2 * tag_size && source_.substr(end - tag_size, tag_size) == tag;
    CopyTo(at_ + tag_size);
    if (closed) end -= tag_size;
    if (body && !other_language_) {
      body_tag_ = tag_size;
      body_begin_ = out_;
      end_ = end;
      return;
    }
    Hide(end);
    if (closed) CopyTo(at_ + tag_size);
  }

  void LeaveBody() {
    body_end_ = out_;
    end_ = source_.size();
    before_ = Before::kNothing;
    CopyTo(std::min(at_ + body_tag_, end_));
    body_tag_ = 0;
  }

  static constexpr size_t kStars = 3;

  std::string_view source_;
  size_t at_ = 0;
  size_t end_;  // of the text, or of the body that is being read
  char *out_;
  char *out_begin_;
  LineTest ends_;
  ConstantUse use_ = nullptr;  // then nothing is written
  void *use_argument_ = nullptr;
  size_t looked_at_ = 0;
  Before before_ = Before::kNothing;
  size_t escape_prefix_at_ = std::string_view::npos;  // where the E of E'...' ended
  size_t body_tag_ = 0;                               // the size of its tag while a body is read
  char *body_begin_ = nullptr;                        // where this statement's body was written
  char *body_end_ = nullptr;
  bool other_language_ = false;  // this statement's body is no SQL
};

}  // namespace

bool NamesSecret(std::string_view text) noexcept {
  for (size_t at = text.find('_'); at != std::string_view::npos; at = text.find('_', at + 1))
    if (NameAt(text, at)) return true;
  return false;
}

bool NamesExecute(std::string_view text) noexcept {
  for (size_t at = 0; at < text.size(); ++at) {
    size_t end = at;
    while (end < text.size() && IsWord(text[end])) ++end;
    if (SameWord(text.substr(at, end - at), "execute")) return true;
    at = end;
  }
  return false;
}

Redaction RedactConstants(char *text, size_t size) noexcept { return RedactUntil(text, size, nullptr); }

Redaction RedactUntil(char *text, size_t size, LineTest ends) noexcept {
  return Redactor({text, size}, text, ends).Run();
}

void ForEachConstant(std::string_view text, ConstantUse use, void *argument) noexcept {
  char *unused = const_cast<char *>(text.data());
  Redactor redactor(text, unused, nullptr);
  redactor.set_use(use, argument);
  redactor.Run();
}

}  // namespace keypool
