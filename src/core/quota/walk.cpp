// walk.cpp - finding the key of a pool that serves a request.
#include "core/quota/walk.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace keypool {

static_assert(kQuotasOfKey == kMaxMeters - 1);

namespace {

constexpr TimeUs kShortestGuess = 10000;  // no guess is earlier than this from now

bool SameEnd(const Wait &a, const Wait &b) { return !a.EndsBefore(b) && !b.EndsBefore(a); }

// When all meters admit, if nothing else happens.
Wait LatestOf(const Look &look) {
  Wait latest = {};
  for (int i = 0; i < look.count; ++i) {
    const MeterLook &meter = look.meters[i];
    if (!meter.refuses || meter.admission.moment < latest.moment) continue;
    bool cooling = meter.known.wait.cooling || (latest.cooling && meter.admission.moment == latest.moment);
    latest = {meter.admission.moment, 0, cooling};
  }
  return latest;
}

// The meter that is told as the reason: the one whose guess is the latest.
int ReasonOf(const Look &look) {
  int reason = -1;
  for (int i = 0; i < look.count; ++i) {
    if (!look.meters[i].refuses) continue;
    const Admission &one = look.meters[i].admission, &other = look.meters[std::max(reason, 0)].admission;
    bool later = reason < 0 || one.guess > other.guess || (one.guess == other.guess && one.obstacle < other.obstacle);
    if (later) reason = i;
  }
  assert(reason >= 0);
  return reason;
}

}  // namespace

Walk::Walk(SelectionOrder *order, WalkMemory *memory, const Amounts &amounts, bool reserves, bool may_wait,
           TimeUs now) noexcept
    : order_(order), memory_(memory), amounts_(amounts), reserves_(reserves), may_wait_(may_wait) {
  BeginAgain(now);
  wants_ring_ = order->remembers();
  if (wants_ring_ && !may_wait) RingMissing();
}

void Walk::BeginAgain(TimeUs now) noexcept {
  assert(!has_news_ && !found_);
  over_ = refused_ = false;
  refusal_ = {};
  if (std::exchange(distrusts_, false)) order_->WakeAll();
  order_->Begin(amounts_, now);
}

void Walk::RingOpened(uint64_t posted) noexcept {
  assert(may_wait_ && !ring_open_);
  ring_open_ = true;
  wants_ring_ = false;
  if (!order_->remembers()) memory_->posts_seen = posted;
}

// Nobody tells of what eases: nothing that is remembered holds.
void Walk::RingMissing() noexcept {
  assert(!ring_open_);
  may_wait_ = wants_ring_ = false;
  order_->WakeAll();
}

Walk::Step Walk::Next() noexcept {
  if (has_news_) Apply();
  if (wants_ring_) return Step::kOpenRing;
  if (over_) return Step::kReadRing;
  if (found_) return Step::kFound;
  if (refused_ && phase_ != Phase::kAskingBusy) return Step::kNone;
  if (refused_) return Step::kLook;
  phase_ = order_->empty() ? Phase::kVerifying : Phase::kServing;
  if (phase_ == Phase::kVerifying && !order_->waiting()) return Step::kNone;
  key_ = phase_ == Phase::kServing ? order_->Top() : order_->FirstWaiting();
  return Step::kLook;
}

void Walk::SetAside(Aside why) noexcept {
  refusal_.excluded |= why == Aside::kExcluded;
  refusal_.too_large |= why == Aside::kTooLarge;
  refusal_.unopened |= why == Aside::kUnopened;
  if (phase_ == Phase::kServing) order_->SetTopAside();
  if (phase_ == Phase::kVerifying) order_->SetFirstAside();
  if (phase_ == Phase::kAskingBusy) phase_ = Phase::kVerifying;  // what was told before stands
}

void Walk::SetQuotaAside(uint32_t quota) noexcept {
  refusal_.too_large = true;
  order_->SetQuotaAside(quota);
  if (phase_ == Phase::kAskingBusy) phase_ = Phase::kVerifying;
}

