// usage_test.cpp - what a meter has counted in past minutes, hours and days.
#include "core/quota/usage.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

constexpr double kHour = 3600, kDay = 86400;

uint32_t HourAt(double seconds) { return SecondOf(At(seconds)) / 3600; }

TEST(Minutes, ShowThoseThatHoldSomethingNewestFirst) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(10), At(0));
  Use(&meter, Tokens(20), At(1));
  Cool(&meter, At(125), At(120));
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 60, At(130), use), 2);
  EXPECT_EQ(use[0].number, MinuteOf(At(120)));
  EXPECT_EQ(use[0].rate_limited, 1u);
  EXPECT_EQ(use[0].requests, 0u);
  EXPECT_EQ(use[1].requests, 2u);
  EXPECT_EQ(use[1].tokens, 30);
  EXPECT_EQ(UsageBy(meter, Span::kMinute, 2, At(130), use), 1);
  EXPECT_EQ(UsageBy(meter, Span::kMinute, 60, At(3600), use), 1) << "the first has left";
  EXPECT_EQ(UsageBy(meter, Span::kMinute, 60, At(7200), use), 0);
}

TEST(Minutes, AgreeWithAPlainListWhateverTheGaps) {
  std::mt19937 random(51);
  Meter meter = KeyMeter();
  std::vector<UsageSlot> plain;
  TimeUs now = kStart;
  for (int step = 0; step < 20000; ++step) {
    now += static_cast<TimeUs>(random() % 40) * kMicrosPerSecond;
    if (random() % 100 == 0) now += static_cast<TimeUs>(random() % 5000) * kMicrosPerSecond;
    if (plain.empty() || plain.back().number != MinuteOf(now)) plain.push_back({MinuteOf(now), 0, 0, 0, 0, 0, 0});
    if (random() % 4 == 0) {
      Cool(&meter, now + 1, now);
      ++plain.back().rate_limited;
    } else {
      int64_t tokens = random() % 1000;
      Use(&meter, Tokens(tokens), now, {}, {UINT32_MAX, UINT32_MAX});
      ++plain.back().requests;
      plain.back().tokens += tokens;
    }
    UsageSlot use[kMaxUsage];
    int minutes = static_cast<int>(1 + random() % 60), count = UsageBy(meter, Span::kMinute, minutes, now, use);
    size_t at = plain.size();
    for (int i = 0; i < count; ++i) {
      --at;
      ASSERT_EQ(use[i].number, plain[at].number);
      ASSERT_EQ(use[i].requests, plain[at].requests);
      ASSERT_EQ(use[i].rate_limited, plain[at].rate_limited);
      ASSERT_EQ(use[i].tokens, plain[at].tokens);
    }
    if (at > 0) {
      ASSERT_GE(MinuteOf(now) - plain[at - 1].number, static_cast<Minute>(minutes));
    }
  }
}

TEST(Hours, HoldWhatWasCountedAlsoTheRunningOne) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(10), At(0));
  Use(&meter, Tokens(20), At(70));
  Use(&meter, Tokens(5), At(71));
  Cool(&meter, At(100), At(90));
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kHour, 48, At(95), use), 1);
  EXPECT_EQ(use[0].number, HourAt(0));
  EXPECT_EQ(use[0].requests, 3u);
  EXPECT_EQ(use[0].tokens, 35);
  EXPECT_EQ(use[0].rate_limited, 1u);
  EXPECT_EQ(use[0].peak_requests, 2u);
  EXPECT_EQ(use[0].peak_tokens, 25u);
  Use(&meter, Tokens(7), At(2 * kHour));
  ASSERT_EQ(UsageBy(meter, Span::kHour, 48, At(2 * kHour), use), 2);
  EXPECT_EQ(use[0].tokens, 7);
  EXPECT_EQ(use[1].tokens, 35);
  EXPECT_EQ(use[1].rate_limited, 1u);
  ASSERT_EQ(UsageBy(meter, Span::kHour, 2, At(2 * kHour), use), 1) << "an hour with nothing in it is none";
  EXPECT_EQ(UsageBy(meter, Span::kHour, 48, At(47 * kHour), use), 2);
  EXPECT_EQ(UsageBy(meter, Span::kHour, 48, At(48 * kHour), use), 1) << "the first has left";
}

// The running hour of a meter that nobody uses any more is over by the clock, not on the page.
TEST(Hours, StayWhereTheyWereWhenNothingComesAfterThem) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(10), At(10));
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kHour, 48, At(5 * kHour), use), 1);
  EXPECT_EQ(use[0].number, HourAt(0));
  ASSERT_EQ(UsageBy(meter, Span::kDay, 31, At(30 * kDay), use), 1);
  EXPECT_EQ(use[0].number, SecondOf(kStart) / 86400);
  EXPECT_EQ(UsageBy(meter, Span::kDay, 31, At(31 * kDay), use), 0);
}

