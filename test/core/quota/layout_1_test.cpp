// layout_1_test.cpp - what a row of 0.1.0 holds becomes the right meter by way of its text.
#include "core/quota/layout_1.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "core/quota/meter_text.h"
#include "core/quota/usage.h"
#include "meters.h"

namespace keypool {
namespace {

std::string Text(const KeyState1 &state) {
  char out[kMaxLayout1Text];
  size_t size = FormatLayout1(state, out);
  EXPECT_EQ(out[size], '\0');
  return {out, size};
}

Meter MeterOf(const KeyState1 &state) {
  Meter meter;
  Status status = ParseMeter(Text(state), &meter);
  EXPECT_TRUE(status.ok()) << status.message;
  return meter;
}

KeyState1 Fresh() {
  KeyState1 state = {};
  state.layout = 1;
  return state;
}

void PutSecond(RecordedUsage1 *recorded, Second second, uint32_t requests, int64_t tokens) {
  int at = static_cast<int>(second % kSecondBuckets1);
  recorded->second[at] = second;
  recorded->requests[at] = requests;
  recorded->tokens[at] = tokens;
}

void PutMinute(RecordedUsage1 *recorded, Minute minute, uint32_t requests, int64_t tokens, uint32_t rate_limited) {
  int at = static_cast<int>(minute % kMinuteBuckets1);
  recorded->minute[at] = minute;
  recorded->minute_requests[at] = requests;
  recorded->minute_tokens[at] = tokens;
  recorded->minute_rate_limited[at] = rate_limited;
}

void PutReserved(ReservedUsage1 *reserved, Second second, uint8_t granted, uint32_t open, int64_t tokens) {
  int at = static_cast<int>(second % kSecondBuckets1);
  reserved->second[at] = second;
  reserved->granted[at] = granted;
  reserved->open_count[at] = open;
  reserved->open[at] = (uint64_t{1} << open) - 1;
  reserved->tokens[at] = tokens;
}

TEST(Layout1, OfAKeyThatWasNeverUsedIsAFreshMeter) {
  Meter meter = MeterOf(Fresh()), fresh = KeyMeter();
  EXPECT_EQ(memcmp(&meter, &fresh, sizeof(meter)), 0);
}

TEST(Layout1, BecomesAMeter) {
  Second s = SecondOf(kStart);
  KeyState1 state = Fresh();
  RecordedUsage1 *recorded = &state.recorded;
  recorded->total_requests = 1000;
  recorded->total_tokens = 50000;
  recorded->last_used_at = At(65.25);
  recorded->last_429_at = At(60);
  recorded->cooldown_until = At(90);
  recorded->newest_second = s + 65;
  PutSecond(recorded, s + 60, 2, 70);
  PutSecond(recorded, s + 65, 1, 30);
  PutMinute(recorded, s / 60, 7, 600, 0);
  PutMinute(recorded, s / 60 + 1, 3, 100, 2);
  state.reserved.last_grant = At(66);
  state.reserved.newest_second = s + 66;
  state.reserved.awaited = 1;
  PutReserved(&state.reserved, s + 64, 3, 2, 40);
  PutReserved(&state.reserved, s + 66, 5, 5, 500);
  Meter meter = MeterOf(state);
  EXPECT_EQ(meter.recorded.totals.requests, 1000);
  EXPECT_EQ(meter.recorded.totals.tokens, 50000);
  EXPECT_EQ(meter.recorded.totals.last_used_at, At(65.25));
  EXPECT_EQ(meter.recorded.last_429_at, At(60));
  EXPECT_EQ(meter.recorded.blocked_until, At(90));
  EXPECT_EQ(MeterSecond(meter, 0), s + 66);
  EXPECT_EQ(meter.reserved.awaited, 0u);
  WindowUse use = UseInWindow(meter, At(66));
  EXPECT_EQ(use.requests, 3 + 7);
  EXPECT_EQ(use.open, 7);
  EXPECT_EQ(use.tokens, 100 + 540);
  EXPECT_EQ(CallsInFlight(meter, At(66)).calls, 7);
  UsageSlot minutes[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 60, At(66), minutes), 2);
  EXPECT_EQ(minutes[0].requests, 3u);
  EXPECT_EQ(minutes[0].rate_limited, 2u);
  EXPECT_EQ(minutes[1].tokens, 600);
}

TEST(Layout1, OfATornStateCanBeRead) {
  std::mt19937 random(12);
  auto any = [&] { return uint64_t{random()} << 32 | random(); };
  for (int round = 0; round < 500; ++round) {
    KeyState1 state = Fresh();
    state.recorded.total_requests = round;
    auto *words = reinterpret_cast<uint64_t *>(&state.reserved);
    for (size_t i = 0; i < sizeof(state.reserved) / sizeof(uint64_t); ++i) words[i] = any();
    for (int i = 0; i < kSecondBuckets1; ++i)
      if (random() % 2) state.reserved.second[i] = SecondOf(kStart) / 64 * 64 + static_cast<Second>(i);
    EXPECT_EQ(MeterOf(state).recorded.totals.requests, round);
  }
}

TEST(Layout1, FitsEvenIfEveryNumberIsTheGreatest) {
  auto state = std::make_unique<KeyState1>();
  memset(state.get(), 0xff, sizeof(*state));
  for (int i = 0; i < kSecondBuckets1; ++i) {
    state->reserved.second[i] = kSecondBuckets1 * 64000000u + static_cast<Second>(i);
    state->reserved.tokens[i] = INT64_MAX;
  }
  EXPECT_GT(Text(*state).size(), 9000u);
  EXPECT_LT(Text(*state).size(), kMaxLayout1Text);
}

}  // namespace
}  // namespace keypool
