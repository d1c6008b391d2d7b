// window_test.cpp - the rules of windows, settling, cooldown and the clock.
#include "core/window.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "unlogged_edits.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;
constexpr TimeUs At(int64_t seconds) { return kStart + seconds * kMicrosPerSecond; }
constexpr Limits kNoLimits = {0, 0};

bool Admits(const KeyState &state, const Limits &limits, int64_t tokens, TimeUs now) {
  return Admit(state, limits, tokens, now).admitted;
}

TEST(Window, GrantsExactlyTheLimit) {
  KeyState state = FreshState();
  int granted = 0;
  while (Admits(state, {10, 0}, 0, kStart) && granted < 100) {
    Reserve(&state, 0, kStart, 0);
    ++granted;
  }
  EXPECT_EQ(granted, 10);
}

TEST(Window, HoldsForSixtySecondsAndTheRestOfTheSecond) {
  KeyState state = FreshState();
  Reserve(&state, 0, At(0), 0);
  EXPECT_FALSE(Admits(state, {1, 0}, 0, At(60)));
  EXPECT_FALSE(Admits(state, {1, 0}, 0, At(61) - 1));
  EXPECT_TRUE(Admits(state, {1, 0}, 0, At(61)));
}

TEST(Window, CountsRecordedAndReservedTogether) {
  KeyState state = FreshState();
  Reservation first = Reserve(&state, 100, At(0), 0);
  Reserve(&state, 50, At(1), 0);
  Record(&state, &first, 70, At(2));
  WindowUse use = UseInWindow(state, At(2));
  EXPECT_EQ(use.requests, 2);
  EXPECT_EQ(use.tokens, 120);
  EXPECT_EQ(use.open, 1);
}

TEST(Window, TokensMustBeBelowTheLimitAndFit) {
  KeyState state = FreshState();
  Reserve(&state, 900, kStart, 0);
  EXPECT_TRUE(Admits(state, {0, 1000}, 100, kStart));
  EXPECT_FALSE(Admits(state, {0, 1000}, 101, kStart));
  Reserve(&state, 100, kStart, 0);
  EXPECT_FALSE(Admits(state, {0, 1000}, 0, kStart));
}

TEST(Window, NoLimitAdmitsAnything) {
  KeyState state = FreshState();
  for (int i = 0; i < 1000; ++i) Reserve(&state, kMaxTokens, kStart, 0);
  EXPECT_TRUE(Admits(state, kNoLimits, kMaxTokens, kStart));
}

TEST(Window, NeverHoldsMoreThanTheLimitInAnySixtySeconds) {
  std::mt19937 random(1);
  KeyState state = FreshState();
  std::vector<TimeUs> grants;
  TimeUs now = kStart;
  for (int i = 0; i < 20000; ++i) {
    now += random() % 3000000;
    if (!Admits(state, {7, 0}, 0, now)) continue;
    Reserve(&state, 0, now, 0);
    grants.push_back(now);
  }
  ASSERT_GT(grants.size(), 1000u);
  for (size_t i = 7; i < grants.size(); ++i) ASSERT_GT(grants[i] - grants[i - 7], 60 * kMicrosPerSecond);
}

TEST(Admission, TellsTheFirstSecondThatAdmits) {
  KeyState state = FreshState();
  Reserve(&state, 400, At(0), 0);
  Reserve(&state, 400, At(10), 0);
  EXPECT_EQ(Admit(state, {0, 1000}, 300, At(20)).moment, At(61));
  EXPECT_EQ(Admit(state, {0, 1000}, 700, At(20)).moment, At(71));
  EXPECT_EQ(Admit(state, {2, 0}, 0, At(20)).moment, At(61));
  EXPECT_FALSE(Admits(state, {0, 1000}, 700, At(71) - 1));
  EXPECT_TRUE(Admits(state, {0, 1000}, 700, At(71)));
}

// A record that moves the key's own clock past its cooldown ends that, though the wall clock steps back behind it.
TEST(Load, EasesWhenTheKeysClockPassesItsCooldown) {
  KeyState state = FreshState();
  Mark429(&state, nullptr, 1 * kMicrosPerSecond, At(0));
  Load before = LoadOf(state);
  Record(&state, nullptr, 0, At(2));
  EXPECT_TRUE(LoadOf(state).EasedFrom(before));
}

