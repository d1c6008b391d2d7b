// log_redaction.cpp - taking constants and parameters out of the texts of a log entry.
#include "core/secret/log_redaction.h"

#include <algorithm>
#include <cstring>

#include "core/secret/redaction.h"

namespace keypool {

namespace {

constexpr size_t kNone = std::string_view::npos;

// Hides all of a text.
size_t HideAll(char *text, size_t size) {
  size_t stars = std::min<size_t>(size, 3);
  memset(text, '*', stars);
  return stars;
}

// Hides between the first and the last quote; to the end if there is but one.
size_t HideBetweenQuotes(char *text, size_t size) {
  std::string_view view(text, size);
  size_t first = view.find('\''), last = view.rfind('\'');
  if (first == kNone) return size;
  if (first == last) return first + 1 + HideAll(text + first + 1, size - first - 1);
  size_t hidden = HideAll(text + first + 1, last - first - 1);
  memmove(text + first + 1 + hidden, text + last, size - last);
  return first + 1 + hidden + size - last;
}

// How a statement is written within an entry: what stands for a character, or nothing if it stands for itself.
struct Escape {
  char character;
  std::string_view written;
};
constexpr Escape kJson[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\r', "\\r"},
                            {'\t', "\\t"}, {'\b', "\\b"},  {'\f', "\\f"}};
constexpr Escape kXml[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\r', "&#x0d;"}};
constexpr Escape kCsv[] = {{'"', "\"\""}};

template <size_t kCount>
size_t Decode(char *text, size_t size, const Escape (&escapes)[kCount]) {
  std::string_view source(text, size);
  char *out = text;
  for (size_t at = 0; at < size; ++out) {
    auto escape = std::find_if(escapes, escapes + kCount,
                               [&](const Escape &each) { return source.substr(at).starts_with(each.written); });
    bool found = escape != escapes + kCount;
    *out = found ? escape->character : source[at];
    at += found ? escape->written.size() : 1;
  }
  return static_cast<size_t>(out - text);
}

template <size_t kCount>
std::string_view Written(const char *character, const Escape (&escapes)[kCount]) {
  for (const Escape &each : escapes)
    if (each.character == *character) return each.written;
  return {character, 1};
}

// Takes the constants out of a statement that is written with escapes.
template <size_t kCount>
size_t RedactEscaped(char *text, size_t size, const Escape (&escapes)[kCount]) {
  size_t left = RedactConstants(text, Decode(text, size, escapes)).written;
  size_t needed = 0;
  for (size_t i = 0; i < left; ++i) needed += Written(text + i, escapes).size();
  if (needed > size) return HideAll(text, size);  // nobody writes escapes like these
  // From the end of the space, from where what is still to be written never gets overtaken.
  const char *from = text + size - left;
  memmove(text + size - left, text, left);
  char *out = text;
  for (size_t i = 0; i < left; ++i) {
    char character = from[i];
    std::string_view written = Written(&character, escapes);
    memmove(out, written.data(), written.size());
    out += written.size();
  }
  return needed;
}

// Moves over a text piece by piece: each is kept, or taken by a function that makes it no longer.
class Pass {
 public:
  Pass(char *text, size_t size) : text_(text), size_(size) {}

  std::string_view rest() const { return {text_ + read_, size_ - read_}; }
  std::string_view kept() const { return {text_, written_}; }
  size_t written() const { return written_; }

  void Keep(size_t size) {
    Change(size, [](char *, size_t all) { return all; });
  }

  template <typename Function>
  void Change(size_t size, Function function) {
    size = std::min(size, size_ - read_);
    memmove(text_ + written_, text_ + read_, size);
    written_ += function(text_ + written_, size);
    read_ += size;
  }

 private:
  char *text_;
  size_t size_;
  size_t read_ = 0;
  size_t written_ = 0;
};

// The size of a text up to a double quote that ends it.
size_t QuotedSize(std::string_view text) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '"') return at;
    if (text[at] == '\\') ++at;
  }
  return text.size();
}

// JSON, and YAML as auto_explain writes it: constants stand only within double quotes.
size_t RedactJson(char *text, size_t size) {
  Pass pass(text, size);
  while (!pass.rest().empty()) {
    pass.Keep(std::min(pass.rest().find('"'), size - 1) + 1);
    bool statement = pass.kept().ends_with("Query Text\": \"") || pass.kept().ends_with("Query Text: \"");
    pass.Change(QuotedSize(pass.rest()), [&](char *content, size_t all) {
      return statement ? RedactEscaped(content, all, kJson) : HideBetweenQuotes(content, all);
    });
    pass.Keep(1);
  }
  return pass.written();
}

// XML: constants stand only between tags.
size_t RedactXml(char *text, size_t size) {
  Pass pass(text, size);
  while (!pass.rest().empty()) {
    pass.Keep(std::min(pass.rest().find('>'), size - 1) + 1);
    bool statement = pass.kept().ends_with("<Query-Text>");
    pass.Change(pass.rest().find('<'), [&](char *content, size_t all) {
      return statement ? RedactEscaped(content, all, kXml) : HideBetweenQuotes(content, all);
    });
  }
  return pass.written();
}

// Whether a line is the first one after the statement, in a plan as text: no SQL looks like that.
bool IsPlanLine(std::string_view rest) {
  std::string_view line = rest.substr(0, rest.find('\n'));
  size_t cost = line.find("  (cost=");
  bool costs = cost != kNone && line.size() > cost + 8 && line[cost + 8] >= '0' && line[cost + 8] <= '9';
  return costs || line.starts_with("Query Parameters: ");
}

