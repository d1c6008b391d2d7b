// selection_order_test.cpp - the heaps of keys and groups find what looking at every key would find.
#include "core/quota/selection_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

namespace keypool {
namespace {

struct Shape {
  uint32_t keys;
  uint32_t quotas;
  int priorities = 3;
};

struct Pool {
  Pool(const Shape &shape, std::mt19937 *random)
      : candidates(shape.keys), quotas_of(shape.keys), rules(shape.quotas), scratch(shape.keys) {
    for (uint32_t i = 0; i < shape.keys; ++i) {
      candidates[i].id.bytes[14] = static_cast<uint8_t>(i >> 8);
      candidates[i].id.bytes[15] = static_cast<uint8_t>(i);
      candidates[i].priority = static_cast<int32_t>((*random)() % shape.priorities);
      candidates[i].standing = (*random)() % 5;
      std::fill_n(quotas_of[i].quota, kQuotasOfKey, kNoIndex);
      uint32_t count = 0;
      for (uint32_t quota = 0; quota < shape.quotas && count < kQuotasOfKey; ++quota)
        if ((*random)() % (shape.quotas + 1) < 2) quotas_of[i].quota[count++] = quota;
    }
    std::shuffle(candidates.begin(), candidates.end(), *random);
    for (CountRule &rule : rules) rule.counts = (*random)() % 2 == 0 ? Counts::kTokens : Counts::kPrompt;
    Build();
  }

  void Build() {
    uint32_t keys = static_cast<uint32_t>(candidates.size());
    size = {keys, GroupCandidates(quotas_of.data(), candidates.data(), scratch.data(), keys),
            static_cast<uint32_t>(rules.size())};
    block.resize(SelectionOrder::BlockBytes(size) / sizeof(int64_t));
    order = SelectionOrder(size, candidates.data(), quotas_of.data(), rules.data(), block.data());
  }

  std::vector<Candidate> candidates;
  std::vector<KeyQuotas> quotas_of;
  std::vector<CountRule> rules;
  std::vector<uint32_t> scratch;
  std::vector<int64_t> block;
  OrderSize size = {};
  SelectionOrder order;
};

// The same by looking at every key.
class PlainOrder {
 public:
  enum class Place { kServing, kAside, kWaiting };
  struct PlainQuota {
    KnownWait known = {};
    bool aside = false;
  };

  explicit PlainOrder(const Pool &from)
      : pool(from), keys(from.candidates), places(from.size.keys, Place::kServing), quotas(from.size.quotas) {}

  bool Covers(const KnownWait &known, int64_t tokens) const {
    return tokens >= known.wait.tokens && amounts.output >= known.output && amounts.cost >= known.cost;
  }
  // Until when the quotas of a key are in the way.
  TimeUs Until(uint32_t key) const {
    TimeUs until = 0;
    for (uint32_t index : pool.quotas_of[key].quota) {
      if (index == kNoIndex) continue;
      const PlainQuota &quota = quotas[index];
      if (quota.aside) return SelectionOrder::kNever;
      bool waits = quota.known.wait.moment > begun_at && Covers(quota.known, CountedTokens(amounts, pool.rules[index]));
      if (waits) until = std::max(until, quota.known.wait.moment);
    }
    return until;
  }
  int Top() const {
    int top = -1;
    for (int i = 0; i < static_cast<int>(keys.size()); ++i)
      if (places[i] == Place::kServing && Until(i) == 0 && (top < 0 || Rank(i) < Rank(top))) top = i;
    return top;
  }
  // When a key can serve that cannot now; kNever if it can or never will in this walk.
  TimeUs MomentOf(uint32_t key) const {
    TimeUs until = Until(key);
    bool waits = places[key] == Place::kWaiting;
    if (places[key] == Place::kAside || until == SelectionOrder::kNever) return SelectionOrder::kNever;
    if (!waits && until == 0) return SelectionOrder::kNever;
    return std::max(until, waits ? keys[key].known.wait.moment : 0);
  }
  TimeUs NextMoment() const {
    TimeUs next = SelectionOrder::kNever;
    for (uint32_t i = 0; i < keys.size(); ++i) next = std::min(next, MomentOf(i));
    return next;
  }
  bool AnyBusy() const {
    bool busy = false;
    for (const PlainQuota &quota : quotas) busy = busy || (quota.known.wait.moment > begun_at && quota.known.busy);
    for (uint32_t i = 0; i < keys.size(); ++i) busy = busy || (places[i] == Place::kWaiting && keys[i].known.busy);
    return busy;
  }

  void Begin(const Amounts &with, TimeUs now) {
    if (now < begun_at) WakeAll();
    amounts = with;
    begun_at = now;
    for (PlainQuota &quota : quotas) {
      quota.aside = false;
      if (quota.known.for_this_walk || quota.known.wait.moment <= now) quota.known = {};
    }
    for (uint32_t i = 0; i < keys.size(); ++i) {
      if (places[i] != Place::kWaiting) {
        places[i] = Place::kServing;
        continue;
      }
      const KnownWait &known = keys[i].known;
      bool over = known.wait.moment <= now && Until(i) == 0;
      if (over || known.for_this_walk || !Covers(known, amounts.tokens)) places[i] = Place::kServing;
    }
  }
  void WakeAll() {
    std::fill(places.begin(), places.end(), Place::kServing);
    std::fill(quotas.begin(), quotas.end(), PlainQuota{});
  }