TEST(Admission, IsTheLaterOfCooldownAndWindow) {
  KeyState state = FreshState();
  Reserve(&state, 0, At(0), 0);
  Mark429(&state, nullptr, 30 * kMicrosPerSecond, At(0));
  EXPECT_EQ(Admit(state, {1, 0}, 0, At(0)).moment, At(61));
  EXPECT_EQ(Admit(state, {2, 0}, 0, At(0)).moment, At(30));
  Mark429(&state, nullptr, 90 * kMicrosPerSecond, At(0));
  EXPECT_EQ(Admit(state, {1, 0}, 0, At(0)).moment, At(90));
  EXPECT_TRUE(Admit(state, {1, 0}, 0, At(0)).cooling);
}

TEST(Grant, NumbersOnlyGrow) {
  KeyState state = FreshState();
  Reserve(&state, 0, kStart, 0);
  EXPECT_EQ(state.reserved.last_grant, kStart);
  Reserve(&state, 0, kStart, 0);
  EXPECT_EQ(state.reserved.last_grant, kStart + 1);
  Reserve(&state, 0, kStart - 5000000, 0);
  EXPECT_EQ(state.reserved.last_grant, kStart + 2);
  Reserve(&state, 0, kStart, kStart + 10);
  EXPECT_EQ(state.reserved.last_grant, kStart + 11);
}

TEST(Grant, TouchesOnlyTheReservedHalf) {
  KeyState state = FreshState();
  RecordedUsage before = state.recorded;
  Reservation reservation = Reserve(&state, 5, kStart, 0);
  Release(&state, reservation, kStart);
  EXPECT_EQ(memcmp(&before, &state.recorded, sizeof(before)), 0);
}

TEST(Settling, KeepsTheRequestInItsSecondAndCountsTokensNow) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  Record(&state, &reservation, 200, At(30));
  EXPECT_EQ(UseInWindow(state, At(60)).requests, 1);
  EXPECT_EQ(UseInWindow(state, At(61)).requests, 0);
  EXPECT_EQ(UseInWindow(state, At(90)).tokens, 200);
  EXPECT_EQ(UseInWindow(state, At(91)).tokens, 0);
}

TEST(Settling, TwiceChangesNoRequestCount) {
  KeyState state = FreshState();
  Reservation first = Reserve(&state, 500, At(0), 0);
  Reserve(&state, 300, At(0), 0);
  Record(&state, &first, 10, At(1));
  Record(&state, &first, 10, At(1));
  WindowUse use = UseInWindow(state, At(1));
  EXPECT_EQ(use.requests, 2);
  EXPECT_EQ(use.open, 1);
  EXPECT_EQ(use.tokens, 320);
  EXPECT_EQ(state.recorded.total_requests, 2);
}

TEST(Settling, AfterTheWindowChangesNoRequestCount) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  Record(&state, &reservation, 10, At(61));
  EXPECT_EQ(UseInWindow(state, At(61)).requests, 0);
  EXPECT_EQ(UseInWindow(state, At(61)).tokens, 10);
  EXPECT_EQ(state.recorded.total_requests, 1);
}

TEST(Settling, AtTheEdgeOfTheWindowStillMovesTheRequest) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  Record(&state, &reservation, 10, At(60));
  WindowUse use = UseInWindow(state, At(60));
  EXPECT_EQ(use.requests, 1);
  EXPECT_EQ(use.open, 0);
  EXPECT_EQ(use.tokens, 10);
}

TEST(Settling, CountsARequestWhoseReservationACrashForgot) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  state.reserved = {};
  Record(&state, &reservation, 10, At(30));
  EXPECT_EQ(UseInWindow(state, At(60)).requests, 1);
  EXPECT_EQ(UseInWindow(state, At(61)).requests, 0);
}

TEST(Settling, WithoutALeaseTakesTheOldest) {
  KeyState state = FreshState();
  Reserve(&state, 100, At(0), 0);
  Reservation second = Reserve(&state, 200, At(1), 0);
  Record(&state, nullptr, 5, At(2));
  EXPECT_EQ(UseInWindow(state, At(2)).tokens, 205);
  EXPECT_TRUE(Release(&state, second, At(2)));
  Record(&state, nullptr, 5, At(2));
  EXPECT_EQ(UseInWindow(state, At(2)).requests, 2);
}

