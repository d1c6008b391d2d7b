// state_changes.cpp - which bytes of a key's state a change has changed.
#include "core/state_changes.h"

#include <cstring>

namespace keypool {

namespace {

constexpr int kWordBytes = sizeof(uint64_t);
constexpr int kWords = sizeof(KeyState) / kWordBytes;
static_assert(sizeof(KeyState) % kWordBytes == 0);

// Both states as bytes.
struct Pair {
  const char *before;
  const char *after;

  bool WordDiffers(int word) const {
    return memcmp(before + word * kWordBytes, after + word * kWordBytes, kWordBytes) != 0;
  }
  bool ByteDiffers(int byte) const { return before[byte] != after[byte]; }
};

// The words from..end, all of which differ, without what is the same at both ends.
ChangedBytes Trimmed(const Pair &states, int from, int end) {
  int first = from * kWordBytes;
  int last = end * kWordBytes - 1;
  while (!states.ByteDiffers(first)) ++first;
  while (!states.ByteDiffers(last)) --last;
  return {static_cast<uint16_t>(first), static_cast<uint16_t>(last - first + 1)};
}

}  // namespace

int FindChanges(const KeyState &before, const KeyState &after, ChangedBytes (&out)[kMaxChanges]) noexcept {
  Pair states = {reinterpret_cast<const char *>(&before), reinterpret_cast<const char *>(&after)};
  int count = 0;
  for (int word = 0; word < kWords; ++word) {
    if (!states.WordDiffers(word)) continue;
    int from = word;
    while (word < kWords && states.WordDiffers(word)) ++word;
    out[count++] = Trimmed(states, from, word);
  }
  return count;
}

}  // namespace keypool
