// meter_text.cpp - a meter as text, for dumps.
#include "core/quota/meter_text.h"

#include "core/quota/limits.h"
#include "core/quota/slots.h"
#include "core/quota/text_fields.h"
#include "core/quota/usage.h"

namespace keypool {

namespace {

// What a period holds; its beginning is known once the totals are.
struct PeriodRead {
  Second end;
  int64_t requests, tokens, output, cached, cost;
};

struct MeterRead {
  Meter *meter;
  PeriodRead day, month;
  MinutesRead minutes;
};

void FormatPeriod(FieldWriter *writer, std::string_view name, const Totals &totals, const Period &period) {
  if (period.end == 0) return;
  writer->Field(name, period.end, totals.requests - period.requests, totals.tokens - period.tokens,
                totals.output - period.output, totals.cached - period.cached, totals.cost - period.cost);
}

void FormatMinutes(FieldWriter *writer, const Meter &meter) {
  UsageSlot use[kMaxUsage];
  int count = UsageBy(meter, Span::kMinute, kMinuteSlots, NewestRecorded(meter.recorded), use);
  for (int i = 0; i < count; ++i)
    writer->Field("minute", use[i].number, use[i].requests, use[i].tokens, use[i].rate_limited);
}

void FormatPast(FieldWriter *writer, std::string_view name, const UsageSlot *slots, int count) {
  for (const UsageSlot *slot = slots; slot < slots + count; ++slot)
    if (slot->number != 0)
      writer->Field(name, slot->number, slot->requests, slot->tokens, slot->rate_limited, slot->peak_requests,
                    slot->peak_tokens);
}

void FormatRecorded(FieldWriter *writer, const Meter &meter) {
  const RecordedMeter &recorded = meter.recorded;
  const Totals &totals = recorded.totals;
  writer->Field("total_requests", totals.requests);
  writer->Field("total_tokens", totals.tokens);
  writer->Field("total_output", totals.output);
  writer->Field("total_cached", totals.cached);
  writer->Field("total_cost", totals.cost);
  writer->Field("last_used_at", totals.last_used_at);
  writer->Field("last_429_at", recorded.last_429_at);
  writer->Field("blocked_until", recorded.blocked_until);
  writer->Field("ring_width", recorded.ring_width);
  writer->Field("call_timeout", recorded.call_timeout);
  const Breaker &breaker = recorded.breaker;
  writer->Field("breaker", breaker.open_until, breaker.opened_at, breaker.failures, uint32_t{breaker.openings},
                uint32_t{breaker.reason}, breaker.seconds);
  FormatPeriod(writer, "day", totals, recorded.day);
  FormatPeriod(writer, "month", totals, recorded.month);
  for (const RecordedSlot &slot : recorded.ring)
    if (slot.number != 0)
      writer->Field("slot", slot.number, slot.requests, slot.tokens, slot.output, slot.settled_or_cost);
  for (int i = 0; i < kBlockedModels; ++i)
    if (recorded.model_blocked_until[i] != 0)
      writer->Field("model", recorded.model_hash[i], recorded.model_blocked_until[i]);
  FormatPast(writer, "past_hour", recorded.hours, kUsageHours);
  FormatPast(writer, "past_day", recorded.days, kUsageDays);
}

int64_t NotNegative(int64_t count) { return std::max<int64_t>(count, 0); }

void FormatReserved(FieldWriter *writer, const Meter &meter) {
  const ReservedMeter &reserved = meter.reserved;
  writer->Field("turn", NotNegative(reserved.turn));
  writer->Field("last_selected_at", NewestReserved(reserved));
  writer->Field("selections", NotNegative(reserved.selections));
  writer->Field("releases", NotNegative(reserved.releases));
  writer->Field("expiries", NotNegative(reserved.expiries));
  writer->Field("rate_limits", NotNegative(reserved.rate_limits));
  writer->Field("repeats", NotNegative(reserved.repeats));
  writer->Field("without_model", NotNegative(reserved.without_model));
  writer->Field("without_model_at", IsTime(reserved.without_model_at) ? reserved.without_model_at : 0);
  if (reserved.probe_until != 0 && reserved.probe_until <= kLatestSecond)
    writer->Field("probe_until", reserved.probe_until);
  for (int i = 0; i < kRingSlots; ++i) {
    const ReservedSlot &slot = reserved.ring[i];
    if (slot.second == 0 || slot.second > kLatestSecond || RingIndex(slot.second) != i) continue;
    uint32_t selected = std::min<uint32_t>(slot.selected, kTrackedSelections);
    writer->Field("reserved", slot.second, selected, uint32_t{slot.open}, slot.tokens, slot.output);
  }
  for (int i = 0; i < kOpenSlots; ++i) {
    const OpenSlot &slot = reserved.open[i];
    if (slot.number == 0 || OpenIndex(slot.number) != i) continue;
    writer->Field("open", uint64_t{slot.number}, uint64_t{slot.calls}, uint64_t{slot.tokens}, uint64_t{slot.cost});
  }
}

bool ParsePeriod(std::string_view value, PeriodRead *period) {
  if (period->end != 0) return false;
  return ParseNumbers(value, &period->end, &period->requests, &period->tokens, &period->output, &period->cached,
                      &period->cost) &&
         period->end != 0 && period->end <= kLatestSecond;
}

bool ParseBreaker(std::string_view value, Breaker *breaker) {
  return ParseNumbers(value, &breaker->open_until, &breaker->opened_at, &breaker->failures, &breaker->openings,
                      &breaker->reason, &breaker->seconds) &&
         breaker->open_until <= kLatestBlock && breaker->opened_at <= kLatestTime;
}

bool ParseSlot(std::string_view value, RecordedMeter *recorded) {
  RecordedSlot slot;
  if (!ParseNumbers(value, &slot.number, &slot.requests, &slot.tokens, &slot.output, &slot.settled_or_cost))
    return false;
  RecordedSlot &at = recorded->ring[RingIndex(slot.number)];
  if (slot.number == 0 || slot.number > kLatestSecond || at.number != 0) return false;
  at = slot;
  return true;
}

bool ParseMinute(std::string_view value, MinutesRead *minutes) {
  Minute minute;
  uint32_t requests;
  int64_t tokens;
  uint16_t rate_limited;
  return ParseNumbers(value, &minute, &requests, &tokens, &rate_limited) &&
         minutes->Add(minute, requests, tokens, rate_limited);
}

bool ParseModel(std::string_view value, RecordedMeter *recorded) {
  uint32_t hash;
  TimeUs until;
  if (!ParseNumbers(value, &hash, &until) || hash == 0 || until == 0 || until > kLatestBlock) return false;
  for (int i = 0; i < kBlockedModels; ++i) {
    if (recorded->model_hash[i] == hash) return false;
    if (recorded->model_blocked_until[i] != 0) continue;
    recorded->model_hash[i] = hash;
    recorded->model_blocked_until[i] = until;
    return true;
  }
  return false;
}

// Hours or days, of which there are `count`.
bool ParsePast(std::string_view value, UsageSlot *slots, uint32_t count, uint32_t latest) {
  UsageSlot slot = {};
  if (!ParseNumbers(value, &slot.number, &slot.requests, &slot.tokens, &slot.rate_limited, &slot.peak_requests,
                    &slot.peak_tokens))
    return false;
  UsageSlot &at = slots[slot.number % count];
  if (slot.number == 0 || slot.number > latest || at.number != 0) return false;
  at = slot;
  return true;
}

bool ParseReserved(std::string_view value, ReservedMeter *reserved) {
  ReservedSlot slot;
  if (!ParseNumbers(value, &slot.second, &slot.selected, &slot.open, &slot.tokens, &slot.output)) return false;
  ReservedSlot &at = reserved->ring[RingIndex(slot.second)];
  if (slot.second == 0 || slot.second > kLatestSecond || slot.selected > kTrackedSelections || at.second != 0)
    return false;
  at = slot;
  return true;
}

bool ParseOpen(std::string_view value, ReservedMeter *reserved) {
  uint32_t number;
  int64_t calls, tokens, cost;
  if (!ParseNumbers(value, &number, &calls, &tokens, &cost) || number == 0 || number > kOpenNumberMask) return false;
  OpenSlot &at = reserved->open[OpenIndex(number)];
  if (at.number != 0 || calls > kMaxOpenCalls || tokens > kMaxOpenTokens || cost > kMaxOpenCost) return false;
  at = {number, static_cast<uint64_t>(tokens), static_cast<uint64_t>(calls), static_cast<uint64_t>(cost)};
  return true;
}

bool ParseWidth(std::string_view value, uint32_t *width) {
  return ParseNumber(value, width) && (*width == kSecondSlots || *width == kHourSlots || *width == kDaySlots);
}
bool ParseCallTimeout(std::string_view value, uint32_t *seconds) {
  return ParseNumber(value, seconds) && *seconds >= kMinCallTimeout && *seconds <= kMaxCallTimeout;
}

bool ParseRecordedField(const NameAndValue &field, MeterRead *read, bool *is_known) {
  RecordedMeter *recorded = &read->meter->recorded;
  std::string_view name = field.name, value = field.value;
  *is_known = true;
  if (name == "total_requests") return ParseNumber(value, &recorded->totals.requests);
  if (name == "total_tokens") return ParseNumber(value, &recorded->totals.tokens);
  if (name == "total_output") return ParseNumber(value, &recorded->totals.output);
  if (name == "total_cached") return ParseNumber(value, &recorded->totals.cached);
  if (name == "total_cost") return ParseNumber(value, &recorded->totals.cost);
  if (name == "last_used_at") return ParseTime(value, kLatestTime, &recorded->totals.last_used_at);
  if (name == "last_429_at") return ParseTime(value, kLatestTime, &recorded->last_429_at);
  if (name == "blocked_until") return ParseTime(value, kLatestBlock, &recorded->blocked_until);
  if (name == "ring_width") return ParseWidth(value, &recorded->ring_width);
  if (name == "call_timeout") return ParseCallTimeout(value, &recorded->call_timeout);
  if (name == "breaker") return ParseBreaker(value, &recorded->breaker);
  if (name == "day") return ParsePeriod(value, &read->day);
  if (name == "month") return ParsePeriod(value, &read->month);
  if (name == "slot") return ParseSlot(value, recorded);
  if (name == "minute") return ParseMinute(value, &read->minutes);
  if (name == "model") return ParseModel(value, recorded);
  if (name == "past_hour") return ParsePast(value, recorded->hours, kUsageHours, kLatestSecond / 3600);
  if (name == "past_day") return ParsePast(value, recorded->days, kUsageDays, kLatestSecond / 86400);
  *is_known = false;
  return false;
}

bool ParseReservedField(const NameAndValue &field, ReservedMeter *reserved) {
  std::string_view name = field.name, value = field.value;
  if (name == "turn") return ParseNumber(value, &reserved->turn);
  if (name == "last_selected_at") return ParseTime(value, kLatestTime, &reserved->last_selected_at);
  if (name == "selections") return ParseNumber(value, &reserved->selections);
  if (name == "releases") return ParseNumber(value, &reserved->releases);
  if (name == "expiries") return ParseNumber(value, &reserved->expiries);
  if (name == "rate_limits") return ParseNumber(value, &reserved->rate_limits);
  if (name == "repeats") return ParseNumber(value, &reserved->repeats);
  if (name == "without_model") return ParseNumber(value, &reserved->without_model);
  if (name == "without_model_at") return ParseTime(value, kLatestTime, &reserved->without_model_at);
  if (name == "probe_until")
    return ParseNumber(value, &reserved->probe_until) && reserved->probe_until <= kLatestSecond;
  if (name == "reserved") return ParseReserved(value, reserved);
  if (name == "open") return ParseOpen(value, reserved);
  return false;
}

bool ParseField(std::string_view text, MeterRead *read) {
  NameAndValue field(text);
  bool is_known;
  bool parsed = ParseRecordedField(field, read, &is_known);
  return is_known ? parsed : ParseReservedField(field, &read->meter->reserved);
}

// False if the period holds more than the totals.
bool PutPeriod(const PeriodRead &read, const Totals &totals, Period *period) {
  *period = {};
  if (read.end == 0) return true;
  *period = {read.end,
             0,
             totals.requests - read.requests,
             totals.tokens - read.tokens,
             totals.output - read.output,
             totals.cached - read.cached,
             totals.cost - read.cost};
  return period->requests >= 0 && period->tokens >= 0 && period->output >= 0 && period->cached >= 0 &&
         period->cost >= 0;
}

Status ParseFields(FieldReader *reader, Meter *meter) {
  MeterRead read = {meter, {}, {}, {}};
  for (int number = 1; !reader->done(); ++number)
    if (!ParseField(reader->Next(), &read))
      return Failure(Code::kInvalidArgument, "field %d of a meter is malformed or given twice", number);
  RecordedMeter *recorded = &meter->recorded;
  if (!PutPeriod(read.day, recorded->totals, &recorded->day) ||
      !PutPeriod(read.month, recorded->totals, &recorded->month) || !read.minutes.PutInto(recorded))
    return Failure(Code::kInvalidArgument, "a day, month or minute of a meter holds more than its totals");
  return {};
}

Status ParseFieldsOfLayout1(FieldReader *reader, Meter *meter) {
  int number = 1;
  if (ParseKeyState(reader, meter, &number)) return {};
  return Failure(Code::kInvalidArgument, "field %d of key state is malformed or given twice", number);
}

}  // namespace

bool MinutesRead::PutInto(RecordedMeter *recorded) const noexcept {
  Minute newest = MinuteOf(NewestRecorded(*recorded));
  recorded->minute_requests = recorded->totals.requests;
  recorded->minute_tokens = recorded->totals.tokens;
  for (const Entry &entry : entries_) {
    if (entry.minute == 0 || newest - entry.minute >= kMinuteSlots) continue;
    int at = MinuteIndex(entry.minute);
    recorded->history.rate_limited[at] = entry.rate_limited;
    if (entry.minute == newest) {
      recorded->minute_requests -= entry.requests;
      recorded->minute_tokens -= entry.tokens;
    } else {
      recorded->history.minute[at] = {entry.requests, SaturatingSlotSum(0, entry.tokens)};
    }
  }
  return recorded->minute_requests >= 0 && recorded->minute_tokens >= 0;
}

size_t FormatMeter(const Meter &meter, char (&out)[kMaxMeterText]) noexcept {
  assert(meter.layout == kLayout);
  FieldWriter writer(out, sizeof(out));
  writer.Layout(meter.layout);
  FormatRecorded(&writer, meter);
  FormatMinutes(&writer, meter);
  FormatReserved(&writer, meter);
  return writer.Finish();
}

Status ParseMeter(std::string_view text, Meter *meter) noexcept {
  *meter = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  FieldReader reader(text);
  uint32_t layout;
  if (!ParseNumber(reader.Next(), &layout) || layout < 1 || layout > kLayout)
    return Failure(Code::kInvalidArgument, "meter does not start with layout number 1 or %u", kLayout);
  return layout == 1 ? ParseFieldsOfLayout1(&reader, meter) : ParseFields(&reader, meter);
}

}  // namespace keypool
