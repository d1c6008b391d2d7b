// state_changes.h - which bytes of a key's state a change has changed.
#pragma once

#include "core/key_state.h"

namespace keypool {

// Bytes of a state, from `offset` on.
struct ChangedBytes {
  uint16_t offset;
  uint16_t length;
};

// Two pieces are at least a word apart.
inline constexpr int kMaxChanges = sizeof(KeyState) / 16 + 1;

// Finds the pieces in which two states differ, in order; returns how many. Bytes between two that differ may be in a
// piece though they do not.
int FindChanges(const KeyState &before, const KeyState &after, ChangedBytes (&out)[kMaxChanges]) noexcept;

}  // namespace keypool