size_t RedactPlainPlan(char *text, size_t size) {
  Redaction statement = RedactUntil(text, size, IsPlanLine);
  size_t left = statement.written;
  size_t rest = size - statement.read;
  memmove(text + left, text + statement.read, rest);
  return left + HideBetweenQuotes(text + left, rest);
}

// Whether a plan that begins with this is YAML: as text, it would be a statement that begins with a quoted identifier.
// One that is cut off within its statement is.
bool IsYaml(std::string_view plan) {
  static constexpr std::string_view kBegin = "Query Text: \"";
  if (!plan.starts_with(kBegin)) return false;
  plan.remove_prefix(kBegin.size());
  plan.remove_prefix(std::min(plan.size(), QuotedSize(plan)));
  return plan.empty() || plan.starts_with("\"\nPlan:") || plan.starts_with("\"\nQuery Parameters: \"");
}

bool RedactPlan(char *text, size_t *size) {
  static constexpr std::string_view kHeader = " plan:\n", kQuery = "Query Text: ";
  size_t header = std::string_view(text, std::min<size_t>(*size, 64)).find(kHeader);
  if (header == kNone) return false;
  size_t begin = header + kHeader.size();
  std::string_view plan(text + begin, *size - begin);
  if (plan.starts_with("{") || IsYaml(plan)) {
    *size = begin + RedactJson(text + begin, plan.size());
  } else if (plan.starts_with("<explain")) {
    *size = begin + RedactXml(text + begin, plan.size());
  } else if (plan.starts_with(kQuery)) {
    begin += kQuery.size();
    *size = begin + RedactPlainPlan(text + begin, *size - begin);
  } else {
    return false;
  }
  return true;
}

// The size of a field of comma-separated values, with its quotes.
size_t CsvFieldSize(std::string_view text) {
  if (!text.starts_with('"')) return std::min(text.find(','), text.size());
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] != '"') continue;
    if (text.substr(at + 1, 1) != "\"") return at + 1;
    ++at;
  }
  return text.size();
}

size_t RedactCsvStatement(char *field, size_t size) {
  if (size == 0 || field[0] != '"') return RedactConstants(field, size).written;
  size_t quotes = size > 1 && field[size - 1] == '"' ? 2 : 1;  // without the second, it is cut off
  size_t left = 1 + RedactEscaped(field + 1, size - quotes, kCsv);
  if (quotes == 2) field[left++] = '"';
  return left;
}

size_t RedactCsvParameters(char *field, size_t size) {
  return size > 0 && field[0] == '<' ? size : HideAll(field, size);  // <none>, <not logged>, <previously logged>
}

bool RedactAudit(char *text, size_t *size) {
  static constexpr std::string_view kHeader = "AUDIT: ";
  static constexpr int kFieldsBefore = 7;
  Pass pass(text, *size);
  if (!pass.rest().starts_with(kHeader)) return false;
  pass.Keep(kHeader.size());
  for (int i = 0; i < kFieldsBefore; ++i) pass.Keep(CsvFieldSize(pass.rest()) + 1);
  pass.Change(CsvFieldSize(pass.rest()), RedactCsvStatement);
  pass.Keep(1);
  pass.Change(CsvFieldSize(pass.rest()), RedactCsvParameters);
  pass.Change(pass.rest().size(), RedactDoubtful);  // the number of rows
  *size = pass.written();
  return true;
}

// Parameters in a text that begins with a word or two and "$1 = ": in them only quotes are escaped, by doubling.
bool RedactParameters(char *text, size_t *size) {
  std::string_view view(text, *size);
  size_t begin = view.find("$1 = ");
  if (begin == kNone || view.substr(0, begin).find_first_of("'\"\n$") != kNone) return false;
  *size = begin + RedactConstants(text + begin, *size - begin).written;
  return true;
}

bool RedactEnd(char *text, size_t *size, std::string_view statement) {
  if (statement.empty() || !std::string_view(text, *size).ends_with(statement)) return false;
  size_t begin = *size - statement.size();
  *size = begin + RedactConstants(text + begin, statement.size()).written;
  return true;
}

}  // namespace

bool RedactKnownShape(char *text, size_t *size, std::string_view statement) noexcept {
  return RedactEnd(text, size, statement) || RedactPlan(text, size) || RedactAudit(text, size) ||
         RedactParameters(text, size);
}

size_t RedactDoubtful(char *text, size_t size) noexcept {
  std::string_view view(text, size);
  size_t begin = std::min(view.find_first_not_of(" \n"), size);
  if (view.substr(begin).starts_with('{') || view.substr(begin).starts_with('(')) return HideAll(text, size);
  for (size_t at = 0; at < size; ++at) {
    bool dollar = view[at] == '$' && at + 1 < size && (view[at + 1] < '0' || view[at + 1] > '9');
    if (view[at] == '\'' || dollar) return at + 1 + HideAll(text + at + 1, size - at - 1);
  }
  return size;
}

size_t RedactQuotedInput(char *text, size_t size) noexcept {
  for (size_t at = 0; at < size; ++at)
    if (text[at] == '"' || (text[at] & 0x80) != 0) return at + HideAll(text + at, size - at);
  return size;
}

}  // namespace keypool
