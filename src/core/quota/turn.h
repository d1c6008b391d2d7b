// turn.h - whose turn is next among keys of one priority.
//
// The key with the smallest turn is next. A selection moves its turn on by kTurnUnit / weight, so that a key of weight
// w comes w times as often, spread evenly. Turns owe nothing to the clock. `newest` is the largest turn that the
// session has seen in the pool: a key that is behind newest - kTurnUnit (it was off, full, or is new) starts there,
// plus less than a step, which its turn decides, or its id if it never had one, and so gets no backlog. Turns are
// positive; any other number, as a crash may leave one, counts as none.
#pragma once

#include <cstdint>

#include "core/key_id.h"

namespace keypool {

inline constexpr int64_t kTurnUnit = 720720;  // divided by every number to 16 and by most small ones
inline constexpr int32_t kMaxWeight = 1000;

// Where a key stands among others: its turn, or where it starts. For the same weight it only grows, with the newest
// turn and by any selection, also of a session for which `newest` is less.
int64_t StandingTurn(int64_t turn, int64_t newest, const KeyId &id, int32_t weight) noexcept;

// Its turn after a selection.
int64_t NextTurn(int64_t turn, int64_t newest, const KeyId &id, int32_t weight) noexcept;

}  // namespace keypool
