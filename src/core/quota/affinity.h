// affinity.h - which keys a conversation prefers: weighted rendezvous hashing.
//
// Each key has a score, from a hash of its id with the conversation's; the key of the best priority with the largest
// score is the conversation's. Shares are in proportion to weights (the score is -weight / ln u, u uniform); a key that
// goes takes only its own conversations along, one that comes takes its share of all; and there is no table: every
// session finds the same. If that key cannot serve, the next one of its account is asked, since the provider's caches
// belong to accounts, and then the account of the next best key.
//
// Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); Schindelhauer and
// Schomaker, "Weighted distributed hash tables" (2005).
#pragma once

#include <cstdint>
#include <string_view>

namespace keypool {

struct AffinityKey {
  uint32_t candidate;  // what it is called
  int32_t priority;
  uint32_t account;  // a number for each account; keys without one have a number each
  int32_t weight;
  uint64_t hash;  // of its id
};

uint64_t AffinityHash(std::string_view affinity) noexcept;

// Names keys in the order in which they are to be asked. Each answer takes a walk over the keys of a priority.
class AffinityWalk {
 public:
  // Sorted by priority, then account. They outlive this.
  AffinityWalk(const AffinityKey *keys, uint32_t count, uint64_t affinity) noexcept;

  // The next candidate; false after the last.
  bool Next(uint32_t *candidate) noexcept;

 private:
  struct Rank {
    double score;
    uint32_t index;

    bool IsBefore(const Rank &other) const { return score != other.score ? score > other.score : index < other.index; }
  };
  struct Range {
    uint32_t first, end;
  };

  static constexpr Rank kBeforeAll = {__builtin_inf(), 0};

  Rank RankOf(uint32_t index) const noexcept;
  Range RangeAt(uint32_t first, bool of_account) const noexcept;
  bool EnterNextAccount() noexcept;

  const AffinityKey *keys_;
  uint32_t count_;
  uint64_t affinity_;
  Range priority_ = {0, 0};
  Range account_ = {0, 0};
  Rank best_of_account_ = kBeforeAll;
  Rank last_ = kBeforeAll;
};

}  // namespace keypool