bool Walk::StandsLater(int64_t standing) noexcept {
  if (phase_ != Phase::kServing || standing <= order_->TopStanding()) return false;
  memory_->newest = std::max(memory_->newest, standing);
  order_->CorrectTop(standing);
  return true;
}

bool Walk::NeedsPosted(const Look &look) const noexcept {
  bool answers = phase_ != Phase::kServing || !look.refused();
  return answers && ring_open_ && order_->remembers();
}

bool Walk::IsOver(uint64_t posted, TimeUs now) const noexcept {
  return order_->NextMoment() <= now || (ring_open_ && order_->remembers() && posted != memory_->posts_seen);
}

Verdict Walk::Judge(const Look &look, uint64_t posted, TimeUs now) noexcept {
  assert(!has_news_ && !over_ && !found_ && look.count >= 1 && look.count <= kMaxMeters);
  memory_->newest = std::max(memory_->newest, look.standing);
  bool over = IsOver(posted, now);
  if (phase_ != Phase::kServing) return JudgeWaiting(look, over, now);
  if (!look.refused()) return JudgeServing(look, over);
  return Remember(look, now);
}

// Notes a refusal, or that an order's belief is to be corrected. What is remembered must be awaited in the same step,
// and the ring be open before: without it, this look was only to see that it is needed.
Verdict Walk::Remember(const Look &look, TimeUs now) noexcept {
  wants_ring_ = look.refused() && !ring_open_ && may_wait_;
  if (wants_ring_) return {};
  Verdict verdict = {};
  look_ = look;
  has_news_ = true;
  for (int i = 0; i < look.count; ++i) {
    MeterLook *meter = &look_.meters[i];
    if (!meter->refuses) continue;
    assert(meter->admission.moment > now);
    // A lower bound that is no later than now would be looked at again without end.
    if (meter->known.wait.moment <= now) SetExact(*meter, &meter->known);
    bool notes = ring_open_ && reserves_ && !meter->awaited;
    if (notes) verdict.awaits |= static_cast<uint8_t>(1 << i);
    meter->known.for_this_walk = !notes && !(ring_open_ && meter->awaited);
  }
  return verdict;
}

Verdict Walk::JudgeServing(const Look &look, bool over) noexcept {
  bool later = look.standing > order_->TopStanding();
  bool tells = look.tells && reserves_ && may_wait_;
  wants_ring_ = tells && !ring_open_ && !over && !later;
  if (wants_ring_) return {};
  over_ = over && !later;
  found_ = !over && !later;
  corrected_ = later ? look.standing : look.next;
  has_news_ = later || (found_ && reserves_);
  if (has_news_) look_.count = 0;
  return {found_, found_ && tells, 0};
}

// No key may serve. Either all is as the order believes at this moment, or its belief is corrected.
Verdict Walk::JudgeWaiting(const Look &look, bool over, TimeUs now) noexcept {
  if (phase_ == Phase::kAskingBusy) {
    phase_ = Phase::kVerifying;
    distrusts_ = !look.refused();
    over_ = over || distrusts_;
    if (!over_) Refuse(look, now);
    return {};
  }
  Wait first = {order_->NextMoment(), 0, order_->FirstCools()};
  Wait exact = LatestOf(look);
  bool believed = look.refused() && (SameEnd(first, exact) || (first.moment == exact.moment && !Corrects(look)));
  if (!believed) return Remember(look, now);
  over_ = over;
  if (over) return {};
  Refuse(look, now);
  if (Competes(now)) phase_ = Phase::kAskingBusy;
  return {};
}