TEST(Settling, WithoutALeaseTakesAnEqualShareOfTheSecond) {
  KeyState state = FreshState();
  Reserve(&state, 100, At(0), 0);
  Reserve(&state, 200, At(0), 0);
  Record(&state, nullptr, 0, At(0));
  EXPECT_EQ(UseInWindow(state, At(0)).tokens, 150);
  Record(&state, nullptr, 0, At(0));
  EXPECT_EQ(UseInWindow(state, At(0)).tokens, 0);
}

TEST(Settling, IsExactBeyondTheTrackedGrantsOfASecond) {
  KeyState state = FreshState();
  std::vector<Reservation> all;
  for (int i = 0; i < 100; ++i) all.push_back(Reserve(&state, 1, kStart, 0));
  for (const Reservation &reservation : all) EXPECT_TRUE(Release(&state, reservation, kStart));
  EXPECT_EQ(UseInWindow(state, kStart).requests, 0);
  for (const Reservation &reservation : all) EXPECT_FALSE(Release(&state, reservation, kStart));
}

TEST(Release, GivesAllBackOnce) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  EXPECT_TRUE(Release(&state, reservation, At(60)));
  EXPECT_FALSE(Release(&state, reservation, At(60)));
  EXPECT_EQ(UseInWindow(state, At(0)).requests, 0);
  Reservation late = Reserve(&state, 500, At(0), 0);
  EXPECT_FALSE(Release(&state, late, At(130)));
}

TEST(Cooldown, TheLaterDeadlineStands) {
  KeyState state = FreshState();
  EXPECT_EQ(Mark429(&state, nullptr, 60 * kMicrosPerSecond, At(0)), At(60));
  EXPECT_EQ(Mark429(&state, nullptr, 10 * kMicrosPerSecond, At(1)), At(60));
  EXPECT_EQ(Mark429(&state, nullptr, 60 * kMicrosPerSecond, At(1)), At(61));
  EXPECT_FALSE(Admits(state, kNoLimits, 0, At(61) - 1));
  EXPECT_TRUE(Admits(state, kNoLimits, 0, At(61)));
}

TEST(Cooldown, EndsWhenItIsCleared) {
  KeyState state = FreshState();
  Mark429(&state, nullptr, 60 * kMicrosPerSecond, At(0));
  ClearCooldown(&state);
  EXPECT_TRUE(Admits(state, kNoLimits, 0, At(0)));
}

TEST(Cooldown, SettlesItsLeaseAsAUsedRequestWithoutTokens) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 500, At(0), 0);
  Mark429(&state, &reservation, 5 * kMicrosPerSecond, At(1));
  WindowUse use = UseInWindow(state, At(1));
  EXPECT_EQ(use.requests, 1);
  EXPECT_EQ(use.tokens, 0);
  EXPECT_EQ(use.open, 0);
  EXPECT_EQ(state.recorded.total_requests, 1);
}

TEST(Clock, ThatStepsBackTakesTheNewestSecondForNow) {
  KeyState state = FreshState();
  Reserve(&state, 0, At(100), 0);
  EXPECT_EQ(KeyNow(state, At(40)), At(100));
  EXPECT_FALSE(Admits(state, {1, 0}, 0, At(0)));
  EXPECT_EQ(Admit(state, {1, 0}, 0, At(0)).moment, At(161));
  Record(&state, nullptr, 7, At(0));
  EXPECT_EQ(state.recorded.last_used_at, At(100));
}

TEST(Clock, OfYesterdayDoesNotReturn) {
  KeyState state = FreshState();
  Reserve(&state, 5, At(0), 0);
  EXPECT_EQ(UseInWindow(state, At(86400)).requests, 0);
  EXPECT_EQ(UseInWindow(state, At(64)).requests, 0);
}

TEST(Usage, ShowsTheMinutesWithSomethingInThemNewestFirst) {
  KeyState state = FreshState();
  Record(&state, nullptr, 10, At(0));
  Record(&state, nullptr, 20, At(1));
  Mark429(&state, nullptr, 5 * kMicrosPerSecond, At(120));
  MinuteUse use[kMinuteBuckets];
  ASSERT_EQ(UsageByMinute(state, 60, At(130), use), 2);
  EXPECT_EQ(use[0].rate_limited, 1u);
  EXPECT_EQ(use[0].requests, 0u);
  EXPECT_EQ(use[1].requests, 2u);
  EXPECT_EQ(use[1].tokens, 30);
  EXPECT_EQ(UsageByMinute(state, 2, At(130), use), 1);
  EXPECT_EQ(UsageByMinute(state, 60, At(3600), use), 1);
}