void AgreeWith(const std::map<uint32_t, UsageSlot> &plain, const Meter &meter, Span span, TimeUs now) {
  UsageSlot use[kMaxUsage];
  int count = UsageBy(meter, span, SpanCount(span), now, use);
  auto current = static_cast<uint32_t>(SecondOf(now) / SpanSeconds(span));
  auto at = plain.rbegin();
  for (int i = 0; i < count; ++i, ++at) {
    ASSERT_NE(at, plain.rend());
    ASSERT_EQ(memcmp(&use[i], &at->second, sizeof(UsageSlot)), 0) << i << " of " << static_cast<int>(span);
  }
  if (at != plain.rend()) {
    ASSERT_GE(current - at->first, static_cast<uint32_t>(SpanCount(span)));
  }
}

// Adds one minute's use to the plain list of hours or days.
void AddTo(std::map<uint32_t, UsageSlot> *plain, uint32_t number, const UsageSlot &use, const UsageSlot &minute) {
  UsageSlot &slot = (*plain)[number];
  slot.number = number;
  slot.requests += use.requests;
  slot.tokens += use.tokens;
  slot.rate_limited += use.rate_limited;
  slot.peak_requests = std::max(slot.peak_requests, minute.requests);
  slot.peak_tokens = std::max(slot.peak_tokens, static_cast<uint32_t>(minute.tokens));
}

TEST(HoursAndDays, AgreeWithPlainListsWhateverTheGaps) {
  std::mt19937 random(52);
  Meter meter = KeyMeter();
  std::map<uint32_t, UsageSlot> minutes, hours, days;
  TimeUs now = kStart;
  for (int step = 0; step < 20000; ++step) {
    now += static_cast<TimeUs>(random() % 200) * kMicrosPerSecond;
    if (random() % 100 == 0) now += static_cast<TimeUs>(random() % 200000) * kMicrosPerSecond;
    if (random() % 3000 == 0) now += static_cast<TimeUs>(random() % 40) * 86400 * kMicrosPerSecond;
    UsageSlot use = {};
    if (random() % 4 == 0) {
      Cool(&meter, now + 1, now);
      use.rate_limited = 1;
    } else {
      use.requests = 1;
      use.tokens = static_cast<int64_t>(random() % 1000);
      Use(&meter, Tokens(use.tokens), now, {}, {UINT32_MAX, UINT32_MAX});
    }
    AddTo(&minutes, MinuteOf(now), use, {});
    const UsageSlot &minute = minutes[MinuteOf(now)];
    AddTo(&hours, SecondOf(now) / 3600, use, minute);
    AddTo(&days, SecondOf(now) / 86400, use, minute);
    AgreeWith(hours, meter, Span::kHour, now);
    AgreeWith(days, meter, Span::kDay, now);
  }
}

TEST(Hours, OfAClockThatStandsStillAreCountedOnce) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(1), At(kHour - 1));
  Use(&meter, Tokens(2), At(kHour + 1));
  Use(&meter, Tokens(4), At(kHour - 2));  // the clock has stepped back: now is the newest time
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kHour, 48, At(kHour + 2), use), 2);
  EXPECT_EQ(use[0].tokens, 6);
  EXPECT_EQ(use[1].tokens, 1);
}

TEST(Peak, IsOfTheLimitOfWhichMostWasUsed) {
  UsageSlot use = {1, 300, 0, 50, 9000, 3000, 0};
  EXPECT_EQ(PeakPercent(use, Span::kHour, {}), -1);
  Limits limits = LimitOf(Limit::kRpm, 100);
  EXPECT_EQ(PeakPercent(use, Span::kMinute, limits), 50);
  limits.of(Limit::kTpm) = 4000;
  EXPECT_EQ(PeakPercent(use, Span::kHour, limits), 75);
  EXPECT_EQ(PeakPercent(use, Span::kHour, LimitOf(Limit::kRph, 400)), 75);
  EXPECT_EQ(PeakPercent(use, Span::kMinute, LimitOf(Limit::kTph, 9000)), -1);
  EXPECT_EQ(PeakPercent(use, Span::kDay, LimitOf(Limit::kRpd, 200)), 150);
  EXPECT_EQ(PeakPercent(use, Span::kDay, LimitOf(Limit::kTpd, 10000)), 90);
  EXPECT_EQ(PeakPercent(use, Span::kHour, LimitOf(Limit::kTpd, 10000)), -1);
}

}  // namespace
}  // namespace keypool
