// turn.cpp - whose turn is next among keys of one priority.
#include "core/quota/turn.h"

#include <algorithm>
#include <cassert>

#include "core/quota/mix.h"

namespace keypool {

namespace {

// A turn is a hint: what a crash tore is taken for none. A real one stays below this for centuries.
constexpr int64_t kMaxTurn = int64_t{1} << 62;

bool IsTurn(int64_t turn) { return turn > 0 && turn < kMaxTurn; }

}  // namespace

// A key's turns are equal modulo its step, to its first one, which its hash decides. So where it starts stays the same
// while the newest turn grows by less than its step, is nowhere that a session which has seen less would already have
// passed, and those that wait for their first turn do not fall behind those that had theirs.
int64_t StandingTurn(int64_t turn, int64_t newest, const KeyId &id, int32_t weight) noexcept {
  assert(weight >= 1 && weight <= kMaxWeight);
  int64_t earliest = IsTurn(newest) ? std::max<int64_t>(newest - kTurnUnit, 0) : 0;
  if (IsTurn(turn) && turn >= earliest) return turn;
  int64_t step = kTurnUnit / weight;
  uint64_t first = IsTurn(turn) ? static_cast<uint64_t>(turn) : HashOfId(id);
  auto offset = static_cast<int64_t>(first % static_cast<uint64_t>(step));
  return earliest + (offset + step - earliest % step) % step;
}

int64_t NextTurn(int64_t turn, int64_t newest, const KeyId &id, int32_t weight) noexcept {
  int64_t next = StandingTurn(turn, newest, id, weight) + kTurnUnit / weight;
  assert(next > turn || !IsTurn(turn));
  return next;
}

}  // namespace keypool
