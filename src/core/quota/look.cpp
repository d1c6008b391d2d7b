// look.cpp - what a look at a key says, with its meter and those of its quotas locked.
#include "core/quota/look.h"

#include <algorithm>
#include <cassert>

#include "core/quota/turn.h"
#include "core/quota/wakeups.h"

namespace keypool {

namespace {

// `amount` in proportion to `part` of `whole`, rounded up.
int64_t Share(int64_t amount, int64_t part, int64_t whole) {
  assert(amount >= 0 && part >= 0 && whole > 0);
  return static_cast<int64_t>((static_cast<__int128>(amount) * part + whole - 1) / whole);
}

// WaitOf speaks of requests in the same proportion. Those of other proportions are refused, too, if they are as large
// in everything.
KnownWait KnownWaitOf(const Meter &meter, const Limits &limits, const Ask &ask, int64_t asked) {
  KnownWait known = {WaitOf(meter, limits, ask), 0, false, false, 0};
  int64_t output = 0, cost = 0;
  if (asked > 0) {
    output = Share(ask.amounts.output, known.wait.tokens, asked);
    cost = Share(ask.amounts.cost, known.wait.tokens, asked);
  } else if (Admit(meter, limits, {{}, ask.model_hash, ask.now}).admitted()) {
    output = ask.amounts.output;
    cost = ask.amounts.cost;
  }
  known.output = static_cast<uint32_t>(output);
  known.cost = cost;
  return known;
}

void LookAtMeter(const Meter &meter, const Limits &limits, const Ask &ask, MeterLook *look) {
  look->admission = Admit(meter, limits, ask);
  look->refuses = !look->admission.admitted();
  uint32_t awaited = AwaitedFor(limits);
  look->awaited = (meter.reserved.awaited & awaited) == awaited;
  if (!look->refuses) return;
  int64_t asked = CountedTokens(ask.amounts, limits.rule);
  look->asked = static_cast<uint32_t>(std::min<int64_t>(asked, UINT32_MAX));
  look->known = KnownWaitOf(meter, limits, ask, asked);
  look->known.busy = look->admission.guess < look->admission.moment;
}

bool MovesAwaited(const Meter *const *meters, int count, TimeUs now) {
  Second second = SecondOf(CommonNow(meters, count, now));
  bool moves = false;
  for (int i = 0; i < count; ++i)
    moves = moves || (meters[i]->reserved.awaited != 0 && second > MeterSecond(*meters[i], 0));
  return moves;
}

}  // namespace

void LookAt(const Meter *const *meters, const Limits *const *limits, int count, const LookAsk &ask,
            Look *look) noexcept {
  assert(count >= 1 && count <= kMaxMeters);
  int64_t turn = meters[0]->reserved.turn;
  look->standing = ask.takes_turns ? StandingTurn(turn, ask.newest, ask.id, ask.weight) : turn;
  look->next = ask.takes_turns ? NextTurn(turn, ask.newest, ask.id, ask.weight) : turn;
  look->tells = AnyAwaited(meters, count) && MovesAwaited(meters, count, ask.ask.now);
  look->count = count;
  for (int i = 0; i < count; ++i) LookAtMeter(*meters[i], *limits[i], ask.ask, &look->meters[i]);
}

}  // namespace keypool
