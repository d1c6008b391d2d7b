// selection_order.h - which key of a pool is next: lowest priority, then turn, then id, of the keys that may serve.
//
// Keys under the same quotas form a group. A key that is full, cooling or busy waits in its group; a quota that is
// takes its groups out with one step for each group, and brings them back likewise.
//
// Two things lie in meters, which every process changes, and are remembered here as lower bounds:
//
//   where a key stands      The standing turn (turn.h). It only grows: with the key's turn, and with the newest turn
//   seen. when a meter serves     A change that brings this moment forward is told to every process (wakeups.h), by
//   meter.
//
// So the first key by what is remembered is looked at: if its meters say later, correct that and look at what is first
// now; if not, no other key is before it. When no key may serve, the same holds for moments: that of a key is the
// latest over its meters, and the earliest of all keys is found, and is exact if a look at that key says the same.
//
// What is remembered of a meter is for requests of at least some size in each of tokens, output and cost: smaller ones
// it may serve. Whatever is for one walk only ends with the next Begin.
//
// Invariants (IsConsistent):
//   1. The places of a group are side by side. The first `serving` are a heap by (priority, standing, id); the last
//      `waiting`, read from the end, are a heap by (moment, cooling first); between them are keys set aside for one
//      walk.
//   2. The keys of a group's places are its keys, between any two calls: an interrupted walk loses no key.
//   3. A group is in the heap of serving groups, by its best key, if none of its quotas waits and a key of it serves.
//   4. A group is in the heap of moments, by the earliest moment at which it may serve more than now, if there is one.
//   5. position[k] is where key k is among those of its group that wait, and means nothing if it does not.
//
// A place holds what its heap compares, and has four children, side by side: in a large pool, what is not in the
// processor's caches is what costs.
//
// Owns nothing: candidates and block belong to the caller, and outlive this.
#pragma once

#include <cstddef>

#include "core/key_id.h"
#include "core/quota/admission.h"

namespace keypool {

inline constexpr int kQuotasOfKey = 3;
inline constexpr uint32_t kNoIndex = UINT32_MAX;  // no key, no quota, no group

// What is remembered of a meter that refused: a request of at least wait.tokens (as the meter counts), and `output` and
// `cost`, is refused until wait.moment, if nobody posts the meter.
struct KnownWait {
  Wait wait;
  uint32_t output;
  bool busy;           // somebody may come back earlier: only the calls in flight of others are in the way
  bool for_this_walk;  // nobody would tell when it eases
  int64_t cost;
};

struct Candidate {
  KeyId id;
  int64_t standing;  // as last seen; while it serves, its place knows better
  KnownWait known;   // of keys that wait only
  int32_t priority;
  uint32_t group;  // see GroupCandidates
};
static_assert(sizeof(Candidate) == 64);  // one line of the processor's caches

// The quotas of a key by their index, rising, kNoIndex behind the last.
struct KeyQuotas {
  uint32_t quota[kQuotasOfKey];

  friend bool operator==(const KeyQuotas &, const KeyQuotas &) = default;
  friend auto operator<=>(const KeyQuotas &, const KeyQuotas &) = default;
};

// A key or a group in its heap.
struct OrderPlace {
  int64_t rank;  // standing, or moment
  int32_t tier;  // priority; or 0 if it cools and 1 if not
  uint32_t key;  // in the heap of moments: the group
};

// Sets `group` of each candidate; returns how many groups there are. `scratch` holds `count`.
uint32_t GroupCandidates(const KeyQuotas *quotas, Candidate *candidates, uint32_t *scratch, uint32_t count) noexcept;

struct OrderSize {
  uint32_t keys;
  uint32_t groups;
  uint32_t quotas;
};

class SelectionOrder {
 public:
  // The size of the block that an order needs, aligned as int64_t is.
  static size_t BlockBytes(const OrderSize &size) noexcept;

  SelectionOrder() = default;

  // All candidates may serve. `quotas` of each candidate, and `rules`, of each quota, are needed now only.
  SelectionOrder(const OrderSize &size, Candidate *candidates, const KeyQuotas *quotas, const CountRule *rules,
                 void *block) noexcept;

