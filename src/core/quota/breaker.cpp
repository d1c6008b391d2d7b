// breaker.cpp - a circuit breaker.
#include "core/quota/breaker.h"

#include <algorithm>
#include <cassert>

namespace keypool {

namespace {

// What a crash left may be none.
bool ProbeIsUnderWay(const Meter &meter, TimeUs now) {
  Second until = meter.reserved.probe_until, second = SecondOf(now);
  return until > second && until - second <= kMaxBreakerSeconds;
}

uint16_t FailuresWith(const Breaker &breaker, const BreakerRule &rule) {
  if (breaker.reason != rule.reason) return 1;
  return static_cast<uint16_t>(breaker.failures + (breaker.failures != UINT16_MAX));
}

// For how long it opens now.
uint32_t NextSeconds(const Breaker &breaker, const BreakerRule &rule) {
  uint32_t doubled = breaker.openings == 0 ? 0 : 2 * std::min(breaker.seconds, kMaxBreakerSeconds);
  return std::min(std::max(doubled, rule.seconds), kMaxBreakerSeconds);
}

// Until when the place of a probe that was selected in this second is its own.
Second EndOfProbe(const Breaker &breaker, Second selected_in) {
  return selected_in + std::clamp(breaker.seconds, kMinProbeSeconds, kMaxBreakerSeconds);
}

void EndAnyProbe(MeterEdit *edit) {
  const ReservedMeter &reserved = edit->meter().reserved;
  if (reserved.probe_until != 0) edit->SetWhole(reserved.probe_until, 0);
}

}  // namespace

bool HearsOf(const Meter &meter, Second selected_in) noexcept {
  return selected_in > SecondOf(meter.recorded.breaker.opened_at);
}

BreakerState BreakerStateOf(const Meter &meter, TimeUs now) noexcept {
  const Breaker &breaker = meter.recorded.breaker;
  if (breaker.openings == 0) return BreakerState::kClosed;
  return breaker.open_until > now ? BreakerState::kOpen : BreakerState::kHalfOpen;
}

TimeUs BreakerOpenFor(const Meter &meter, TimeUs now) noexcept {
  const Breaker &breaker = meter.recorded.breaker;
  if (breaker.openings == 0) return 0;
  TimeUs before = 0;
  uint32_t seconds = breaker.seconds / 2;
  for (int i = 1; i < breaker.openings && seconds > 0; ++i, seconds /= 2) before += StartOf(seconds);
  return before + std::max(now - breaker.opened_at, TimeUs{0});
}

TimeUs BreakerHoldsUntil(const Meter &meter, TimeUs now) noexcept {
  const Breaker &breaker = meter.recorded.breaker;
  if (breaker.openings == 0) return 0;
  TimeUs probe = ProbeIsUnderWay(meter, now) ? StartOf(meter.reserved.probe_until) : 0;
  TimeUs until = std::max(breaker.open_until, probe);
  return until > now ? until : 0;
}

bool BeginProbe(Meter *meter, TimeUs now) noexcept {
  if (BreakerStateOf(*meter, now) != BreakerState::kHalfOpen) return false;
  assert(BreakerHoldsUntil(*meter, now) == 0);
  meter->reserved.probe_until = EndOfProbe(meter->recorded.breaker, SecondOf(now));
  return true;
}

void EndProbe(MeterEdit *edit, Second selected_in) noexcept {
  const Meter &meter = edit->meter();
  if (meter.reserved.probe_until == EndOfProbe(meter.recorded.breaker, selected_in)) EndAnyProbe(edit);
}

void NoteSuccess(MeterEdit *edit, Second selected_in) noexcept {
  const Breaker &breaker = edit->meter().recorded.breaker;
  bool is_news = breaker.openings != 0 || breaker.failures != 0;
  if (!is_news || !HearsOf(edit->meter(), selected_in)) return;
  EndAnyProbe(edit);
  edit->Set(breaker, {0, breaker.opened_at, 0, 0, 0, 0});
}

bool WouldOpen(const Meter &meter, const BreakerRule &rule, Second selected_in) noexcept {
  const Breaker &breaker = meter.recorded.breaker;
  if (rule.threshold == 0 || !HearsOf(meter, selected_in)) return false;
  return breaker.openings != 0 || FailuresWith(breaker, rule) >= rule.threshold;
}

bool NoteFailure(MeterEdit *edit, const BreakerRule &rule, Second selected_in, TimeUs now) noexcept {
  assert(rule.reason != 0 && rule.seconds >= 1 && rule.seconds <= kMaxBreakerSeconds);
  const Breaker &breaker = edit->meter().recorded.breaker;
  if (!HearsOf(edit->meter(), selected_in)) return false;
  bool opens = WouldOpen(edit->meter(), rule, selected_in);
  Breaker noted = breaker;
  noted.failures = FailuresWith(breaker, rule);
  noted.reason = rule.reason;
  if (opens) {
    noted.seconds = NextSeconds(breaker, rule);
    noted.openings = static_cast<uint8_t>(breaker.openings + (breaker.openings != UINT8_MAX));
    noted.open_until = now + StartOf(noted.seconds);
    noted.opened_at = now;
    EndAnyProbe(edit);
  } else {
    EndProbe(edit, selected_in);
  }
  edit->Set(breaker, noted);
  return opens;
}

void NoteSuspicion(MeterEdit *edit, const BreakerRule &rule, Second selected_in, TimeUs now) noexcept {
  const RecordedMeter &recorded = edit->meter().recorded;
  if (!HearsOf(edit->meter(), selected_in)) return;
  TimeUs until = now + StartOf(kSuspectSeconds);
  EndAnyProbe(edit);
  edit->Set(recorded.breaker,
            {until, recorded.breaker.opened_at, FailuresWith(recorded.breaker, rule), 0, rule.reason, kSuspectSeconds});
  edit->Set(recorded.blocked_until, std::max(recorded.blocked_until, until));
}

bool IsSuspect(const Meter &meter, TimeUs now) noexcept {
  const Breaker &breaker = meter.recorded.breaker;
  return breaker.openings == 0 && breaker.seconds != 0 && breaker.open_until > now;
}

void CloseBreaker(MeterEdit *edit, TimeUs now) noexcept {
  EndAnyProbe(edit);
  edit->Set(edit->meter().recorded.breaker, {0, now, 0, 0, 0, 0});
}

}  // namespace keypool
