// wakeups_test.cpp - the ring of posts, and which changes of a meter are posted.
#include "core/quota/wakeups.h"

#include <gtest/gtest.h>

#include "core/quota/look.h"
#include "core/quota/turn.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;
constexpr PeriodEnds kEnds = {1767268800 + 86400, 1767268800 + 30 * 86400};

KeyId IdOf(uint8_t number) {
  KeyId id = {};
  id.bytes[0] = number;
  return id;
}

TEST(Wakeups, ARingGivesWhatWasPostedSince) {
  RingOf<4> ring = {};
  uint64_t seen = 0;
  KeyId posts[4];
  bool lost;
  for (uint8_t i = 0; i < 3; ++i) PostMeter(&ring, IdOf(i));
  EXPECT_EQ(ReadPosts(ring, &seen, posts, &lost), 3u);
  EXPECT_FALSE(lost);
  EXPECT_EQ(posts[2], IdOf(2));
  for (uint8_t i = 3; i < 7; ++i) PostMeter(&ring, IdOf(i));
  EXPECT_EQ(ReadPosts(ring, &seen, posts, &lost), 4u);
  EXPECT_FALSE(lost);
  EXPECT_EQ(posts[0], IdOf(3));
  EXPECT_EQ(posts[3], IdOf(6));
  EXPECT_EQ(ReadPosts(ring, &seen, posts, &lost), 0u);
}

TEST(Wakeups, ARingSaysWhenPostsAreLost) {
  RingOf<4> ring = {};
  uint64_t seen = 0;
  KeyId posts[4];
  bool lost;
  for (uint8_t i = 0; i < 5; ++i) PostMeter(&ring, IdOf(i));
  EXPECT_EQ(ReadPosts(ring, &seen, posts, &lost), 0u);
  EXPECT_TRUE(lost);
  EXPECT_EQ(seen, 5u);
}

Limits LimitOf(Limit limit, int64_t max) {
  Limits limits;
  limits.of(limit) = max;
  return limits;
}

// A meter that one call was selected from, awaited for these limits; whether settling the call as so many tokens eases
// it.
bool SettlingEases(const Limits &limits, int64_t tokens, bool awaited = true) {
  Meter meter = FreshMeter(kSecondSlots, 600);
  Reservation call = {SecondOf(kStart), 0, {100, 0, 0, 0}};
  call.sequence = Reserve(&meter, {}, call.estimates, true, 1, kStart);
  if (awaited) meter.reserved.awaited |= AwaitedFor(limits);
  WatchedChange change = BeginChange(meter, {});
  MeterEdit edit(&meter);
  EXPECT_EQ(SettleOnce(&edit, call, kStart), Settled::kNow);
  Count(&edit, {}, {tokens, 0, 0, 0}, call.second, kEnds, kStart);
  bool eased = EndChange(change, &meter, {});
  EXPECT_EQ(meter.reserved.awaited != 0, awaited && !eased);
  return eased;
}

TEST(Wakeups, ASettlingBelowTheEstimateEasesAMeterThatIsAwaited) {
  EXPECT_TRUE(SettlingEases(LimitOf(Limit::kTpm, 1000), 99));
  EXPECT_FALSE(SettlingEases(LimitOf(Limit::kTpm, 1000), 100));
  EXPECT_FALSE(SettlingEases(LimitOf(Limit::kTpm, 1000), 99, false));
}

TEST(Wakeups, EverySettlingEasesAMeterThatIsAwaitedForCalls) {
  EXPECT_TRUE(SettlingEases(LimitOf(Limit::kInFlight, 1), 100));
}

// The wall clock may step back, and what others remember lies ahead of it then.
TEST(Wakeups, AChangeThatMovesTheMetersClockEasesIt) {
  Meter meter = FreshMeter(kSecondSlots, 600);
  Reserve(&meter, {}, {100, 0, 0, 0}, true, 1, kStart);
  meter.reserved.awaited = kAwaited;
  const Meter *meters[] = {&meter};
  Limits limits = LimitOf(Limit::kTpm, 1000);
  const Limits *asked[] = {&limits};
  Look look;
  LookAt(meters, asked, 1, {{{10, 0, 0, 0}, 0, kStart}, IdOf(1), 1, true, kTurnUnit}, &look);
  EXPECT_FALSE(look.tells);
  TimeUs later = kStart + 61 * kMicrosPerSecond;
  LookAt(meters, asked, 1, {{{10, 0, 0, 0}, 0, later}, IdOf(1), 1, true, kTurnUnit}, &look);
  EXPECT_TRUE(look.tells);
  WatchedChange change = BeginChange(meter, {});
  Reserve(&meter, {}, {10, 0, 0, 0}, true, 2, later);
  EXPECT_TRUE(EndChange(change, &meter, {}));
}

TEST(Look, SpeaksOfRequestsThatAreAsLargeInEverything) {
  Meter meter = FreshMeter(kSecondSlots, 600);
  Reserve(&meter, {}, {500, 400, 0, 0}, true, 1, kStart);
  const Meter *meters[] = {&meter};
  Limits limits = LimitOf(Limit::kOutputTpm, 500);
  const Limits *asked[] = {&limits};
  Look look;
  LookAt(meters, asked, 1, {{{1000, 200, 0, 60}, 0, kStart}, IdOf(1), 1, true, kTurnUnit}, &look);
  ASSERT_TRUE(look.refused());
  const KnownWait &known = look.meters[0].known;
  EXPECT_EQ(known.wait.tokens, 501u);  // which has 101 tokens of output
  EXPECT_EQ(known.output, 101u);
  EXPECT_EQ(known.cost, 31);
  EXPECT_FALSE(known.busy);
  EXPECT_EQ(look.meters[0].asked, 1000u);
}

}  // namespace
}  // namespace keypool