  // Begins a walk for a request: brings back what was set aside, what was remembered for one walk, what waits no longer
  // at this time, and what waits for larger requests only. If the clock has stepped back since the last walk, brings
  // back all: a key whose cooldown was over while its window was full cools again, to the same moment.
  void Begin(const Amounts &amounts, TimeUs now) noexcept;

  // Whether no key may serve; if any may, the first of them.
  bool empty() const { return serving_groups_ == 0; }
  uint32_t Top() const { return serving_[0].best.key; }
  int64_t TopStanding() const { return serving_[0].best.rank; }

  // The top stands later than remembered: notes it and finds its place.
  void CorrectTop(int64_t standing) noexcept;

  // Leaves the top out until the next walk.
  void SetTopAside() noexcept;

  // The top cannot serve: leaves it out until that is over.
  void LetTopWait(const KnownWait &known) noexcept;

  // A quota cannot serve this request: leaves its groups out until that is over; or, never, until the next walk.
  void LetQuotaWait(uint32_t quota, const KnownWait &known) noexcept;
  void SetQuotaAside(uint32_t quota) noexcept;

  // Whether anything is remembered that others must tell of.
  bool remembers() const { return remembered_ > 0; }

  // The earliest moment at which more may serve than now, by what is remembered.
  TimeUs NextMoment() const { return moments_count_ == 0 ? kNever : moments_[0].rank; }
  static constexpr TimeUs kNever = INT64_MAX;

  // For when no key may serve. Whether any waits; if so, the one that can serve first, at NextMoment().
  bool waiting() const { return moments_count_ > 0; }
  uint32_t FirstWaiting() const noexcept;
  bool FirstCools() const { return moments_[0].tier == 0; }

  // That key itself refuses: notes until when. It does not: its quotas alone are in the way. Or leaves it out until the
  // next walk.
  void LetFirstWait(const KnownWait &known) noexcept;
  void WakeFirst() noexcept;
  void SetFirstAside() noexcept;

  // A key, or the keys of a quota, need not wait any longer; nothing if they do not.
  void Wake(uint32_t key) noexcept;
  void WakeQuota(uint32_t quota) noexcept;
  void WakeAll() noexcept;

  // What is remembered of a key or a quota: null if nothing is.
  const KnownWait *KnownOf(uint32_t key) const noexcept;
  const KnownWait *KnownOfQuota(uint32_t quota) const noexcept;

  // Whether what is remembered of a quota holds for the request of this walk.
  bool QuotaWaits(uint32_t quota) const noexcept;

  // A key that waits only for the calls in flight of others, be it its own or those of a quota; kNoIndex if there is
  // none.
  uint32_t BusyKey() noexcept;

  // The quotas of a key: kQuotasOfKey of them, kNoIndex behind the last.
  const uint32_t *QuotasOf(uint32_t key) const { return groups_[candidates_[key].group].quota; }

  // Looks at everything: for tests.
  bool IsConsistent() const noexcept;

 private:
  struct Size {
    int64_t tokens;
    int64_t output;
    int64_t cost;
  };

  struct Group {
    OrderPlace *places;
    uint32_t count;
    uint32_t serving;
    uint32_t waiting;
    uint32_t busy;      // of those that wait
    uint32_t busy_key;  // the one that was seen last
    uint32_t quota[kQuotasOfKey];
    TimeUs until;         // the latest moment of its quotas that wait; kNever if one is set aside; 0: none does
    bool until_cools;     // at that moment a cooldown ends
    bool untidy;          // it has keys that were set aside, or wait for this walk only
    uint32_t serving_at;  // where it is in the heap of serving groups, or kNoIndex
    uint32_t moment_at;   // where it is in the heap of moments, or kNoIndex
    Size most;            // no key of it waits for larger requests only than these
  };

  struct ServingGroup {
    OrderPlace best;
    uint32_t group;
    uint32_t unused;
  };

  struct BusyKeyAt {
    TimeUs until;
    uint32_t key;
  };

