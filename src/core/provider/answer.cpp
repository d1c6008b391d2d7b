// answer.cpp - reading a provider's answer.
#include "core/provider/answer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cstring>

#include "core/provider/header_reader.h"
#include "core/provider/lower_case.h"
#include "core/provider/moments.h"

namespace keypool {

namespace {

using std::string_view;

constexpr int64_t kMillis = 1000;

bool IsOneOf(string_view name, std::initializer_list<string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool HasOneOf(string_view text, std::initializer_list<string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](string_view word) { return text.find(word) != text.npos; });
}

// Takes the next word of a header's name from the front; they are joined by hyphens.
string_view TakeWord(string_view *name) {
  string_view word = name->substr(0, name->find('-'));
  name->remove_prefix(std::min(word.size() + 1, name->size()));
  return word;
}

enum class Field : uint8_t { kNone, kLimit, kRemaining, kReset };

// What a header of limits is about, by the words of its name.
struct AllowanceName {
  Field field = Field::kNone;
  AllowanceUnit unit = AllowanceUnit::kRequests;
  AllowancePeriod period = AllowancePeriod::kUnknown;

  // False if the word is none of those.
  bool Add(string_view word) {
    if (word == "limit") return Set(&field, Field::kLimit);
    if (word == "remaining") return Set(&field, Field::kRemaining);
    if (word == "reset") return Set(&field, Field::kReset);
    if (word == "requests") return true;
    if (word == "tokens") return unit != AllowanceUnit::kRequests || Set(&unit, AllowanceUnit::kTokens);
    if (word == "input" || word == "prompt") return Set(&unit, AllowanceUnit::kInputTokens);
    if (word == "output" || word == "generated") return Set(&unit, AllowanceUnit::kOutputTokens);
    if (word == "minute") return Set(&period, AllowancePeriod::kMinute);
    if (word == "hour") return Set(&period, AllowancePeriod::kHour);
    if (word == "day") return Set(&period, AllowancePeriod::kDay);
    return word == "month" && Set(&period, AllowancePeriod::kMonth);
  }

  template <typename Value>
  static bool Set(Value *to, Value value) {
    *to = value;
    return true;
  }
};

bool ReadAllowanceName(string_view name, AllowanceName *read) {
  for (string_view prefix : {"x-ratelimit-", "anthropic-ratelimit-", "ratelimit-"}) {
    if (!name.starts_with(prefix)) continue;
    for (name.remove_prefix(prefix.size()); !name.empty();)
      if (!read->Add(TakeWord(&name))) return false;
    return read->field != Field::kNone;
  }
  return false;
}

using Piece = JsonReader::Piece;

// Whether the outermost object says of itself that it is an error.
bool IsError(string_view body) {
  JsonReader reader(body);
  bool is_type = false;
  for (Piece piece = reader.Next(); piece != Piece::kEnd; piece = reader.Next()) {
    if (piece == Piece::kText && is_type && reader.value() == "error") return true;
    is_type = piece == Piece::kName && reader.depth() == 1 && reader.value() == "type";
  }
  return false;
}

// Which part of a body is about an error.
class ErrorPart {
 public:
  explicit ErrorPart(bool is_all) : above_(is_all ? 0 : kNowhere) {}

  // Whether what the reader has come to is of it.
  bool Has(const JsonReader &reader, Piece piece, string_view name) {
    int depth = reader.depth();
    if (piece == Piece::kName && depth <= above_) above_ = depth <= 2 && name == "error" ? depth : kNowhere;
    return depth > above_ || (depth == above_ && piece == Piece::kText);
  }

 private:
  static constexpr int kNowhere = INT_MAX;
  int above_;  // it is what lies deeper, and a text that stands there
};

class AnswerReader {
 public:
  AnswerReader(TimeUs written, Answer *answer) : written_(written), answer_(*answer) {}

  void ReadHeaders(string_view headers) {
    HeaderReader reader(headers);
    for (HeaderField field; reader.Next(&field);) ReadField(field.name, field.value);
  }

  void ReadBody(string_view body, bool only_errors) {
    JsonReader reader(body);
    ErrorPart part(!only_errors || IsError(body));
    char name[kMaxHeaderName];
    size_t size = 0;
    for (Piece piece = reader.Next(); piece != Piece::kEnd; piece = reader.Next()) {
      if (piece == Piece::kName) size = Lowered<kMaxHeaderName>(reader.value()).text().copy(name, kMaxHeaderName);
      bool is_value = piece == Piece::kText || piece == Piece::kNumber;
      if (!part.Has(reader, piece, {name, size}) || !is_value) continue;
      answer_.has_error = answer_.has_error || (piece == Piece::kText && !reader.value().empty());
      ReadField({name, size}, reader.value());
      ReadMember({name, size}, reader.value());
    }
  }

  void AddCode(string_view code) {
    if (code.empty() || code.size() > kMaxCodeBytes || answer_.code_count == kMaxCodes) return;
    answer_.code_size[answer_.code_count] = static_cast<uint8_t>(code.size());
    Lowered<kMaxCodeBytes>(code).text().copy(answer_.code[answer_.code_count++], kMaxCodeBytes);
  }

  void Finish() {
    if (retry_date_ != 0) TellRetry(date_ != 0 ? written_ + (retry_date_ - date_) : retry_date_);
    for (int i = 0; i < answer_.allowance_count; ++i) {
      const Allowance &one = answer_.allowance[i];
      if (answer_.retry_at == 0 && one.remaining == 0) reset_ = std::max(reset_, one.reset);
    }
    if (answer_.retry_at == 0) answer_.retry_at = reset_ != 0 ? reset_ : message_retry_;
  }

