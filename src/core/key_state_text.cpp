// key_state_text.cpp - a key's state as text, for dumps.
#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/key_state.h"

namespace keypool {

namespace {

// Appends fields to a buffer that is large enough by construction.
class Writer {
 public:
  explicit Writer(char *out) : at_(out), start_(out) {}

  void Layout(uint32_t layout) { Append(layout); }

  template <typename... Numbers>
  void Field(std::string_view name, Numbers... numbers) {
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
    at_ = std::to_chars(at_, at_ + 24, number).ptr;
  }

  char *at_;
  char *start_;
};

// Reads one field after the other.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

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

template <typename Number>
bool ParseNumber(std::string_view text, Number *number) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && *number >= 0;
}

constexpr Second kLatestSecond = static_cast<Second>(kLatestTime / kMicrosPerSecond);

bool ParseTime(std::string_view text, TimeUs latest, TimeUs *time) {
  return ParseNumber(text, time) && *time <= latest;
}
bool ParseNewest(std::string_view text, Second *second) {
  return ParseNumber(text, second) && *second <= kLatestSecond;
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

// A bucket may be given once, and not for a time that no clock has.
template <typename Tag, size_t N>
bool ClaimBucket(Tag (&tags)[N], Tag tag, Tag latest, int *bucket) {
  *bucket = static_cast<int>(tag % N);
  if (tag == 0 || tag > latest || tags[*bucket] != 0) return false;
  tags[*bucket] = tag;
  return true;
}

bool ParseSecond(std::string_view value, RecordedUsage *recorded) {
  Second second;
  uint32_t requests;
  int64_t tokens;
  int bucket;
  if (!ParseNumbers(value, &second, &requests, &tokens) ||
      !ClaimBucket(recorded->second, second, kLatestSecond, &bucket))
    return false;
  recorded->requests[bucket] = requests;
  recorded->tokens[bucket] = tokens;
  return true;
}

bool ParseMinute(std::string_view value, RecordedUsage *recorded) {
  Minute minute;
  uint32_t requests, rate_limited;
  int64_t tokens;
  int bucket;
  if (!ParseNumbers(value, &minute, &requests, &tokens, &rate_limited) ||
      !ClaimBucket(recorded->minute, minute, kLatestSecond / 60, &bucket))
    return false;
  recorded->minute_requests[bucket] = requests;
  recorded->minute_tokens[bucket] = tokens;
  recorded->minute_rate_limited[bucket] = rate_limited;
  return true;
}

bool ParseReserved(std::string_view value, ReservedUsage *reserved) {
  Second second;
  uint8_t granted;
  uint32_t open_count;
  uint64_t open;
  int64_t tokens;
  int bucket;
  if (!ParseNumbers(value, &second, &granted, &open_count, &open, &tokens) || granted > kTrackedGrants ||
      !ClaimBucket(reserved->second, second, kLatestSecond, &bucket))
    return false;
  reserved->granted[bucket] = granted;
  reserved->open_count[bucket] = open_count;
  reserved->open[bucket] = open;
  reserved->tokens[bucket] = tokens;
  return true;
}

bool ParseField(std::string_view field, KeyState *state) {
  size_t equals = std::min(field.find('='), field.size());
  std::string_view name = field.substr(0, equals);
  std::string_view value = field.substr(std::min(equals + 1, field.size()));
  RecordedUsage *recorded = &state->recorded;
  ReservedUsage *reserved = &state->reserved;
  if (name == "total_requests") return ParseNumber(value, &recorded->total_requests);
  if (name == "total_tokens") return ParseNumber(value, &recorded->total_tokens);
  if (name == "last_used_at") return ParseTime(value, kLatestTime, &recorded->last_used_at);
  if (name == "last_429_at") return ParseTime(value, kLatestTime, &recorded->last_429_at);
  if (name == "cooldown_until") return ParseTime(value, 2 * kLatestTime, &recorded->cooldown_until);
  if (name == "newest_second") return ParseNewest(value, &recorded->newest_second);
  if (name == "second") return ParseSecond(value, recorded);
  if (name == "minute") return ParseMinute(value, recorded);
  if (name == "last_grant") return ParseTime(value, kLatestTime, &reserved->last_grant);
  if (name == "newest_grant") return ParseNewest(value, &reserved->newest_second);
  if (name == "reserved") return ParseReserved(value, reserved);
  return false;
}

void FormatRecorded(const RecordedUsage &recorded, Writer *writer) {
  writer->Field("total_requests", recorded.total_requests);
  writer->Field("total_tokens", recorded.total_tokens);
  writer->Field("last_used_at", recorded.last_used_at);
  writer->Field("last_429_at", recorded.last_429_at);
  writer->Field("cooldown_until", recorded.cooldown_until);
  writer->Field("newest_second", recorded.newest_second);
  for (int i = 0; i < kSecondBuckets; ++i)
    if (recorded.second[i] != 0) writer->Field("second", recorded.second[i], recorded.requests[i], recorded.tokens[i]);
  for (int i = 0; i < kMinuteBuckets; ++i)
    if (recorded.minute[i] != 0)
      writer->Field("minute", recorded.minute[i], recorded.minute_requests[i], recorded.minute_tokens[i],
                    recorded.minute_rate_limited[i]);
}

// A crash may have torn the reserved half; what cannot be is written as the nearest that can.
void FormatReserved(const ReservedUsage &reserved, Writer *writer) {
  writer->Field("last_grant", std::clamp<TimeUs>(reserved.last_grant, 0, kLatestTime));
  writer->Field("newest_grant", std::min(reserved.newest_second, kLatestSecond));
  for (int i = 0; i < kSecondBuckets; ++i)
    if (reserved.second[i] != 0 && reserved.second[i] <= kLatestSecond)
      writer->Field("reserved", reserved.second[i], uint32_t{reserved.granted[i]}, reserved.open_count[i],
                    reserved.open[i], std::max<int64_t>(reserved.tokens[i], 0));
}

}  // namespace

KeyState FreshState() noexcept {
  KeyState state = {};
  state.layout = kLayout;
  return state;
}

size_t FormatState(const KeyState &state, char (&out)[kMaxStateText]) noexcept {
  Writer writer(out);
  writer.Layout(state.layout);
  FormatRecorded(state.recorded, &writer);
  FormatReserved(state.reserved, &writer);
  return writer.Finish();
}

Status ParseState(std::string_view text, KeyState *state) noexcept {
  *state = FreshState();
  Reader reader(text);
  uint32_t layout;
  if (!ParseNumber(reader.Next(), &layout) || layout != kLayout)
    return Failure(Code::kInvalidArgument, "key state does not start with layout number %u", kLayout);
  for (int number = 1; !reader.done(); ++number)
    if (!ParseField(reader.Next(), state))
      return Failure(Code::kInvalidArgument, "field %d of key state is malformed or given twice", number);
  return {};
}

}  // namespace keypool