// Minute 60 lies where minute 0 lay; minutes before it would overwrite it if the clock could go back behind it.
TEST(Usage, KeepsItsMinutesWhenTheClockStepsBackAfterA429) {
  KeyState state = FreshState();
  Record(&state, nullptr, 10, At(0));
  Mark429(&state, nullptr, 5 * kMicrosPerSecond, At(3600));
  Record(&state, nullptr, 20, At(0));
  MinuteUse use[kMinuteBuckets];
  ASSERT_EQ(UsageByMinute(state, 60, At(0), use), 1);
  EXPECT_EQ(use[0].rate_limited, 1u);
  EXPECT_EQ(use[0].tokens, 20);
}

TEST(Totals, DoNotOverflow) {
  KeyState state = FreshState();
  state.recorded.total_tokens = INT64_MAX - 1;
  Record(&state, nullptr, 5, kStart);
  EXPECT_EQ(state.recorded.total_tokens, INT64_MAX);
}

// What a key that refuses says of its wait holds for every size and moment that it names, and is not too careful.
TEST(Wait, IsTrueAndTight) {
  std::mt19937 random(8);
  for (int round = 0; round < 3000; ++round) {
    KeyState state = FreshState();
    TimeUs now = kStart;
    for (int i = 0; i < 6; ++i) {
      now += random() % (20 * kMicrosPerSecond);
      Record(&state, nullptr, random() % 50, now);
    }
    if (random() % 4 == 0) Mark429(&state, nullptr, (1 + random() % 40) * kMicrosPerSecond, now);
    Limits limits = {static_cast<int64_t>(random() % 8), static_cast<int64_t>(random() % 200)};
    int64_t tokens = limits.max_tpm == 0 ? random() % 100 : random() % (limits.max_tpm + 1);
    Admission refused = Admit(state, limits, tokens, now);
    if (refused.admitted) continue;
    Wait wait = WaitOf(state, limits, tokens, now);
    ASSERT_LE(wait.tokens, tokens);
    ASSERT_FALSE(wait.EndsBefore({now, 0, false}));
    ASSERT_LE(wait.moment, refused.moment);
    ASSERT_FALSE(Admits(state, limits, wait.tokens, wait.moment - 1));
    ASSERT_TRUE(Admits(state, limits, wait.tokens, wait.moment));
    if (wait.tokens > 0) {
      ASSERT_TRUE(Admits(state, limits, wait.tokens - 1, now));
    }
  }
}

TEST(Load, IsEasedByWhatLetsAKeyServeSooner) {
  KeyState state = FreshState();
  Reservation lease = Reserve(&state, 100, At(0), 0);
  Reservation second = Reserve(&state, 100, At(0), 0);
  auto eases = [&](auto change) {
    Load before = LoadOf(state);
    change();
    return LoadOf(state).EasedFrom(before);
  };
  EXPECT_FALSE(eases([&] { Reserve(&state, 1, At(1), 0); }));
  EXPECT_FALSE(eases([&] { Record(&state, &lease, 100, At(1)); }));
  EXPECT_TRUE(eases([&] { Record(&state, &second, 99, At(1)); }));
  EXPECT_FALSE(eases([&] { Record(&state, nullptr, 5, At(2)); }));
  Reservation third = Reserve(&state, 0, At(2), 0);
  EXPECT_TRUE(eases([&] { Release(&state, third, At(2)); }));
  EXPECT_TRUE(eases([&] { Mark429(&state, nullptr, 60 * kMicrosPerSecond, At(2)); }));
  EXPECT_FALSE(eases([&] { Mark429(&state, nullptr, 60 * kMicrosPerSecond, At(2)); }));
  EXPECT_TRUE(eases([&] { ClearCooldown(&state); }));
  EXPECT_TRUE(eases([&] { Record(&state, nullptr, 0, At(61)); })) << "its clock went on, and usage left";
}

