// selection_order_test.cpp - the heaps find what a full sort would find.
#include "core/selection_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

namespace keypool {
namespace {

std::vector<Candidate> RandomCandidates(std::mt19937 *random, uint32_t count) {
  std::vector<Candidate> candidates(count);
  for (uint32_t i = 0; i < count; ++i) {
    candidates[i].id.bytes[15] = static_cast<uint8_t>(i);
    candidates[i].id.bytes[14] = static_cast<uint8_t>(i >> 8);
    candidates[i].priority = static_cast<int32_t>((*random)() % 3);
    candidates[i].last_grant = (*random)() % 5;
  }
  std::shuffle(candidates.begin(), candidates.end(), *random);
  return candidates;
}

// Candidates with the arrays that their order needs.
struct Pool {
  explicit Pool(std::vector<Candidate> keys)
      : candidates(std::move(keys)),
        space(candidates.size()),
        position(candidates.size()),
        order(candidates.data(), space.data(), position.data(), static_cast<uint32_t>(candidates.size())) {}

  std::vector<Candidate> candidates;
  std::vector<OrderPlace> space;
  std::vector<uint32_t> position;
  SelectionOrder order;
};

// The same by looking at every key.
struct PlainOrder {
  enum class Place { kServing, kAside, kWaiting };

  explicit PlainOrder(const Pool &pool) : keys(pool.candidates), places(pool.candidates.size(), Place::kServing) {}

  template <typename Before>
  int First(Place place, Before before) const {
    int first = -1;
    for (int i = 0; i < static_cast<int>(keys.size()); ++i)
      if (places[i] == place && (first < 0 || before(keys[i], keys[first]))) first = i;
    return first;
  }
  int Top() const {
    return First(Place::kServing, [](const Candidate &a, const Candidate &b) {
      return std::tuple(a.priority, a.last_grant, std::vector(a.id.bytes, a.id.bytes + 16)) <
             std::tuple(b.priority, b.last_grant, std::vector(b.id.bytes, b.id.bytes + 16));
    });
  }
  // Of several that end together, any.
  int FirstWaiting() const {
    return First(Place::kWaiting, [](const Candidate &a, const Candidate &b) {
      return std::tuple(a.wait.moment, !a.wait.cooling) < std::tuple(b.wait.moment, !b.wait.cooling);
    });
  }
  void Begin(int64_t tokens, TimeUs now) {
    for (size_t i = 0; i < keys.size(); ++i)
      if (places[i] == Place::kAside || keys[i].wait.moment <= now || keys[i].wait.tokens > tokens || now < begun_at)
        places[i] = Place::kServing;
    begun_at = now;
  }

  std::vector<Candidate> keys;
  std::vector<Place> places;
  TimeUs begun_at = 0;
};

void ExpectSame(const Pool &pool, const PlainOrder &plain) {
  ASSERT_EQ(pool.order.empty(), plain.Top() < 0);
  if (!pool.order.empty()) {
    ASSERT_EQ(pool.order.Top(), static_cast<uint32_t>(plain.Top()));
    ASSERT_EQ(pool.order.TopGrant(), plain.keys[plain.Top()].last_grant);
  }
  ASSERT_EQ(pool.order.waiting(), plain.FirstWaiting() >= 0);
  if (!pool.order.waiting()) return;
  const Wait &first = plain.keys[plain.FirstWaiting()].wait;
  const Wait &found = plain.keys[pool.order.FirstWaiting()].wait;
  ASSERT_EQ(pool.order.FirstMoment(), first.moment);
  ASSERT_EQ(found.moment, first.moment);
  ASSERT_EQ(found.cooling, first.cooling);
}

TEST(SelectionOrder, AlwaysFindsTheFirst) {
  using Place = PlainOrder::Place;
  std::mt19937 random(5);
  for (uint32_t count : {1u, 2u, 3u, 10u, 100u}) {
    Pool pool(RandomCandidates(&random, count));
    PlainOrder plain(pool);
    TimeUs now = 1000;
    auto random_wait = [&] {
      return Wait{now + 1 + static_cast<TimeUs>(random() % 30), static_cast<uint32_t>(random() % 4), random() % 2 == 0};
    };
    for (int step = 0; step < 20000; ++step) {
      int64_t tokens = random() % 4;
      uint32_t key = random() % count;
      switch (random() % 8) {
        case 0:
          now += random() % 10 == 0 ? -1 : static_cast<TimeUs>(random() % 3);
          pool.order.Begin(tokens, now);
          plain.Begin(tokens, now);
          break;
        case 1:
          pool.order.Wake(key);
          if (plain.places[key] == Place::kWaiting) plain.places[key] = Place::kServing;
          break;
        case 2:
          if (random() % 50 != 0) break;
          pool.order.WakeAll();
          std::replace(plain.places.begin(), plain.places.end(), Place::kWaiting, Place::kServing);
          std::replace(plain.places.begin(), plain.places.end(), Place::kAside, Place::kServing);
          break;
        case 3:
          if (!pool.order.waiting()) break;
          key = pool.order.FirstWaiting();
          plain.keys[key].wait = random_wait();
          pool.order.CorrectFirstWaiting(plain.keys[key].wait);
          break;
        case 4:
          if (pool.order.empty()) break;
          plain.places[plain.Top()] = Place::kAside;
          pool.order.SetTopAside();
          break;
        case 5:
        case 6:
          if (pool.order.empty()) break;
          key = static_cast<uint32_t>(plain.Top());
          plain.places[key] = Place::kWaiting;
          plain.keys[key].wait = random_wait();
          pool.order.LetTopWait(plain.keys[key].wait);
          break;
        default:
          if (pool.order.empty()) break;
          key = static_cast<uint32_t>(plain.Top());
          plain.keys[key].last_grant += random() % 20;
          pool.order.CorrectTop(plain.keys[key].last_grant);
      }
      ASSERT_NO_FATAL_FAILURE(ExpectSame(pool, plain)) << "step " << step << " with " << count;
    }
  }
}

TEST(SelectionOrder, OfNothingIsEmpty) {
  Pool pool({});
  EXPECT_TRUE(pool.order.empty());
  EXPECT_FALSE(pool.order.waiting());
  pool.order.Begin(0, 0);
  pool.order.WakeAll();
  EXPECT_TRUE(pool.order.empty());
}

TEST(SelectionOrder, LosesNoKeyWhenAWalkIsInterrupted) {
  std::mt19937 random(6);
  Pool pool(RandomCandidates(&random, 20));
  for (int i = 0; i < 4; ++i) pool.order.SetTopAside();
  for (int i = 0; i < 3; ++i) pool.order.LetTopWait({100, 0, false});
  pool.order.Begin(0, 100);
  std::vector<bool> seen(20);
  for (; !pool.order.empty(); pool.order.SetTopAside()) seen[pool.order.Top()] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 20);
}

}  // namespace
}  // namespace keypool
