// meter_text_1.cpp - reading the text of layout 1, the state of a key in 0.1.0, as a meter.
#include "core/quota/slots.h"
#include "core/quota/text_fields.h"

namespace keypool {

namespace {

struct KeyStateRead {
  Meter *meter;
  Second newest_second;  // in which something was recorded
  Second newest_grant;
  TimeUs last_grant;  // an order number: turns begin anew
  MinutesRead minutes;
};

bool ParseNewest(std::string_view value, Second *second) {
  return ParseNumber(value, second) && *second <= kLatestSecond;
}

bool ParseSecond(std::string_view value, RecordedMeter *recorded) {
  Second second;
  uint32_t requests;
  int64_t tokens;
  if (!ParseNumbers(value, &second, &requests, &tokens) || second == 0 || second > kLatestSecond) return false;
  RecordedSlot &slot = recorded->ring[RingIndex(second)];
  if (slot.number != 0) return false;
  slot = {0, second, requests, SaturatingSlotSum(0, tokens), 0};
  return true;
}

bool ParseMinute(std::string_view value, MinutesRead *minutes) {
  Minute minute;
  uint32_t requests, rate_limited;
  int64_t tokens;
  return ParseNumbers(value, &minute, &requests, &tokens, &rate_limited) &&
         minutes->Add(minute, requests, tokens, static_cast<uint16_t>(std::min<uint32_t>(rate_limited, UINT16_MAX)));
}

// The calls of one second in flight: in the newer of two slots that lie in the same place.
void PutOpen(Meter *meter, Second second, int64_t calls, int64_t tokens) {
  uint32_t number = OpenNumber(*meter, second);
  OpenSlot &at = meter->reserved.open[OpenIndex(number)];
  uint32_t stored = number & kOpenNumberMask;
  if (stored < at.number) return;
  OpenSlot slot = at;
  if (!IsOpenSlot(slot, number)) slot = {stored, 0, 0, 0};
  slot.calls = static_cast<uint64_t>(std::min<int64_t>(slot.calls + calls, kMaxOpenCalls));
  slot.tokens = static_cast<uint64_t>(std::min<int64_t>(slot.tokens + OpenTokens(tokens), kMaxOpenTokens));
  at = slot;
}

bool ParseReserved(std::string_view value, Meter *meter) {
  Second second;
  uint8_t granted;
  uint32_t open_count;
  uint64_t open;
  int64_t tokens;
  if (!ParseNumbers(value, &second, &granted, &open_count, &open, &tokens) || granted > kTrackedSelections)
    return false;
  ReservedSlot &slot = meter->reserved.ring[RingIndex(second)];
  if (second == 0 || second > kLatestSecond || slot.second != 0) return false;
  auto calls = static_cast<uint16_t>(std::min<uint32_t>(open_count, kMaxSlotOpen));
  int64_t held = calls == 0 ? 0 : tokens;
  slot = {.second = second, .open = calls, .selected = granted, .tokens = SaturatingSlotSum(0, held), .output = 0};
  if (calls != 0) PutOpen(meter, second, calls, held);
  return true;
}

bool ParseField(std::string_view text, KeyStateRead *read) {
  NameAndValue field(text);
  std::string_view name = field.name, value = field.value;
  RecordedMeter *recorded = &read->meter->recorded;
  if (name == "total_requests") return ParseNumber(value, &recorded->totals.requests);
  if (name == "total_tokens") return ParseNumber(value, &recorded->totals.tokens);
  if (name == "last_used_at") return ParseTime(value, kLatestTime, &recorded->totals.last_used_at);
  if (name == "last_429_at") return ParseTime(value, kLatestTime, &recorded->last_429_at);
  if (name == "cooldown_until") return ParseTime(value, kLatestBlock, &recorded->blocked_until);
  if (name == "newest_second") return ParseNewest(value, &read->newest_second);
  if (name == "second") return ParseSecond(value, recorded);
  if (name == "minute") return ParseMinute(value, &read->minutes);
  if (name == "last_grant") return ParseTime(value, kLatestTime, &read->last_grant);
  if (name == "newest_grant") return ParseNewest(value, &read->newest_grant);
  if (name == "reserved") return ParseReserved(value, read->meter);
  return false;
}

}  // namespace

bool ParseKeyState(FieldReader *reader, Meter *meter, int *number) noexcept {
  KeyStateRead read = {meter, 0, 0, 0, {}};
  for (*number = 1; !reader->done(); ++*number)
    if (!ParseField(reader->Next(), &read)) return false;
  RecordedMeter *recorded = &meter->recorded;
  // The newest second is that of the last use or 429, but for a text that somebody wrote by hand.
  if (StartOf(read.newest_second) > NewestRecorded(*recorded))
    recorded->totals.last_used_at = StartOf(read.newest_second);
  meter->reserved.last_selected_at = StartOf(read.newest_grant);
  if (read.minutes.PutInto(recorded)) return true;
  // Likewise: totals that do not hold the newest minute.
  recorded->minute_requests = std::max<int64_t>(recorded->minute_requests, 0);
  recorded->minute_tokens = std::max<int64_t>(recorded->minute_tokens, 0);
  return true;
}

}  // namespace keypool