  struct Quota {
    KnownWait known;  // moment 0: nothing
    CountRule rule;
    uint32_t *groups;  // those under it
    uint32_t group_count;
    bool applies;  // what is known holds for the request of this walk
    bool aside;
    bool watched;  // the next Begin must look at it
  };

  struct ServingKeys;
  struct WaitingKeys;
  struct ServingGroups;
  struct Moments;

  size_t LayOut(const OrderSize &size, void *block) noexcept;
  void FillGroups(const KeyQuotas *quotas) noexcept;
  void FillQuotas(const CountRule *rules) noexcept;
  bool IsConsistent(const Group &group) const noexcept;

  bool ServesBefore(const OrderPlace &a, const OrderPlace &b) const noexcept;
  uint32_t FirstOf(const Group &group) const noexcept;
  bool IsWaiting(uint32_t key) const noexcept;
  Group &GroupOf(uint32_t key) const { return groups_[candidates_[key].group]; }
  Group &TopGroup() const { return groups_[serving_[0].group]; }
  Group &FirstGroup() const { return groups_[moments_[0].key]; }

  // Within one group; Refresh must follow.
  void ServeAgain(Group *group, uint32_t at) noexcept;
  void TakeServing(Group *group) noexcept;
  void TakeWaiting(Group *group, uint32_t at) noexcept;
  void AddWaiting(Group *group, const KnownWait &known) noexcept;
  void SetFirstWait(Group *group, const KnownWait &known) noexcept;
  void MarkUntidy(Group *group) noexcept;
  template <typename Condition>
  void WakeIf(Group *group, Condition condition) noexcept;

  // Puts a group where it belongs after its keys or quotas changed.
  void Refresh(Group *group) noexcept;
  void RefreshUntil(Group *group) noexcept;
  void PlaceServing(Group *group) noexcept;
  void RemoveServing(Group *group) noexcept;
  void PlaceMoment(Group *group) noexcept;
  void RemoveMoment(Group *group) noexcept;
  void RefreshGroups(const Quota &quota) noexcept;

  // Parts of Begin.
  void Review(bool all) noexcept;
  void TidyGroups() noexcept;
  void ReviewQuotas() noexcept;
  bool Review(Quota *quota) noexcept;
  void PassMoment(Group *group) noexcept;
  void WakeWhatWaitsForMore() noexcept;

  void Watch(Quota *quota) noexcept;
  void Forget(Quota *quota) noexcept;
  void NoteKnown(const KnownWait &known, int change) noexcept;
  static Size SizeOf(const KnownWait &known) { return {known.wait.tokens, known.output, known.cost}; }
  static bool Covers(const Size &asked, const Size &known) noexcept {
    return asked.tokens >= known.tokens && asked.output >= known.output && asked.cost >= known.cost;
  }
  static void Raise(Size *most, const Size &size) noexcept;
  Size Asked() const { return {amounts_.tokens, amounts_.output, amounts_.cost}; }  // of keys
  Size AskedOf(const Quota &quota) const noexcept;
  BusyKeyAt BusyKeyOf(Group *group) const noexcept;

  Candidate *candidates_ = nullptr;
  uint32_t *position_ = nullptr;
  Group *groups_ = nullptr;
  ServingGroup *serving_ = nullptr;
  OrderPlace *moments_ = nullptr;
  Quota *quotas_ = nullptr;
  uint32_t *untidy_ = nullptr;   // groups
  uint32_t *watched_ = nullptr;  // quotas
  OrderPlace *places_ = nullptr;
  uint32_t *quota_groups_ = nullptr;
  OrderSize size_ = {};
  uint32_t serving_groups_ = 0;
  uint32_t moments_count_ = 0;
  uint32_t untidy_count_ = 0;
  uint32_t watched_count_ = 0;
  uint32_t remembered_ = 0;  // keys and quotas that wait
  uint32_t busy_ = 0;        // those of them that are busy
  uint32_t busy_group_ = 0;  // where to look for one first
  Amounts amounts_ = {};
  Size most_ = {};       // no key waits for larger requests only than these
  TimeUs begun_at_ = 0;  // the time of the last walk
};

}  // namespace keypool
