// state_edit_test.cpp - what an edit notes is all that it changed.
#include "core/state_edit.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "core/window.h"

namespace keypool {
namespace {

// Puts the bytes that were noted into the state before, as recovery does.
void Replay(const StateEdit &edit, KeyState *before) {
  auto *to = reinterpret_cast<unsigned char *>(before);
  auto *from = reinterpret_cast<const unsigned char *>(&edit.state());
  for (int i = 0; i < edit.count(); ++i) {
    ChangedBytes change = edit.change(i);
    ASSERT_GT(change.length, 0);
    ASSERT_LE(size_t{change.offset} + change.length, sizeof(KeyState));
    memcpy(to + change.offset, from + change.offset, change.length);
  }
}

void ExpectSame(const KeyState &a, const KeyState &b) { ASSERT_EQ(memcmp(&a, &b, sizeof(a)), 0); }

TEST(StateEdit, NotesFromTheFirstChangedByteToTheLast) {
  KeyState state = FreshState();
  StateEdit edit(&state);
  edit.Set(state.recorded.total_requests, 0);
  EXPECT_EQ(edit.count(), 0);
  edit.Set(state.recorded.total_requests, 0x0100000000010000);
  edit.Set(state.reserved.granted[3], 7);
  ASSERT_EQ(edit.count(), 2);
  EXPECT_EQ(edit.change(0).length, 6);
  EXPECT_EQ(edit.change(1).offset, offsetof(KeyState, reserved) + offsetof(ReservedUsage, granted) + 3);
  EXPECT_EQ(edit.change(1).length, 1);
  EXPECT_EQ(state.recorded.total_requests, 0x0100000000010000);
}

TEST(StateEdit, OfMoreThanItCanNoteIsOfTheWholeState) {
  KeyState state = FreshState();
  KeyState before = state;
  StateEdit edit(&state);
  for (int i = 0; i < kSecondBuckets; ++i) {
    ASSERT_EQ(edit.count(), i <= kMaxChanges ? i : 1);
    edit.Set(state.recorded.requests[i], 5);
  }
  ASSERT_EQ(edit.count(), 1);
  EXPECT_EQ(edit.change(0).length, sizeof(KeyState));
  ASSERT_NO_FATAL_FAILURE(Replay(edit, &before));
  ExpectSame(state, before);
}

// Whatever is done to a key, recovery makes of what was noted the state that it made, with pieces to spare.
TEST(StateEdit, OfAnySettlingIsAllThatItChanged) {
  std::mt19937 random(9);
  KeyState state = FreshState();
  TimeUs now = TimeUs{1767268800} * kMicrosPerSecond;
  std::vector<Reservation> granted;
  int most = 0;
  for (int step = 0; step < 100000; ++step) {
    now += random() % 3 == 0 ? random() % 2000000 : random() % 1000 == 0 ? random() % 90000000 : 0;
    if (random() % 5000 == 0) now -= 30000000;
    granted.push_back(Reserve(&state, random() % 5000, now, 0));
    const Reservation &some = granted[granted.size() - 1 - random() % std::min<size_t>(granted.size(), 100)];
    const Reservation *reservation = random() % 3 == 0 ? nullptr : &some;
    KeyState before = state;
    StateEdit edit(&state);
    switch (random() % 8) {
      case 0:
        Release(&edit, some, now);
        break;
      case 1:
        Mark429(&edit, reservation, (1 + random() % 60) * kMicrosPerSecond, now);
        break;
      case 2:
        ClearCooldown(&edit);
        break;
      default:
        Record(&edit, reservation, random() % 5000, now);
    }
    most = std::max(most, edit.count());
    ASSERT_NO_FATAL_FAILURE(Replay(edit, &before));
    ASSERT_NO_FATAL_FAILURE(ExpectSame(state, before)) << "step " << step;
  }
  EXPECT_GT(most, 10);
  EXPECT_LT(most, kMaxChanges - 1);
}

// A record in the log is small.
TEST(StateEdit, OfARequestIsSmall) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 100, 1800000000 * kMicrosPerSecond, 0);
  StateEdit edit(&state);
  Record(&edit, &reservation, 100, 1800000001 * kMicrosPerSecond);
  int bytes = 0;
  for (int i = 0; i < edit.count(); ++i) bytes += edit.change(i).length;
  EXPECT_LE(edit.count(), 18);
  EXPECT_LE(bytes, 60);
}

}  // namespace
}  // namespace keypool
