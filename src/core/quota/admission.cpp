// admission.cpp - may this request be served now, and if not, when.
#include "core/quota/admission.h"

#include "core/quota/breaker.h"
#include "core/quota/mix.h"
#include "core/quota/refusal.h"
#include "core/quota/slots.h"

namespace keypool {

namespace {

bool Any(const Limits &limits, Limit first, Limit last) {
  int64_t any = 0;
  for (int i = static_cast<int>(first); i <= static_cast<int>(last); ++i) any |= limits.max[i];
  return any != 0;
}

bool FitsWindow(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) {
  WindowUse use = UseInWindow(meter, now);
  if (use.tokens >= kMaxSlotAmount || use.output >= kMaxSlotAmount)  // a slot may be full, and hold more than it says
    return FitsOneByOne(meter, limits, request, now);
  return HasRoom(limits.of(Limit::kRpm), use.requests, 1) &&
         HasRoom(limits.of(Limit::kTpm), use.tokens, request.tokens) &&
         HasRoom(limits.of(Limit::kOutputTpm), use.output, request.output) &&
         HasRoom(limits.of(Limit::kRph), use.requests, 1) &&
         HasRoom(limits.of(Limit::kTph), use.tokens, request.tokens) &&
         (limits.burst_seconds == 0 || FitsBurst(meter, limits, now));
}

bool FitsDay(const Meter &meter, const Limits &limits, const Request &request, const OpenCalls &open, TimeUs now) {
  if (limits.rolling_day) return FitsOneByOne(meter, limits, request, now);
  PeriodUse use = UseInPeriod(meter, meter.recorded.day, limits.rule, now);
  return HasRoom(limits.of(Limit::kRpd), use.requests + open.calls, 1) &&
         HasRoom(limits.of(Limit::kTpd), SaturatingSum(use.tokens, open.tokens), request.tokens) &&
         HasRoom(limits.of(Limit::kCostDay), SaturatingSum(use.cost, open.cost), request.cost);
}

bool FitsMonth(const Meter &meter, const Limits &limits, const Request &request, const OpenCalls &open, TimeUs now) {
  PeriodUse use = UseInPeriod(meter, meter.recorded.month, limits.rule, now);
  return HasRoom(limits.of(Limit::kRequestsMonth), use.requests + open.calls, 1) &&
         HasRoom(limits.of(Limit::kTokensMonth), SaturatingSum(use.tokens, open.tokens), request.tokens) &&
         HasRoom(limits.of(Limit::kCostMonth), SaturatingSum(use.cost, open.cost), request.cost);
}

bool FitsLonger(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) {
  OpenCalls open = CallsInFlight(meter, now);
  return HasRoom(limits.of(Limit::kInFlight), open.calls, 1) && FitsDay(meter, limits, request, open, now) &&
         FitsMonth(meter, limits, request, open, now);
}

// No work for limits that are not set.
bool Fits(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) {
  if (Any(limits, Limit::kRpm, Limit::kTph) && !FitsWindow(meter, limits, request, now)) return false;
  if (Any(limits, Limit::kRpd, Limit::kInFlight) && !FitsLonger(meter, limits, request, now)) return false;
  return FitsSlots(meter, request, now);
}

Admission AdmitRequest(const Meter &meter, const Limits &limits, const Request &request, uint32_t model, TimeUs now) {
  TimeUs own = MeterNow(meter, now);
  if (!IsBlocked(meter, model, own) && Fits(meter, limits, request, own)) return {Obstacle::kNone, Limit::kCount, 0, 0};
  return Refusal(meter, limits, request, model, own);
}

Request RequestOf(const Amounts &amounts, const CountRule &rule) {
  return {CountedTokens(amounts, rule), amounts.output, amounts.cost};
}

// The request at `tokens` of its counted tokens: the rest in proportion, rounded up.
Request Scaled(const Request &request, int64_t tokens) {
  if (request.tokens == 0) return request;
  auto part = [&](int64_t amount) {
    return static_cast<int64_t>((static_cast<__int128>(amount) * tokens + request.tokens - 1) / request.tokens);
  };
  return {tokens, part(request.output), part(request.cost)};
}

// The first size in proportion that is more than the room for an amount of it.
int64_t FirstBeyond(int64_t room, int64_t amount, int64_t tokens) {
  if (amount <= room) return tokens;
  return static_cast<int64_t>(static_cast<__int128>(room) * tokens / amount) + 1;
}

// The counted tokens of the smallest request in proportion that is refused, where one of none is admitted.
int64_t SmallestRefused(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) {
  Request room = RoomOf(meter, limits, now);
  int64_t by_tokens = FirstBeyond(room.tokens, request.tokens, request.tokens);
  int64_t by_output = FirstBeyond(room.output, request.output, request.tokens);
  int64_t by_cost = FirstBeyond(room.cost, request.cost, request.tokens);
  return std::min(by_tokens, std::min(by_output, by_cost));
}

uint64_t ModelBlocks(const RecordedMeter &recorded, TimeUs now) {
  uint64_t digest = 0;
  for (int i = 0; i < kBlockedModels; ++i) {
    TimeUs until = recorded.model_blocked_until[i];
    if (until > now) digest += MixBits(static_cast<uint64_t>(until) ^ uint64_t{recorded.model_hash[i]} << 32);
  }
  return digest;
}

}  // namespace

Admission Admit(const Meter &meter, const Limits &limits, const Ask &ask) noexcept {
  [[maybe_unused]] Limit which;
  assert(HaveOneWidth(limits) && CanEverServe(limits, ask.amounts, &which));
  return AdmitRequest(meter, limits, RequestOf(ask.amounts, limits.rule), ask.model_hash, ask.now);
}

bool IsModelBlocked(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept {
  assert(model_hash != 0);
  return IsModelKeptOut(meter, model_hash, MeterNow(meter, now));
}

// A size that 32 bits cannot hold is remembered for no time.
Wait WaitOf(const Meter &meter, const Limits &limits, const Ask &ask) noexcept {
  Request request = RequestOf(ask.amounts, limits.rule);
  assert(!AdmitRequest(meter, limits, request, ask.model_hash, ask.now).admitted());
  Admission admission = AdmitRequest(meter, limits, {}, ask.model_hash, ask.now);
  int64_t size = 0;
  if (admission.admitted()) {
    TimeUs own = MeterNow(meter, ask.now);
    size = SmallestRefused(meter, limits, request, own);
    if (size > kMaxSlotAmount) return {own, static_cast<uint32_t>(kMaxSlotAmount), false};
    admission = AdmitRequest(meter, limits, Scaled(request, size), ask.model_hash, ask.now);
  }
  assert(!admission.admitted());
  return {admission.moment, static_cast<uint32_t>(size), admission.obstacle == Obstacle::kCooldown};
}

bool Load::EasedFrom(const Load &before, bool calls_matter) const noexcept {
  bool window = requests < before.requests || tokens < before.tokens || output < before.output || cost < before.cost;
  bool day = day_requests < before.day_requests || day_tokens < before.day_tokens || day_cost < before.day_cost;
  bool month =
      month_requests < before.month_requests || month_tokens < before.month_tokens || month_cost < before.month_cost;
  bool blocks = blocked_until != before.blocked_until || model_blocks != before.model_blocks;
  bool apart = apart_from < before.apart_from;
  return window || day || month || blocks || apart || (calls_matter && calls < before.calls);
}

Load LoadOf(const Meter &meter, const CountRule &rule, TimeUs now) noexcept {
  const RecordedMeter &recorded = meter.recorded;
  TimeUs own = MeterNow(meter, now);
  WindowUse window = UseInWindow(meter, own);
  OpenCalls open = CallsInFlight(meter, own);
  PeriodUse day = UseInPeriod(meter, recorded.day, rule, own), month = UseInPeriod(meter, recorded.month, rule, own);
  TimeUs blocked = std::max(recorded.blocked_until, BreakerHoldsUntil(meter, own));
  return {window.requests,
          window.tokens,
          window.output,
          meter.recorded.ring_width == kSecondSlots ? 0 : CostInWindow(meter, own),
          open.calls,
          day.requests + open.calls,
          SaturatingSum(day.tokens, open.tokens),
          SaturatingSum(day.cost, open.cost),
          month.requests + open.calls,
          SaturatingSum(month.tokens, open.tokens),
          SaturatingSum(month.cost, open.cost),
          blocked > own ? blocked : 0,
          ModelBlocks(recorded, own),
          NewestReserved(meter.reserved)};
}

}  // namespace keypool
