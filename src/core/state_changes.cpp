// state_changes.cpp - which bytes of a key's state a change has changed.
#include "core/state_changes.h"

#include <algorithm>
#include <cstring>

namespace keypool {

namespace {

constexpr int kWordBytes = sizeof(uint64_t);
constexpr int kWords = sizeof(KeyState) / kWordBytes;
constexpr int kBlockWords = 8;
static_assert(sizeof(KeyState) % kWordBytes == 0);

// Both states as bytes.
struct Pair {
  const char *before;
  const char *after;

  bool WordDiffers(int word) const {
    uint64_t was, is;
    memcpy(&was, before + word * kWordBytes, kWordBytes);
    memcpy(&is, after + word * kWordBytes, kWordBytes);
    return was != is;
  }
  // Whether the next words, some 64 bytes, are the same: most are.
  bool BlockIsSame(int word) const {
    int words = std::min(kBlockWords, kWords - word);
    return memcmp(before + word * kWordBytes, after + word * kWordBytes, words * kWordBytes) == 0;
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
  for (int word = 0; word < kWords;) {
    if (word % kBlockWords == 0 && states.BlockIsSame(word)) {
      word += kBlockWords;
      continue;
    }
    int from = word;
    while (word < kWords && states.WordDiffers(word)) ++word;
    if (word > from) out[count++] = Trimmed(states, from, word);
    ++word;  // which is the same, or the end
  }
  return count;
}

}  // namespace keypool
