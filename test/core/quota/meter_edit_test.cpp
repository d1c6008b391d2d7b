// meter_edit_test.cpp - an edit tells every byte that it changes, and few others.
#include "core/quota/meter_edit.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

std::vector<std::pair<int, int>> Pieces(MeterEdit *edit) {
  const ChangedBytes *changes;
  int count = edit->Finish(&changes);
  std::vector<std::pair<int, int>> pieces;
  for (int i = 0; i < count; ++i) pieces.push_back({changes[i].offset, changes[i].length});
  return pieces;
}

constexpr int kRequests = offsetof(Meter, recorded.totals.requests);
constexpr int kTokens = offsetof(Meter, recorded.totals.tokens);
constexpr int kOutput = offsetof(Meter, recorded.totals.output);
using List = std::vector<std::pair<int, int>>;

TEST(MeterEdit, NotesTheBytesThatDiffer) {
  Meter meter = KeyMeter();
  meter.recorded.totals.requests = 0x010203;
  MeterEdit edit(&meter);
  edit.Set(meter.recorded.totals.requests, 0x010303);
  EXPECT_EQ(Pieces(&edit), (List{{kRequests + 1, 1}}));
  EXPECT_EQ(meter.recorded.totals.requests, 0x010303);
}

TEST(MeterEdit, NotesNothingWhereNothingChanges) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  edit.Set(meter.recorded.totals.requests, 0);
  edit.Set(meter.recorded.ring[3], {});
  EXPECT_EQ(Pieces(&edit), List{});
}

TEST(MeterEdit, GivesPiecesInTheirOrderWithoutOverlaps) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  edit.Set(meter.recorded.totals.output, 1);
  edit.Set(meter.recorded.totals.requests, 0x0101);
  edit.Set(meter.recorded.totals.output, 2);
  edit.NoteWhole(meter.recorded.totals.output);
  EXPECT_EQ(Pieces(&edit), (List{{kRequests, 2}, {kOutput, 8}}));
}

TEST(MeterEdit, MergesPiecesThatAreNear) {
  Meter meter = KeyMeter();
  MeterEdit near(&meter);
  near.Set(meter.recorded.totals.tokens, 1);
  near.Set(meter.recorded.totals.requests, 0x0101010101);
  EXPECT_EQ(Pieces(&near), (List{{kRequests, 9}})) << "3 bytes apart";
  MeterEdit far(&meter);
  far.Set(meter.recorded.totals.tokens, 2);
  far.Set(meter.recorded.totals.requests, 0x0101010102);
  EXPECT_EQ(Pieces(&far), (List{{kRequests, 1}, {kTokens, 1}})) << "7 bytes apart";
}

TEST(MeterEdit, NotesAsOneWhatShallBeOne) {
  Meter meter = KeyMeter();
  Totals totals = meter.recorded.totals;
  totals.requests = totals.tokens = totals.output = 1;
  MeterEdit edit(&meter);
  edit.SetAsOne(meter.recorded.totals, totals);
  EXPECT_EQ(Pieces(&edit), (List{{kRequests, 17}}));
  EXPECT_EQ(meter.recorded.totals.output, 1);
}

TEST(MeterEdit, NotesAllOfWhatMayHoldAHint) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  edit.SetWhole(meter.reserved.ring[5], {1, 2, 3, 4, 5});
  edit.SetHint(meter.reserved.releases, 9);
  EXPECT_EQ(Pieces(&edit), (List{{offsetof(Meter, reserved.ring[5]), 16}}));
  EXPECT_EQ(meter.reserved.releases, 9);
}

TEST(MeterEdit, OfTooManyPiecesIsOneOfAll) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  for (int i = 0; i <= kMaxChanges; ++i) edit.Set(meter.recorded.ring[i].tokens, 1);
  edit.Set(meter.recorded.totals.requests, 1);
  EXPECT_EQ(Pieces(&edit), (List{{0, sizeof(Meter)}}));
  EXPECT_EQ(meter.recorded.totals.requests, 1);
}

// Any edits: what is noted, copied over the meter as it was, makes it what it is.
TEST(MeterEdit, TellsAllThatItChanges) {
  std::mt19937 random(41);
  for (int round = 0; round < 5000; ++round) {
    Meter meter = KeyMeter();
    auto *bytes = reinterpret_cast<unsigned char *>(&meter);
    for (size_t i = sizeof(uint64_t); i < sizeof(Meter); ++i) bytes[i] = static_cast<unsigned char>(random() % 2);
    Meter before = meter;
    MeterEdit edit(&meter);
    for (unsigned i = 0, count = random() % 40; i < count; ++i) {
      int at = static_cast<int>(random() % kRingSlots);
      RecordedSlot slot = {random() % 2, uint32_t(random() % 2), uint32_t(random() % 3), uint32_t(random() % 70000), 0};
      switch (random() % 4) {
        case 0:
          edit.Set(meter.recorded.ring[at], slot);
          break;
        case 1:
          edit.SetAsOne(meter.recorded.totals,
                        Totals{int64_t(random() % 2), int64_t(random() % 2), int64_t(random() % 2), 0, 0, 1});
          break;
        case 2:
          edit.SetWhole(meter.reserved.ring[at], {Second(random() % 2), 1, 2, 3, 4});
          break;
        default:
          edit.Set(meter.recorded.history.rate_limited[at % kMinuteSlots], static_cast<uint16_t>(random()));
      }
    }
    int last = -kMergeGap;
    for (auto [offset, length] : Pieces(&edit)) {
      ASSERT_GE(offset, last + kMergeGap);
      memcpy(reinterpret_cast<unsigned char *>(&before) + offset, bytes + offset, static_cast<size_t>(length));
      last = offset + length;
    }
    ASSERT_EQ(memcmp(&before, &meter, sizeof(Meter)), 0);
  }
}

}  // namespace
}  // namespace keypool