// Tells what this look says, if that is earlier than what was to be told.
void Walk::Refuse(const Look &look, TimeUs now) noexcept {
  int reason = ReasonOf(look);
  const Admission &admission = look.meters[reason].admission;
  assert(admission.guess > now && admission.guess <= admission.moment);
  bool earlier = !refused_ || admission.guess < refusal_.moment;
  refused_ = refusal_.waits = true;
  if (!earlier) return;
  refusal_.obstacle = admission.obstacle;
  refusal_.limit = admission.limit;
  refusal_.moment = admission.guess;
  refusal_.key = key_;
  refusal_.quota = reason == 0 ? kNoIndex : order_->QuotasOf(key_)[reason - 1];
  static_cast<void>(now);
}

// Whether a busy key may be told an earlier moment.
bool Walk::Competes(TimeUs now) noexcept {
  if (refusal_.moment <= now + kShortestGuess) return false;
  uint32_t busy = order_->BusyKey();
  if (busy == kNoIndex || busy == key_) return false;
  key_ = busy;
  return true;
}

const KnownWait *Walk::KnownOf(int meter) const noexcept {
  if (meter == 0) return order_->KnownOf(key_);
  uint32_t quota = order_->QuotasOf(key_)[meter - 1];
  return order_->QuotaWaits(quota) ? order_->KnownOfQuota(quota) : nullptr;
}

// When a request as large as this one is served.
void Walk::SetExact(const MeterLook &look, KnownWait *known) const noexcept {
  known->wait.moment = look.admission.moment;
  known->wait.tokens = look.asked;
  known->output = static_cast<uint32_t>(amounts_.output);
  known->cost = amounts_.cost;
}

// Whether a meter is not as remembered; if it refuses, what is to be remembered of it. At first that holds for smaller
// requests, too; where this one waits longer than those, for requests of its size only.
bool Walk::Correction(const MeterLook &look, const KnownWait *known, KnownWait *correction) const noexcept {
  if (!look.refuses || known == nullptr) {
    *correction = look.known;
    return look.refuses || known != nullptr;
  }
  *correction = look.known;
  if (known->wait.EndsBefore(look.known.wait)) return true;
  SetExact(look, correction);
  return !SameEnd(known->wait, correction->wait);
}

bool Walk::Corrects(const Look &look) const noexcept {
  KnownWait correction;
  bool corrects = false;
  for (int i = 0; i < look.count; ++i) corrects = corrects || Correction(look.meters[i], KnownOf(i), &correction);
  return corrects;
}

// Takes in what the last look said.
void Walk::Apply() noexcept {
  has_news_ = false;
  if (look_.count == 0) {
    order_->CorrectTop(corrected_);
    memory_->newest = std::max(memory_->newest, corrected_);
  } else if (phase_ == Phase::kServing) {
    ApplyToTop();
  } else {
    ApplyToFirst();
  }
#ifndef NDEBUG
  memset(&look_, 0, sizeof(look_));  // so that walks that stand alike look alike to the explorer
#endif
}

void Walk::ApplyToTop() noexcept {
  assert(order_->Top() == key_);
  if (look_.meters[0].refuses) order_->LetTopWait(look_.meters[0].known);
  for (int i = 1; i < look_.count; ++i)
    if (look_.meters[i].refuses) order_->LetQuotaWait(order_->QuotasOf(key_)[i - 1], look_.meters[i].known);
}

void Walk::ApplyToFirst() noexcept {
  assert(order_->FirstWaiting() == key_ && Corrects(look_));
  KnownWait correction;
  if (Correction(look_.meters[0], KnownOf(0), &correction)) {
    if (look_.meters[0].refuses)
      order_->LetFirstWait(correction);
    else
      order_->WakeFirst();
  }
  for (int i = 1; i < look_.count; ++i) {
    uint32_t quota = order_->QuotasOf(key_)[i - 1];
    if (!Correction(look_.meters[i], KnownOf(i), &correction)) continue;
    if (look_.meters[i].refuses)
      order_->LetQuotaWait(quota, correction);
    else
      order_->WakeQuota(quota);
  }
}

}  // namespace keypool
