// open_calls_test.cpp - which calls of a meter are open, by when they were selected.
#include "core/quota/open_calls.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

std::vector<OpenSince> OpenAt(const Meter &meter, double now) {
  OpenSince open[kMaxOpenSince];
  return {open, open + ListOpenCalls(meter, At(now), open)};
}

int64_t CallsOf(const std::vector<OpenSince> &open) {
  int64_t calls = 0;
  for (const OpenSince &since : open) calls += since.calls;
  return calls;
}

TEST(OpenCalls, AreOfTheirSecondForAMinute) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(10), At(0));
  Select(&meter, Tokens(20), At(0));
  Select(&meter, Tokens(5), At(50));
  auto open = OpenAt(meter, 60);
  ASSERT_EQ(open.size(), 2u);
  EXPECT_EQ(open[0].first, SecondOf(At(0)));
  EXPECT_EQ(open[0].last, SecondOf(At(0)));
  EXPECT_EQ(open[0].calls, 2);
  EXPECT_EQ(open[0].tokens, 30);
  EXPECT_EQ(open[1].first, SecondOf(At(50)));
  Release(&meter, lease, At(60));
  EXPECT_EQ(OpenAt(meter, 60)[0].calls, 1);
}

TEST(OpenCalls, AreOfASlotAfterThat) {
  Meter meter = KeyMeter();
  Second width = OpenSlotWidth(meter);
  Select(&meter, Tokens(10), At(1));
  Select(&meter, Tokens(20), At(300));
  auto open = OpenAt(meter, 300);
  ASSERT_EQ(open.size(), 2u);
  EXPECT_LE(open[0].first, SecondOf(At(1)));
  EXPECT_GE(open[0].last, SecondOf(At(1)));
  EXPECT_LE(open[0].last - open[0].first, width);
  EXPECT_EQ(open[0].calls, 1);
  EXPECT_EQ(open[0].tokens, 10);
  EXPECT_EQ(open[1].tokens, 20);
  EXPECT_TRUE(OpenAt(meter, 300 + 3600).empty()) << "given up";
}

TEST(OpenCalls, AreAsManyAsAreInFlight) {
  for (int seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    Meter meter = KeyMeter();
    std::vector<Reservation> leases;
    double now = 0;
    for (int i = 0; i < 300; ++i, now += random() % 20) {
      if (random() % 3 != 0 || leases.empty()) {
        leases.push_back(Select(&meter, Tokens(random() % 100), At(now)));
      } else {
        size_t which = random() % leases.size();
        Release(&meter, leases[which], At(now));
        leases.erase(leases.begin() + static_cast<std::ptrdiff_t>(which));
      }
      ASSERT_EQ(CallsOf(OpenAt(meter, now)), CallsInFlight(meter, At(now)).calls) << seed << " " << i;
    }
  }
}

}  // namespace
}  // namespace keypool
