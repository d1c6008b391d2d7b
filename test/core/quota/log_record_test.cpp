// log_record_test.cpp - the record that a settlement makes is small.
#include <gtest/gtest.h>

#include <map>

#include "meters.h"

namespace keypool {
namespace {

constexpr int kPieceHeader = 4;
// What generic WAL adds to the pieces of one page.
constexpr int kRecordHeader = 44;

struct RecordSize {
  int pieces = 0;
  int bytes = 0;  // with headers
};

RecordSize SizeOf(MeterEdit *edit) {
  const ChangedBytes *changes;
  RecordSize size;
  size.pieces = edit->Finish(&changes);
  for (int i = 0; i < size.pieces; ++i) size.bytes += kPieceHeader + changes[i].length;
  return size;
}

RecordSize SettleAndMeasure(Meter *meter, const Reservation &lease, const Amounts &used, TimeUs now) {
  MeterEdit edit(meter);
  EXPECT_EQ(SettleOnce(&edit, lease, now), Settled::kNow);
  Count(&edit, {}, used, lease.second, {UINT32_MAX, UINT32_MAX}, now);
  return SizeOf(&edit);
}

// A plain key at so many calls a second, that take up to 30 seconds; tokens alone are told.
struct Sizes {
  int most_pieces = 0, most_bytes = 0, count = 0;
  double pieces = 0, bytes = 0;

  void Add(const RecordSize &size) {
    most_pieces = std::max(most_pieces, size.pieces);
    most_bytes = std::max(most_bytes, size.bytes);
    pieces += size.pieces;
    bytes += size.bytes;
    ++count;
  }
};

Sizes SizesAt(double calls_per_second, int64_t longest, uint32_t seed) {
  std::mt19937 random(seed);
  Meter meter = KeyMeter();
  std::multimap<TimeUs, Reservation> calls;
  Sizes sizes;
  TimeUs next = At(0.5);
  for (int settled = 0; settled < 20000;) {
    if (calls.empty() || next < calls.begin()->first) {
      calls.emplace(next + static_cast<TimeUs>(random() % static_cast<uint64_t>(longest)),
                    Select(&meter, Tokens(random() % 20000), next));
      next += 1 + static_cast<TimeUs>(static_cast<double>(random() % 2000000) / calls_per_second);
      continue;
    }
    auto [now, lease] = *calls.begin();
    calls.erase(calls.begin());
    bool same_minute = MinuteOf(now) == MinuteOf(NewestRecorded(meter.recorded));
    RecordSize size = SettleAndMeasure(&meter, lease, Tokens(random() % 20000), MeterNow(meter, now));
    if (same_minute) sizes.Add(size);
    ++settled;
  }
  return sizes;
}

TEST(LogRecord, OfAPlainKeyIsOfSixPiecesAndNinetySixBytesAtMost) {
  uint32_t seed = 71;
  for (double rate : {0.1, 0.5, 2.0, 5.0})
    for (int64_t longest : {1000, 1000000, 30000000}) {
      Sizes sizes = SizesAt(rate, longest, ++seed);
      EXPECT_LE(sizes.most_pieces, 6) << rate << " " << longest;
      EXPECT_LE(sizes.most_bytes, 96) << rate << " " << longest;
    }
}

// With more selections in a second, more of the bits of settled ones change at once.
TEST(LogRecord, OfABusyKeyIsLittleLarger) {
  uint32_t seed = 81;
  for (double rate : {20.0, 60.0, 500.0})
    for (int64_t longest : {1000, 1000000, 30000000}) {
      Sizes sizes = SizesAt(rate, longest, ++seed);
      EXPECT_LE(sizes.most_pieces, 7) << rate << " " << longest;
      EXPECT_LE(sizes.most_bytes, 112) << rate << " " << longest;
      EXPECT_LE(sizes.bytes / sizes.count, 84) << rate << " " << longest;
    }
}

TEST(LogRecord, OfALoopIsOfLessThanAHundredAndTwentyBytes) {
  Sizes sizes = SizesAt(5000, 1000, 91);
  EXPECT_LE(sizes.bytes / sizes.count + kRecordHeader, 120);
}

TEST(LogRecord, OfTheFirstOfAMinuteIsLittleLarger) {
  Meter meter = KeyMeter();
  for (int minute = 0; minute < 100; ++minute) {
    for (int i = 0; i < 50; ++i) Use(&meter, Tokens(1000), At(minute * 60 + i), {}, {UINT32_MAX, UINT32_MAX});
    TimeUs now = At(minute * 60 + 60.5);
    RecordSize size = SettleAndMeasure(&meter, Select(&meter, Tokens(100), now), Tokens(100), now);
    bool closes_hour = minute % 60 == 59;  // which goes into the slots of its hour and its day
    EXPECT_LE(size.pieces, closes_hour ? 16 : 9);
    EXPECT_LE(size.bytes, closes_hour ? 250 : 160);
  }
}

TEST(LogRecord, OfARelease) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 300; ++i) {
    TimeUs now = At(i * 0.3);
    Reservation lease = Select(&meter, Tokens(100), now);
    MeterEdit edit(&meter);
    SettleOnce(&edit, lease, now);
    CountRelease(&edit);
    RecordSize size = SizeOf(&edit);
    EXPECT_LE(size.pieces, 3);
    EXPECT_LE(size.bytes, 68);
  }
}

}  // namespace
}  // namespace keypool
