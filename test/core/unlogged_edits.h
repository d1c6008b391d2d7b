// unlogged_edits.h - changing a state without asking what changed, as most tests do.
#pragma once

#include "core/window.h"

namespace keypool {

inline bool Release(KeyState *state, const Reservation &reservation, TimeUs now) {
  StateEdit edit(state);
  return Release(&edit, reservation, now);
}

inline void Record(KeyState *state, const Reservation *reservation, int64_t tokens, TimeUs now) {
  StateEdit edit(state);
  Record(&edit, reservation, tokens, now);
}

inline TimeUs Mark429(KeyState *state, const Reservation *reservation, int64_t seconds, TimeUs now) {
  StateEdit edit(state);
  return Mark429(&edit, reservation, seconds, now);
}

inline void ClearCooldown(KeyState *state) {
  StateEdit edit(state);
  ClearCooldown(&edit);
}

}  // namespace keypool