  const Pool &pool;
  std::vector<Candidate> keys;
  std::vector<Place> places;
  std::vector<PlainQuota> quotas;
  Amounts amounts = {};
  TimeUs begun_at = 0;

 private:
  std::tuple<int32_t, int64_t, KeyId> Rank(int key) const {
    return {keys[key].priority, keys[key].standing, keys[key].id};
  }
};

void ExpectSame(const Pool &pool, const PlainOrder &plain) {
  const SelectionOrder &order = pool.order;
  ASSERT_TRUE(order.IsConsistent());
  int top = plain.Top();
  ASSERT_EQ(order.empty(), top < 0);
  if (top >= 0) {
    ASSERT_EQ(order.Top(), static_cast<uint32_t>(top));
    ASSERT_EQ(order.TopStanding(), plain.keys[top].standing);
  }
  ASSERT_EQ(order.NextMoment(), plain.NextMoment());
  if (order.empty() && order.waiting()) {
    ASSERT_EQ(plain.MomentOf(order.FirstWaiting()), order.NextMoment());
  }
  for (uint32_t i = 0; i < pool.size.keys; ++i)
    ASSERT_EQ(order.KnownOf(i) != nullptr, plain.places[i] == PlainOrder::Place::kWaiting);
}

// One random history of an order and its reference.
class History {
 public:
  using Place = PlainOrder::Place;

  History(const Shape &shape, unsigned seed) : random_(seed), pool_(shape, &random_), plain_(pool_) {}

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      if (pool_.order.empty() && pool_.order.waiting() && Any(2))
        ActOnFirst();
      else
        Act();
      ASSERT_NO_FATAL_FAILURE(ExpectSame(pool_, plain_)) << "step " << step << " with " << pool_.size.keys;
      ASSERT_EQ(pool_.order.BusyKey() != kNoIndex && !plain_.AnyBusy(), false);
    }
  }

 private:
  uint32_t Any(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  KnownWait RandomWait() {
    KnownWait known = {};
    const Amounts &asked = plain_.amounts;
    known.wait = {now_ + 1 + Any(30), Any(2) * Any(static_cast<uint32_t>(asked.tokens) + 1), Any(2) == 0};
    known.output = Any(4) == 0 ? Any(static_cast<uint32_t>(asked.output) + 1) : 0;
    known.cost = Any(4) == 0 ? Any(static_cast<uint32_t>(asked.cost) + 1) : 0;
    known.busy = Any(4) == 0;
    known.for_this_walk = Any(8) == 0;
    return known;
  }
  KnownWait RandomWaitOfQuota(uint32_t quota) {
    KnownWait known = RandomWait();
    known.wait.tokens =
        static_cast<uint32_t>(std::min<int64_t>(known.wait.tokens, CountedTokens(plain_.amounts, pool_.rules[quota])));
    return known;
  }

  void Begin() {
    now_ += Any(20) == 0 ? -1 : static_cast<TimeUs>(Any(4));
    Amounts amounts = {Any(4), 0, 0, Any(3)};
    amounts.output = Any(static_cast<uint32_t>(amounts.tokens) + 1);
    pool_.order.Begin(amounts, now_);
    plain_.Begin(amounts, now_);
  }

  void LetWait(uint32_t key, const KnownWait &known) {
    plain_.places[key] = Place::kWaiting;
    plain_.keys[key].known = known;
  }

  void Act() {
    uint32_t action = Any(12);
    if (action < 3) return Begin();
    if (action < 6) return ActOnQuota();
    if (action == 6) return Wake(Any(pool_.size.keys));
    if (action == 7 && Any(30) == 0) {
      pool_.order.WakeAll();
      plain_.WakeAll();
    }
    if (action >= 8 && !pool_.order.empty()) ActOnTop(action);
  }

  void ActOnTop(uint32_t action) {
    uint32_t top = static_cast<uint32_t>(plain_.Top());
    if (action == 8) {
      plain_.places[top] = Place::kAside;
      pool_.order.SetTopAside();
    } else if (action == 9) {
      plain_.keys[top].standing += Any(20);
      pool_.order.CorrectTop(plain_.keys[top].standing);
    } else {
      LetWait(top, RandomWait());
      pool_.order.LetTopWait(plain_.keys[top].known);
    }
  }

  void ActOnFirst() {
    uint32_t first = pool_.order.FirstWaiting();
    switch (Any(3)) {
      case 0:
        LetWait(first, RandomWait());
        return pool_.order.LetFirstWait(plain_.keys[first].known);
      case 1:
        if (plain_.places[first] == Place::kWaiting) plain_.places[first] = Place::kServing;
        return pool_.order.WakeFirst();
      default:
        plain_.places[first] = Place::kAside;
        return pool_.order.SetFirstAside();
    }
  }

  void ActOnQuota() {
    if (pool_.size.quotas == 0) return;
    uint32_t quota = Any(pool_.size.quotas);
    switch (Any(5)) {
      case 0:
        plain_.quotas[quota].aside = true;
        return pool_.order.SetQuotaAside(quota);
      case 1:
        plain_.quotas[quota].known = {};
        return pool_.order.WakeQuota(quota);
      default:
        plain_.quotas[quota].known = RandomWaitOfQuota(quota);
        return pool_.order.LetQuotaWait(quota, plain_.quotas[quota].known);
    }
  }

  void Wake(uint32_t key) {
    pool_.order.Wake(key);
    if (plain_.places[key] == Place::kWaiting) plain_.places[key] = Place::kServing;
  }

  std::mt19937 random_;
  Pool pool_;
  PlainOrder plain_;
  TimeUs now_ = 1000;
};

TEST(SelectionOrder, AlwaysFindsTheFirst) {
  for (Shape shape : {Shape{1, 0}, Shape{3, 0}, Shape{100, 0}, Shape{1, 1}, Shape{2, 1}, Shape{5, 2}, Shape{12, 3},
                      Shape{40, 5}, Shape{60, 12}, Shape{100, 2, 1}})
    for (unsigned seed = 1; seed <= 3; ++seed) {
      History history(shape, seed);
      ASSERT_NO_FATAL_FAILURE(history.Run(6000));
    }
}

TEST(SelectionOrder, OfNothingIsEmpty) {
  std::mt19937 random(1);
  Pool pool({0, 0}, &random);
  pool.order.Begin({}, 0);
  pool.order.WakeAll();
  EXPECT_TRUE(pool.order.empty());
  EXPECT_FALSE(pool.order.waiting());
  EXPECT_FALSE(pool.order.remembers());
  EXPECT_EQ(pool.order.BusyKey(), kNoIndex);
}

TEST(SelectionOrder, LosesNoKeyWhenAWalkIsInterrupted) {
  std::mt19937 random(6);
  Pool pool({20, 3}, &random);
  for (int i = 0; i < 4; ++i) pool.order.SetTopAside();
  for (int i = 0; i < 3; ++i) pool.order.LetTopWait({{100, 0, false}, 0, false, false, 0});
  pool.order.SetQuotaAside(0);
  pool.order.LetQuotaWait(1, {{100, 0, false}, 0, false, false, 0});
  pool.order.Begin({}, 100);
  std::vector<bool> seen(20);
  for (; !pool.order.empty(); pool.order.SetTopAside()) seen[pool.order.Top()] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 20);
}