 private:
  // The last one that is told stands.
  void TellRetry(TimeUs moment) { answer_.retry_at = std::max({answer_.retry_at, moment, TimeUs{1}}); }

  void TellDelay(string_view value, int64_t unit) {
    TimeUs delay;
    if (ReadNumber(value, unit, &delay)) TellRetry(written_ + delay);
  }

  // Of the header, or a member of the body that is called alike.
  void ReadField(string_view name, string_view value) {
    AllowanceName allowance;
    if (ReadAllowanceName(name, &allowance)) return SetAllowance(allowance, value);
    if (name == "retry-after") return ReadRetryAfter(value);
    if (IsOneOf(name, {"retry-after-ms", "x-ms-retry-after-ms", "retry_after_ms"})) return TellDelay(value, kMillis);
    if (name == "date") return static_cast<void>(ReadHttpDate(value, written_, &date_));
    if (name == "x-amzn-errortype") AddCode(value.substr(0, value.find(':')));
  }

  void ReadRetryAfter(string_view value) {
    if (!ReadHttpDate(value, written_, &retry_date_)) TellDelay(value, kMicrosPerSecond);
  }

  // Of the body only.
  void ReadMember(string_view name, string_view value) {
    TimeUs delay;
    if (IsOneOf(name, {"code", "type", "status", "reason", "error", "error_type"})) AddCode(value);
    if (name == "__type") AddCode(value.substr(value.find('#') + 1));
    if (name == "retrydelay" && ReadDuration(value, &delay)) TellRetry(written_ + delay);
    if (IsOneOf(name, {"retry_after", "retry_after_seconds"})) TellDelay(value, kMicrosPerSecond);
    if (IsOneOf(name, {"quotaid", "quota_limit"})) ReadPeriod(value);
    if (name == "message") ReadMessage(value);
  }

  void ReadPeriod(string_view text) {
    Lowered<kMaxJsonValue> lowered(text);
    if (HasOneOf(lowered.text(), {"perday", "per day", "per-day", "daily"})) answer_.used_up = AllowancePeriod::kDay;
    if (HasOneOf(lowered.text(), {"permonth", "per month", "per-month", "monthly"}))
      answer_.used_up = AllowancePeriod::kMonth;
  }

  // What some providers say in words only.
  void ReadMessage(string_view text) {
    Lowered<kMaxJsonValue> lowered(text);
    ReadPeriod(text);
    if (HasOneOf(lowered.text(), {"credit balance is too low"})) AddCode("insufficient_balance");
    ReadDelayInWords(lowered.text());
  }

  // `try again in 1m0.36s.`, `Please retry after 20 seconds.`
  void ReadDelayInWords(string_view text) {
    for (string_view words : {"try again in ", "again after ", "retry in ", "retry after "}) {
      size_t at = text.find(words);
      TimeUs delay;
      if (at != string_view::npos && ReadSpelledDelay(text.substr(at + words.size()), &delay))
        message_retry_ = std::max(message_retry_, written_ + delay);
    }
  }

  static bool ReadSpelledDelay(string_view text, TimeUs *delay) {
    string_view amount = text.substr(0, text.find(' '));
    while (!amount.empty() && (amount.back() == '.' || amount.back() == ',')) amount.remove_suffix(1);
    if (ReadDuration(amount, delay)) return true;
    string_view unit = text.substr(std::min(text.size(), amount.size() + 1));
    int64_t micros = unit.starts_with("second")        ? kMicrosPerSecond
                     : unit.starts_with("minute")      ? 60 * kMicrosPerSecond
                     : unit.starts_with("hour")        ? 3600 * kMicrosPerSecond
                     : unit.starts_with("day")         ? 86400 * kMicrosPerSecond
                     : unit.starts_with("millisecond") ? kMillis
                                                       : 0;
    return micros != 0 && ReadNumber(amount, micros, delay);
  }

  void SetAllowance(const AllowanceName &name, string_view value) {
    Allowance *allowance = AllowanceOf(name);
    if (allowance == nullptr) return;
    int64_t number = -1;
    if (name.field == Field::kReset) {
      ReadMoment(value, written_, &allowance->reset);
      return;
    }
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < 0) return;
    (name.field == Field::kLimit ? allowance->limit : allowance->remaining) = number;
  }

  // Null if there are too many.
  Allowance *AllowanceOf(const AllowanceName &name) {
    for (int i = 0; i < answer_.allowance_count; ++i) {
      Allowance *one = &answer_.allowance[i];
      if (one->unit == name.unit && one->period == name.period) return one;
    }
    if (answer_.allowance_count == kMaxAllowances) return nullptr;
    Allowance *fresh = &answer_.allowance[answer_.allowance_count++];
    *fresh = {name.unit, name.period, -1, -1, 0};
    return fresh;
  }

  TimeUs written_;
  Answer &answer_;
  TimeUs date_ = 0, retry_date_ = 0, reset_ = 0, message_retry_ = 0;
};

}  // namespace

Answer ReadAnswer(const AnswerTexts &texts, TimeUs written) noexcept {
  Answer answer;
  AnswerReader reader(written, &answer);
  reader.AddCode(texts.error_code);
  answer.caller_says = answer.code_count != 0;
  reader.ReadHeaders(texts.headers);
  reader.ReadBody(texts.body, texts.succeeded);
  reader.Finish();
  return answer;
}

}  // namespace keypool
