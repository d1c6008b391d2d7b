// text_fields.h - reading and writing `name=1/2/3` fields. For meter_text.cpp and meter_text_1.cpp.
#pragma once

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstring>
#include <string_view>

#include "core/quota/meter.h"

namespace keypool {

// Appends fields to a buffer that is large enough by construction.
class FieldWriter {
 public:
  FieldWriter(char *out, size_t size) : at_(out), start_(out), end_(out + size) {}

  void Layout(uint32_t layout) { Append(layout); }

  template <typename... Numbers>
  void Field(std::string_view name, Numbers... numbers) {
    assert(static_cast<size_t>(end_ - at_) > name.size() + 24 * sizeof...(numbers));
    *at_++ = ' ';
    memcpy(at_, name.data(), name.size());
    at_ += name.size();
    char separator = '=';
    ((*at_++ = separator, separator = '/', Append(numbers)), ...);
  }

  size_t Finish() {
    *at_ = '\0';
    return static_cast<size_t>(at_ - start_);
  }

 private:
  template <typename Number>
  void Append(Number number) {
    at_ = std::to_chars(at_, at_ + 20, number).ptr;
  }

  char *at_;
  char *start_;
  [[maybe_unused]] char *end_;  // for assertions
};

// Reads one field after the other.
class FieldReader {
 public:
  explicit FieldReader(std::string_view text) : rest_(text) {}

  bool done() const { return rest_.empty(); }

  // The next field, up to a space; an empty one where two spaces meet.
  std::string_view Next() {
    size_t end = std::min(rest_.find(' '), rest_.size());
    std::string_view field = rest_.substr(0, end);
    rest_.remove_prefix(end);
    if (!rest_.empty()) rest_.remove_prefix(1);
    return field;
  }

 private:
  std::string_view rest_;
};

struct NameAndValue {
  std::string_view name;
  std::string_view value;

  explicit NameAndValue(std::string_view field) {
    size_t equals = std::min(field.find('='), field.size());
    name = field.substr(0, equals);
    value = field.substr(std::min(equals + 1, field.size()));
  }
};

template <typename Number>
bool ParseNumber(std::string_view text, Number *number) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && *number >= 0;
}

// Reads numbers parted by '/': exactly as many as are asked for.
template <typename First, typename... Rest>
bool ParseNumbers(std::string_view text, First *first, Rest *...rest) {
  size_t slash = text.find('/');
  if constexpr (sizeof...(rest) == 0) {
    return slash == std::string_view::npos && ParseNumber(text, first);
  } else {
    return slash != std::string_view::npos && ParseNumber(text.substr(0, slash), first) &&
           ParseNumbers(text.substr(slash + 1), rest...);
  }
}

inline constexpr Second kLatestSecond = static_cast<Second>(kLatestTime / kMicrosPerSecond);
inline constexpr TimeUs kLatestBlock = 2 * kLatestTime;

inline bool ParseTime(std::string_view text, TimeUs latest, TimeUs *time) {
  return ParseNumber(text, time) && *time <= latest;
}

// Minutes of a text, before it is known which of them is the newest.
class MinutesRead {
 public:
  // False if the minute, or another one in its position, was there before, or no clock has it.
  bool Add(Minute minute, uint32_t requests, int64_t tokens, uint16_t rate_limited) {
    Entry &entry = entries_[minute % kMinuteSlots];
    if (minute == 0 || minute > kLatestSecond / 60 || entry.minute != 0) return false;
    entry = {minute, requests, tokens, rate_limited};
    return true;
  }

  // Puts them into the history of a meter whose totals and times are known. What is not of its last hour is left out.
  // False if the newest holds more than the totals.
  bool PutInto(RecordedMeter *recorded) const noexcept;

 private:
  struct Entry {
    Minute minute;
    uint32_t requests;
    int64_t tokens;
    uint16_t rate_limited;
  };
  Entry entries_[kMinuteSlots] = {};
};

// Reads the fields behind the number of layout 1. The text is at its first field; `*number` counts fields.
bool ParseKeyState(FieldReader *reader, Meter *meter, int *number) noexcept;

}  // namespace keypool