TEST(SelectionOrder, GroupsKeysByTheirQuotas) {
  std::vector<KeyQuotas> quotas = {{{0, 1, kNoIndex}}, {{kNoIndex, kNoIndex, kNoIndex}}, {{0, 1, kNoIndex}},
                                   {{0, 2, kNoIndex}}, {{kNoIndex, kNoIndex, kNoIndex}}, {{0, kNoIndex, kNoIndex}}};
  std::vector<Candidate> candidates(6);
  std::vector<uint32_t> scratch(6);
  EXPECT_EQ(GroupCandidates(quotas.data(), candidates.data(), scratch.data(), 6), 4u);
  for (int i = 0; i < 6; ++i)
    for (int j = 0; j < 6; ++j) EXPECT_EQ(candidates[i].group == candidates[j].group, quotas[i] == quotas[j]);
}

// A quota that waits for large requests stays known while smaller ones are served.
TEST(SelectionOrder, KeepsWhatAQuotaWaitsForWhileSmallerRequestsPass) {
  std::mt19937 random(1);
  Pool pool({3, 1}, &random);
  for (KeyQuotas &quotas : pool.quotas_of) quotas = {{0, kNoIndex, kNoIndex}};
  pool.rules[0] = {};
  pool.Build();
  pool.order.Begin({50, 0, 0, 0}, 10);
  pool.order.LetQuotaWait(0, {{100, 30, false}, 0, false, false, 0});
  EXPECT_TRUE(pool.order.empty());
  pool.order.Begin({29, 0, 0, 0}, 11);
  EXPECT_FALSE(pool.order.empty());
  EXPECT_TRUE(pool.order.remembers());
  pool.order.Begin({30, 0, 0, 0}, 12);
  EXPECT_TRUE(pool.order.empty());
  EXPECT_EQ(pool.order.NextMoment(), 100);
  pool.order.Begin({30, 0, 0, 0}, 100);
  EXPECT_FALSE(pool.order.empty());
  EXPECT_FALSE(pool.order.remembers());
}

// What waits for its output is no obstacle for a request with as many tokens and less output.
TEST(SelectionOrder, ComparesRequestsInEachOfTheirAmounts) {
  std::mt19937 random(1);
  Pool pool({1, 0}, &random);
  pool.order.Begin({1000, 900, 0, 0}, 10);
  pool.order.LetTopWait({{100, 500, false}, 450, false, false, 0});
  pool.order.Begin({1000, 449, 0, 0}, 11);
  EXPECT_FALSE(pool.order.empty());
}

}  // namespace
}  // namespace keypool
