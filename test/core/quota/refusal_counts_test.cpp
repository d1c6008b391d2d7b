// refusal_counts_test.cpp - how often a provider had no key to give, and since when.
#include "core/quota/refusal_counts.h"

#include <gtest/gtest.h>

#include <map>

#include "meters.h"

namespace keypool {
namespace {

bool Refuse(RefusalCounts *counts, Refused why, uint32_t times, TimeUs now) {
  uint32_t refused[kRefused] = {};
  refused[static_cast<int>(why)] = times;
  return AddRefusals(counts, refused, now, now);
}

TEST(RefusalCounts, TellSinceWhenWithoutAPauseOfAMinute) {
  RefusalCounts counts = {};
  EXPECT_EQ(ShortSince(counts, At(0)), 0);
  EXPECT_TRUE(Refuse(&counts, Refused::kLimited, 1, At(1)));
  EXPECT_FALSE(Refuse(&counts, Refused::kBusy, 1, At(50)));
  EXPECT_FALSE(Refuse(&counts, Refused::kNoKey, 1, At(109)));
  EXPECT_EQ(ShortSince(counts, At(168.9)), At(1));
  EXPECT_EQ(ShortSince(counts, At(169)), 0);
  EXPECT_TRUE(Refuse(&counts, Refused::kCooling, 1, At(169)));
  EXPECT_EQ(ShortSince(counts, At(170)), At(169));
}

TEST(RefusalCounts, DoNotCallAProviderShortThatServesSmallerRequests) {
  RefusalCounts counts = {};
  EXPECT_FALSE(Refuse(&counts, Refused::kTooLarge, 3, At(1)));
  EXPECT_EQ(ShortSince(counts, At(1)), 0);
  EXPECT_EQ(counts.totals[static_cast<int>(Refused::kTooLarge)], 3);
}

TEST(RefusalCounts, BeginWithTheFirstOfThosePostedTogether) {
  RefusalCounts counts = {};
  uint32_t refused[kRefused] = {5};
  EXPECT_TRUE(AddRefusals(&counts, refused, At(3), At(4)));
  EXPECT_EQ(ShortSince(counts, At(5)), At(3));
}

TEST(RefusalCounts, ThatACrashToreAreNotBelieved) {
  RefusalCounts counts = {};
  counts.last_at = INT64_MAX;
  counts.short_since = -7;
  counts.totals[0] = -1;
  EXPECT_EQ(ShortSince(counts, At(1)), 0);
  EXPECT_TRUE(Refuse(&counts, Refused::kLimited, 2, At(1)));
  EXPECT_EQ(counts.totals[0], 2);
  EXPECT_EQ(ShortSince(counts, At(1)), At(1));
}

TEST(RefusalCounts, ByHourAndDayAgreeWithPlainLists) {
  std::mt19937 random(61);
  RefusalCounts counts = {};
  std::map<uint32_t, uint32_t> hours[kRefused], days[kRefused];
  TimeUs now = kStart;
  for (int step = 0; step < 5000; ++step) {
    now += static_cast<TimeUs>(random() % 5000) * kMicrosPerSecond;
    if (random() % 200 == 0) now += static_cast<TimeUs>(random() % 40) * 86400 * kMicrosPerSecond;
    auto why = static_cast<int>(random() % kRefused);
    auto times = static_cast<uint32_t>(random() % 9);
    Refuse(&counts, static_cast<Refused>(why), times, now);
    uint32_t hour = SecondOf(now) / 3600, day = SecondOf(now) / 86400;
    hours[why][hour] += times;
    days[why][day] += times;
    for (uint32_t age = 0; age < 48; ++age)
      for (int i = 0; i < kRefused; ++i) ASSERT_EQ(RefusedInHour(counts, hour - age).counts[i], hours[i][hour - age]);
    for (uint32_t age = 0; age < 31; ++age)
      for (int i = 0; i < kRefused; ++i) ASSERT_EQ(RefusedInDay(counts, day - age).counts[i], days[i][day - age]);
  }
}

}  // namespace
}  // namespace keypool
