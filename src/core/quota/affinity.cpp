// affinity.cpp - which keys a conversation prefers.
#include "core/quota/affinity.h"

#include <cassert>
#include <cmath>

#include "core/quota/mix.h"

namespace keypool {

uint64_t AffinityHash(std::string_view affinity) noexcept { return HashOfText(affinity); }

AffinityWalk::AffinityWalk(const AffinityKey *keys, uint32_t count, uint64_t affinity) noexcept
    : keys_(keys), count_(count), affinity_(affinity) {
  if (count > 0) priority_ = RangeAt(0, false);
}

AffinityWalk::Rank AffinityWalk::RankOf(uint32_t index) const noexcept {
  assert(keys_[index].weight >= 1);
  uint64_t bits = MixBits(affinity_ ^ keys_[index].hash) >> 11;
  double u = (static_cast<double>(bits) + 0.5) * 0x1p-53;
  return {-keys_[index].weight / std::log(u), index};
}

// The keys of one priority, or of one account of it, from the first on.
AffinityWalk::Range AffinityWalk::RangeAt(uint32_t first, bool of_account) const noexcept {
  uint32_t end = first;
  while (end < count_ && keys_[end].priority == keys_[first].priority &&
         (!of_account || keys_[end].account == keys_[first].account))
    ++end;
  return {first, end};
}

// Of the accounts of this priority whose best key comes after that of the last one, the first; else of the next
// priority.
bool AffinityWalk::EnterNextAccount() noexcept {
  for (; priority_.first < priority_.end; priority_ = RangeAt(priority_.end, false), best_of_account_ = kBeforeAll) {
    bool found = false;
    Rank first = {};
    for (uint32_t at = priority_.first; at < priority_.end; at = RangeAt(at, true).end) {
      Range account = RangeAt(at, true);
      Rank best = RankOf(at);
      for (uint32_t i = at + 1; i < account.end; ++i)
        if (RankOf(i).IsBefore(best)) best = RankOf(i);
      if (!best_of_account_.IsBefore(best) || (found && !best.IsBefore(first))) continue;
      found = true;
      first = best;
      account_ = account;
    }
    if (!found) continue;
    best_of_account_ = first;
    last_ = kBeforeAll;
    return true;
  }
  return false;
}

bool AffinityWalk::Next(uint32_t *candidate) noexcept {
  for (;;) {
    bool found = false;
    Rank next = {};
    for (uint32_t i = account_.first; i < account_.end; ++i) {
      Rank rank = RankOf(i);
      if (!last_.IsBefore(rank) || (found && !rank.IsBefore(next))) continue;
      found = true;
      next = rank;
    }
    if (found) {
      last_ = next;
      *candidate = keys_[next.index].candidate;
      return true;
    }
    if (!EnterNextAccount()) return false;
  }
}

}  // namespace keypool
