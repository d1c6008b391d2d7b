// meter_text_test.cpp - a meter survives its text form, dumps of 0.1.0 load, and nothing else is taken for a meter.
#include "core/quota/meter_text.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "core/quota/usage.h"
#include "meters.h"

namespace keypool {
namespace {

std::string Text(const Meter &meter) {
  char out[kMaxMeterText];
  size_t size = FormatMeter(meter, out);
  EXPECT_EQ(out[size], '\0');
  return {out, size};
}

Meter Parsed(const std::string &text) {
  Meter meter;
  Status status = ParseMeter(text, &meter);
  EXPECT_TRUE(status.ok()) << status.message << ": " << text;
  return meter;
}

TEST(MeterText, KeepsEverything) {
  std::mt19937 random(111);
  int compared = 0;
  for (uint32_t width : {kSecondSlots, kHourSlots, kDaySlots}) {
    bool is_key = width == kSecondSlots;
    Meter meter = FreshMeter(width, 600);
    TimeUs now = kStart;
    auto some = [&](int64_t max) { return static_cast<int64_t>(random() % static_cast<uint64_t>(max)); };
    for (int i = 0; i < 3000; ++i) {
      now += some(3 * kMicrosPerSecond) * width;
      Amounts amounts = {500 + some(500), some(200), some(200), some(1000)};
      Reservation lease = Select(&meter, amounts, now, is_key);
      if (is_key && some(2)) Record(&meter, lease, amounts, now, {SecondOf(now) + 1000, SecondOf(now) + 5000});
      if (!is_key && some(2)) Use(&meter, amounts, now, {}, {SecondOf(now) + 1000, SecondOf(now) + 5000});
      MeterEdit edit(&meter);
      if (some(50) == 0) Block(&edit, now + 1000, now);
      if (some(50) == 0) BlockModel(&edit, 1 + static_cast<uint32_t>(some(12)), now + 100 * kMicrosPerSecond, now);
      if (some(10) == 0) CountRelease(&edit);
      if (some(10) == 0) CountRepeat(&edit);
      if (some(200) == 0) edit.Set(meter.recorded.breaker, {now, now - 5, 3, 4, 5, 6});
      meter.reserved.turn = some(1000000);
      if (i % 100 != 0) continue;
      Meter read = Parsed(Text(meter));
      // Places of models whose block is over may be filled anew, in another order.
      ASSERT_EQ(Text(read), Text(meter));
      memcpy(read.recorded.model_hash, meter.recorded.model_hash, sizeof(read.recorded.model_hash));
      memcpy(read.recorded.model_blocked_until, meter.recorded.model_blocked_until,
             sizeof(read.recorded.model_blocked_until));
      // Minutes that are over by a later selection are left out.
      if (MinuteOf(NewestRecorded(meter.recorded)) != MinuteOf(now)) continue;
      ++compared;
      ASSERT_EQ(memcmp(&meter, &read, sizeof(meter)), 0);
    }
  }
  EXPECT_GT(compared, 30);
}

TEST(MeterText, OfAFreshKeyIsShort) {
  Meter fresh = KeyMeter(), read = Parsed("2");
  EXPECT_EQ(memcmp(&fresh, &read, sizeof(read)), 0);
}

TEST(MeterText, DoesNotDumpWhoWaits) {
  Meter meter = KeyMeter();
  meter.reserved.awaited = 1;
  EXPECT_EQ(Parsed(Text(meter)).reserved.awaited, 0u);
}

TEST(MeterText, FitsEvenIfEveryNumberIsTheGreatest) {
  Meter meter = KeyMeter();
  memset(&meter.reserved, 0x7f, sizeof(meter.reserved));
  for (uint32_t i = 0; i < kRingSlots; ++i) {
    meter.recorded.ring[i] = {UINT64_MAX, UINT32_MAX - kRingSlots + 1 + i, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    meter.reserved.ring[i] = {4102444736u + i, 63, 65535, UINT32_MAX, UINT32_MAX};
    meter.reserved.open[i % kOpenSlots] = {16777200 + i % kOpenSlots, kMaxOpenTokens, kMaxOpenCalls, kMaxOpenCost};
  }
  memset(&meter.recorded.history, 0xff, sizeof(History));
  meter.recorded.totals = {kLatestTime, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
  meter.recorded.breaker = {2 * kLatestTime, kLatestTime, UINT16_MAX, UINT8_MAX, UINT8_MAX, UINT32_MAX};
  meter.recorded.day.end = meter.recorded.month.end = 4102444800;
  for (TimeUs &until : meter.recorded.model_blocked_until) until = 2 * kLatestTime;
  memset(&meter.recorded.model_hash, 0xff, sizeof(meter.recorded.model_hash));
  EXPECT_GT(Text(meter).size(), 10000u);
  EXPECT_LT(Text(meter).size(), kMaxMeterText);
}

// As 0.1.0 wrote it (core/key_state_text.cpp).
TEST(MeterText, OfLayout1BecomesAMeterOfAKey) {
  Second s = SecondOf(kStart);
  auto n = [](auto number) { return std::to_string(number); };
  std::string text = "1 total_requests=1000 total_tokens=50000 last_used_at=" + n(At(65.25)) +
                     " last_429_at=" + n(At(60)) + " cooldown_until=" + n(At(90)) + " newest_second=" + n(s + 65) +
                     " second=" + n(s + 60) + "/2/70 second=" + n(s + 65) + "/1/5000000000 minute=" + n(s / 60) +
                     "/7/600/0 minute=" + n(s / 60 + 1) + "/3/100/2 minute=" + n(s / 60 - 61) +
                     "/9/9/9 last_grant=" + n(At(66)) + " newest_grant=" + n(s + 66) + " reserved=" + n(s + 64) +
                     "/3/2/6/40 reserved=" + n(s + 66) + "/63/70/1/500";
  Meter meter = Parsed(text);
  EXPECT_EQ(meter.layout, kLayout);
  EXPECT_EQ(meter.recorded.ring_width, kSecondSlots);
  EXPECT_EQ(meter.recorded.call_timeout, kDefaultCallTimeout);
  EXPECT_EQ(meter.recorded.totals.requests, 1000);
  EXPECT_EQ(meter.recorded.totals.tokens, 50000);
  EXPECT_EQ(meter.recorded.totals.last_used_at, At(65.25));
  EXPECT_EQ(meter.recorded.last_429_at, At(60));
  EXPECT_EQ(Admits(meter, {}, {}, At(70)).moment, At(90));
  EXPECT_EQ(MeterSecond(meter, 0), s + 66);
  WindowUse use = UseInWindow(meter, At(66));
  EXPECT_EQ(use.requests, 3 + 72);
  EXPECT_EQ(use.open, 72);
  EXPECT_EQ(use.tokens, 70 + int64_t{UINT32_MAX} + 540);
  EXPECT_EQ(CallsInFlight(meter, At(66)).calls, 72);
  EXPECT_EQ(CallsInFlight(meter, At(66)).tokens, 540);
  UsageSlot minutes[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 60, At(66), minutes), 2);
  EXPECT_EQ(minutes[0].requests, 3u);
  EXPECT_EQ(minutes[0].tokens, 100);
  EXPECT_EQ(minutes[0].rate_limited, 2u);
  EXPECT_EQ(minutes[1].requests, 7u);
  Reservation taken;
  MeterEdit edit(&meter);
  ASSERT_TRUE(TakeOldest(&edit, &taken, At(66)));
  EXPECT_EQ(taken.second, s + 64);
  EXPECT_EQ(taken.estimates.tokens, 20);
  EXPECT_EQ(Text(Parsed(Text(meter))), Text(meter));
}

TEST(MeterText, OfLayout1OfAKeyThatWasNeverUsed) {
  Meter meter = Parsed(
      "1 total_requests=0 total_tokens=0 last_used_at=0 last_429_at=0 cooldown_until=0 newest_second=0 last_grant=0 "
      "newest_grant=0");
  Meter fresh = KeyMeter();
  EXPECT_EQ(memcmp(&fresh, &meter, sizeof(meter)), 0);
}

TEST(MeterText, OfLayout1WhoseNumbersDoNotAgreeIsReadAsFarAsItCan) {
  Meter meter = Parsed("1 total_requests=1 newest_second=6000000 minute=100000/5/5/5");
  EXPECT_EQ(MeterSecond(meter, 0), 6000000u);
  UsageSlot minutes[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 60, StartOf(6000000), minutes), 1);
  EXPECT_EQ(minutes[0].requests, 1u);
}

TEST(MeterText, RefusesWhatIsNone) {
  Meter read;
  for (const char *text : {"",
                           "0",
                           "3",
                           "x",
                           "-1",
                           " 2",
                           "2  turn=1",
                           "2 turn",
                           "2 turn=",
                           "2 turn=-1",
                           "2 turn=1x",
                           "2 unknown=1",
                           "2 turn=9223372036854775808",
                           "2 slot=1/2/3/4",
                           "2 slot=1/2/3/4/5/6",
                           "2 slot=0/1/1/1/1",
                           "2 slot=5/1/1/1/1 slot=5/1/1/1/1",
                           "2 slot=5/1/1/1/1 slot=69/1/1/1/1",
                           "2 slot=5/4294967296/1/1/1",
                           "2 ring_width=0",
                           "2 ring_width=61",
                           "2 call_timeout=59",
                           "2 call_timeout=14401",
                           "2 call_timeout=0",
                           "2 last_used_at=4102444800000001",
                           "2 last_selected_at=4102444800000001",
                           "2 blocked_until=8204889600000001",
                           "2 day=0/0/0/0/0/0",
                           "2 day=5/1/0/0/0/0",
                           "2 total_cost=4 month=5/0/0/0/0/5",
                           "2 day=5/0/0/0/0/0 day=6/0/0/0/0/0",
                           "2 minute=1/1/1",
                           "2 minute=1/1/1/65536",
                           "2 last_used_at=60000000 minute=1/1/0/0",
                           "2 model=0/5",
                           "2 model=5/0",
                           "2 model=5/9 model=5/9",
                           "2 reserved=5/64/0/0/0",
                           "2 reserved=0/0/0/0/0",
                           "2 reserved=5/1/65536/0/0",
                           "2 reserved=5/0/0/0/0 reserved=69/0/0/0/0",
                           "2 open=0/0/0/0",
                           "2 open=16777216/0/0/0",
                           "2 open=1/1048576/0/0",
                           "2 open=1/0/1099511627776/0",
                           "2 open=1/0/0/17592186044416",
                           "2 open=1/0/0/0 open=17/0/0/0",
                           "2 breaker=1/2/3/4/5",
                           "2 breaker=0/0/0/256/0/0",
                           "1 second=1/2",
                           "1 second=0/1/1",
                           "1 second=5/1/1 second=69/1/1",
                           "1 minute=1/1/1",
                           "1 reserved=5/64/0/0/0",
                           "1 total_tokens=9223372036854775808",
                           "1 turn=5",
                           "1 cooldown_until=8204889600000001",
                           "1 total_requests"})
    EXPECT_EQ(ParseMeter(text, &read).code, Code::kInvalidArgument) << text;
}

TEST(MeterText, RefusesANinthModel) {
  std::string text = "2";
  for (int i = 1; i <= 8; ++i) text += " model=" + std::to_string(i) + "/5";
  Meter read;
  EXPECT_TRUE(ParseMeter(text, &read).ok());
  EXPECT_FALSE(ParseMeter(text + " model=9/5", &read).ok());
}

}  // namespace
}  // namespace keypool
