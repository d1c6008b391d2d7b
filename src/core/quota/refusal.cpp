// refusal.cpp - why a meter refuses a request, and until when.
#include "core/quota/refusal.h"

#include "core/quota/breaker.h"
#include "core/quota/usage.h"

namespace keypool {

namespace {

constexpr TimeUs kShortestGuess = 10000;

// The latest of what is in the way; of equals the first that is given.
class Latest {
 public:
  explicit Latest(TimeUs now) : now_(now) {}

  void Add(Obstacle obstacle, TimeUs moment, Limit limit = Limit::kCount) { Add(obstacle, moment, moment, limit); }

  void Add(Obstacle obstacle, TimeUs moment, TimeUs guess, Limit limit) {
    if (moment <= now_) return;
    if (guess > answer_.guess) {
      answer_.obstacle = obstacle;
      answer_.limit = limit;
      answer_.guess = guess;
    }
    answer_.moment = std::max(answer_.moment, moment);
  }

  const Admission &answer() const { return answer_; }

 private:
  TimeUs now_;
  Admission answer_ = {Obstacle::kNone, Limit::kCount, 0, 0};
};

TimeUs ModelBlockedUntil(const RecordedMeter &recorded, uint32_t model_hash) {
  TimeUs until = 0;
  for (int i = 0; i < kBlockedModels; ++i)
    if (recorded.model_hash[i] == model_hash) until = std::max(until, recorded.model_blocked_until[i]);
  return model_hash == 0 ? 0 : until;
}

// When somebody may have settled a call.
TimeUs NextSettling(const Meter &meter, TimeUs now) {
  UsageSlot use[kMaxUsage];
  int64_t settled = 0;
  int count = UsageBy(meter, Span::kMinute, 2, now, use);
  for (int i = 0; i < count; ++i) settled += use[i].requests;
  TimeUs seen = StartOf(60 + SecondOf(now) % 60);
  return now + std::clamp(settled == 0 ? kLongestGuess : seen / settled, kShortestGuess, kLongestGuess);
}

int64_t RequestsInSecond(const Meter &meter, Second second) {
  const ReservedSlot &reserved = meter.reserved.ring[RingIndex(second)];
  return int64_t{RecordedSlotOf(meter, second).requests} + (reserved.second == second ? reserved.open : 0);
}

// The share of max_rpm in burst_seconds, rounded up.
int64_t BurstShare(const Limits &limits) {
  __int128 share = (static_cast<__int128>(limits.of(Limit::kRpm)) * limits.burst_seconds + 59) / 60;
  return static_cast<int64_t>(std::min<__int128>(share, std::numeric_limits<int64_t>::max()));
}

// One request, then none for `apart` seconds. If a crash lost when the last selection was, the seconds that the log
// kept tell.
TimeUs ApartMoment(const Meter &meter, Second apart, TimeUs now) {
  TimeUs last = NewestReserved(meter.reserved);
  TimeUs moment = last == 0 ? now : last + StartOf(apart);
  Second second = SecondOf(now);
  for (Second age = 0; age <= apart && second - age > SecondOf(last); ++age)
    if (RequestsInSecond(meter, second - age) > 0) return StartOf(second - age + apart + 1);
  return std::max(now, moment);
}

// `now` if a request fits.
TimeUs BurstMoment(const Meter &meter, const Limits &limits, TimeUs now) {
  assert(limits.burst_seconds <= kMaxBurstSeconds);
  if (limits.burst_seconds == 0 || limits.of(Limit::kRpm) == 0) return now;
  int64_t share = BurstShare(limits);
  if (share == 1) return ApartMoment(meter, limits.burst_seconds, now);
  Second oldest = SecondOf(now) - limits.burst_seconds, passed = 0;
  int64_t requests = 0;
  for (Second age = 0; age <= limits.burst_seconds; ++age) requests += RequestsInSecond(meter, oldest + age);
  for (; requests >= share; ++passed) requests -= RequestsInSecond(meter, oldest + passed);
  return passed == 0 ? now : StartOf(SecondOf(now) + passed);
}

const ReservedSlot *SlotOfSecond(const Meter &meter, Second second) {
  const ReservedSlot &slot = meter.reserved.ring[RingIndex(second)];
  return slot.second == second ? &slot : nullptr;
}

const OpenSlot *OpenSlotOf(const Meter &meter, uint32_t number) {
  const OpenSlot &slot = meter.reserved.open[OpenIndex(number)];
  return IsOpenSlot(slot, number) ? &slot : nullptr;
}

bool SecondHolds(const ReservedSlot *slot, const Request &request) {
  return slot == nullptr || (slot->open < kMaxSlotOpen && SlotTokens(request.tokens) <= kMaxSlotAmount - slot->tokens &&
                             SlotTokens(request.output) <= kMaxSlotAmount - slot->output);
}

bool OpenSlotHolds(const OpenSlot *slot, const Request &request) {
  return slot == nullptr || (static_cast<int64_t>(slot->calls) < kMaxOpenCalls &&
                             OpenTokens(request.tokens) <= kMaxOpenTokens - static_cast<int64_t>(slot->tokens) &&
                             request.cost <= kMaxOpenCost - static_cast<int64_t>(slot->cost));
}

TimeUs SlotMoment(const Meter &meter, const Request &request, TimeUs now) {
  Second second = SecondOf(now);
  uint32_t number = OpenNumber(meter, second);
  if (!OpenSlotHolds(OpenSlotOf(meter, number), request)) return StartOf((number + 1) * OpenSlotWidth(meter));
  return SecondHolds(SlotOfSecond(meter, second), request) ? now : StartOf(second + 1);
}

void AddLimits(const Meter &meter, const Limits &limits, const Request &request, TimeUs now, Latest *latest) {
  for (int i = 0; i < kLimits; ++i) {
    auto limit = static_cast<Limit>(i);
    if (limits.max[i] == 0) continue;
    TimeUs moment = Gauge(meter, limits, limit, now).FirstRoom(limits.max[i], AmountFor(limit, request));
    TimeUs guess = limit == Limit::kInFlight ? std::min(moment, NextSettling(meter, now)) : moment;
    latest->Add(Obstacle::kLimit, moment, guess, limit);
    if (limit == Limit::kRpm) latest->Add(Obstacle::kLimit, BurstMoment(meter, limits, now), limit);
  }
}

}  // namespace

bool IsModelKeptOut(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept {
  return ModelBlockedUntil(meter.recorded, model_hash) > now;
}

bool IsBlocked(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept {
  const RecordedMeter &recorded = meter.recorded;
  return recorded.blocked_until > now || BreakerHoldsUntil(meter, now) != 0 ||
         (model_hash != 0 && ModelBlockedUntil(recorded, model_hash) > now);
}

bool FitsOneByOne(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) noexcept {
  int last = static_cast<int>(limits.rolling_day ? Limit::kTpd : Limit::kTph);
  auto fits = [&](Limit limit) {
    int64_t max = limits.of(limit);
    return max == 0 || HasRoom(max, Gauge(meter, limits, limit, now).use(), AmountFor(limit, request));
  };
  for (int i = 0; i <= last; ++i)
    if (!fits(static_cast<Limit>(i))) return false;
  return (!limits.rolling_day || fits(Limit::kCostDay)) && FitsBurst(meter, limits, now);
}

bool FitsBurst(const Meter &meter, const Limits &limits, TimeUs now) noexcept {
  return BurstMoment(meter, limits, now) <= now;
}

bool FitsSlots(const Meter &meter, const Request &request, TimeUs now) noexcept {
  Second second = SecondOf(now);
  return SecondHolds(SlotOfSecond(meter, second), request) &&
         OpenSlotHolds(OpenSlotOf(meter, OpenNumber(meter, second)), request);
}

Admission Refusal(const Meter &meter, const Limits &limits, const Request &request, uint32_t model_hash,
                  TimeUs now) noexcept {
  Latest latest(now);
  const RecordedMeter &recorded = meter.recorded;
  latest.Add(Obstacle::kCooldown, std::max(recorded.blocked_until, ModelBlockedUntil(recorded, model_hash)));
  latest.Add(Obstacle::kBreaker, BreakerHoldsUntil(meter, now));
  AddLimits(meter, limits, request, now, &latest);
  latest.Add(Obstacle::kFullSlot, SlotMoment(meter, request, now));
  assert(!latest.answer().admitted() && latest.answer().guess <= latest.answer().moment);
  return latest.answer();
}

Request RoomOf(const Meter &meter, const Limits &limits, TimeUs now) noexcept {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  Request room = {kAll, kAll, kAll};
  for (int i = 0; i < kLimits; ++i) {
    auto limit = static_cast<Limit>(i);
    if (limits.max[i] == 0 || limit == Limit::kInFlight) continue;
    int64_t left = std::max<int64_t>(limits.max[i] - Gauge(meter, limits, limit, now).use(), 0);
    if (AmountFor(limit, {2, 0, 0}) == 2) room.tokens = std::min(room.tokens, left);
    if (AmountFor(limit, {0, 2, 0}) == 2) room.output = std::min(room.output, left);
    if (AmountFor(limit, {0, 0, 2}) == 2) room.cost = std::min(room.cost, left);
  }
  if (const ReservedSlot *slot = SlotOfSecond(meter, SecondOf(now))) {
    if (slot->tokens > 0) room.tokens = std::min(room.tokens, kMaxSlotAmount - slot->tokens);
    if (slot->output > 0) room.output = std::min(room.output, kMaxSlotAmount - slot->output);
  }
  if (const OpenSlot *slot = OpenSlotOf(meter, OpenNumber(meter, SecondOf(now)))) {
    if (slot->tokens > 0) room.tokens = std::min(room.tokens, kMaxOpenTokens - static_cast<int64_t>(slot->tokens));
    room.cost = std::min(room.cost, kMaxOpenCost - static_cast<int64_t>(slot->cost));
  }
  return room;
}

}  // namespace keypool