// What a crash may leave of the reserved half: anything.
TEST(Crash, TornReservationsAreHarmlessAndAgeOut) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    KeyState state = FreshState();
    for (int i = 0; i < 5; ++i) Record(&state, nullptr, 10, At(i));
    auto *bytes = reinterpret_cast<unsigned char *>(&state.reserved.granted);
    auto *end = reinterpret_cast<unsigned char *>(&state.reserved + 1);
    for (; bytes < end; ++bytes) *bytes = static_cast<unsigned char>(random());
    for (int i = 0; i < kSecondBuckets; ++i)
      state.reserved.second[i] = static_cast<Second>(kStart / kMicrosPerSecond) + i - 64;
    WindowUse use = UseInWindow(state, At(5));
    EXPECT_GE(use.requests, 5);
    EXPECT_GE(use.tokens, 50);
    Reservation lease = {static_cast<Second>(At(-3) / kMicrosPerSecond), static_cast<uint32_t>(random() % 64), 99};
    Record(&state, &lease, 1, At(5));
    Record(&state, nullptr, 1, At(5));
    Release(&state, lease, At(5));
    Admit(state, {5, 100}, 50, At(5));
    Reserve(&state, 3, At(6), 0);
    EXPECT_GE(UseInWindow(state, At(6)).tokens, 0);
    EXPECT_EQ(UseInWindow(state, At(120)).requests, 0);
    EXPECT_EQ(UseInWindow(state, At(120)).tokens, 0);
  }
}

// A key as a list of what happened, for comparison.
struct PlainKey {
  std::map<Second, std::vector<Reservation>> open;
  std::map<Second, int64_t> requests, tokens;

  WindowUse Use(Second now) const {
    WindowUse use = {};
    for (Second s = now - 60; s <= now; ++s) {
      if (auto found = open.find(s); found != open.end())
        for (const Reservation &reservation : found->second)
          ++use.open, ++use.requests, use.tokens += reservation.tokens;
      if (auto found = requests.find(s); found != requests.end()) use.requests += found->second;
      if (auto found = tokens.find(s); found != tokens.end()) use.tokens += found->second;
    }
    return use;
  }

  bool Take(const Reservation &wanted) {
    auto &bucket = open[wanted.second];
    for (auto it = bucket.begin(); it != bucket.end(); ++it)
      if (it->sequence == wanted.sequence) return bucket.erase(it), true;
    return false;
  }
};

TEST(Window, AgreesWithAPlainModelOnRandomHistories) {
  std::mt19937 random(42);
  KeyState state = FreshState();
  PlainKey plain;
  std::vector<Reservation> leases;
  TimeUs now = kStart;
  for (int step = 0; step < 300000; ++step) {
    now += random() % 400000;
    Second second = static_cast<Second>(now / kMicrosPerSecond);
    unsigned action = random() % 10;
    int64_t tokens = random() % 1000;
    if (action < 6 || leases.empty()) {
      leases.push_back(Reserve(&state, tokens, now, 0));
      plain.open[second].push_back(leases.back());
    } else {
      size_t pick = leases.size() - 1 - random() % std::min<size_t>(leases.size(), 150);
      Reservation lease = leases[pick];
      bool in_window = second - lease.second <= 60;
      bool taken = in_window && plain.Take(lease);
      if (action < 9) {
        Record(&state, &lease, tokens, now);
        if (taken) ++plain.requests[lease.second];
        plain.tokens[second] += tokens;
      } else {
        ASSERT_EQ(Release(&state, lease, now), taken);
      }
    }
    WindowUse expected = plain.Use(second), got = UseInWindow(state, now);
    ASSERT_EQ(got.requests, expected.requests) << "step " << step;
    ASSERT_EQ(got.tokens, expected.tokens) << "step " << step;
    ASSERT_EQ(got.open, expected.open) << "step " << step;
    if (step % 1000 == 0) {
      plain.open.erase(plain.open.begin(), plain.open.lower_bound(second - 100));
      plain.tokens.erase(plain.tokens.begin(), plain.tokens.lower_bound(second - 100));
      plain.requests.erase(plain.requests.begin(), plain.requests.lower_bound(second - 100));
    }
    Limits limits = {static_cast<int64_t>(random() % 100 + 1), 0};
    Admission admission = Admit(state, limits, 0, now);
    if (!admission.admitted) {
      Second moment = static_cast<Second>(admission.moment / kMicrosPerSecond);
      ASSERT_LT(plain.Use(moment).requests, limits.max_rpm);
      ASSERT_GE(plain.Use(moment - 1).requests, limits.max_rpm);
    } else {
      ASSERT_LT(expected.requests, limits.max_rpm);
    }
  }
}

}  // namespace
}  // namespace keypool
