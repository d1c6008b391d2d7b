// state_edit_test.cpp - what an edit notes is all that it changed.
#include "core/state_edit.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "core/window.h"

namespace keypool {
namespace {

constexpr uint16_t kStateOffset = 4000;  // of the state in its page

using PieceList = std::vector<std::pair<int, int>>;  // offset in the state, and length

// The pieces of an edit. Puts what they hold into the state before, as recovery does, if there is one.
PieceList PiecesOf(const StateEdit &edit, KeyState *before = nullptr) {
  PageDelta delta;
  edit.WriteDelta(kStateOffset, &delta);
  PieceList list;
  for (int at = 0; at < delta.size;) {
    uint16_t header[2];
    memcpy(header, delta.bytes + at, sizeof(header));
    at += int{sizeof(header)};
    int offset = header[0] - kStateOffset;
    EXPECT_TRUE(offset >= 0 && header[1] > 0 && size_t{header[1]} + offset <= sizeof(KeyState));
    EXPECT_LE(at + header[1], delta.size);
    if (before != nullptr) memcpy(reinterpret_cast<char *>(before) + offset, delta.bytes + at, header[1]);
    list.emplace_back(offset, header[1]);
    at += header[1];
  }
  return list;
}

void ExpectSame(const KeyState &a, const KeyState &b) { ASSERT_EQ(memcmp(&a, &b, sizeof(a)), 0); }

// The pieces as PostgreSQL finds them: all bytes are compared, and up to four equal ones do not end a piece.
PieceList PiecesByComparing(const KeyState &before, const KeyState &after) {
  auto *was = reinterpret_cast<const unsigned char *>(&before);
  auto *is = reinterpret_cast<const unsigned char *>(&after);
  PieceList list;
  for (int at = 0; at < int{sizeof(KeyState)}; ++at) {
    if (was[at] == is[at]) continue;
    if (list.empty() || at - (list.back().first + list.back().second) > 4) list.emplace_back(at, 0);
    list.back().second = at + 1 - list.back().first;
  }
  return list;
}

TEST(StateEdit, NotesTheBytesThatDifferInTheirOrder) {
  KeyState state = FreshState();
  StateEdit edit(&state);
  const int recorded = offsetof(KeyState, recorded),
            granted = offsetof(KeyState, reserved) + offsetof(ReservedUsage, granted);
  edit.Set(state.recorded.total_requests, 0);
  EXPECT_FALSE(edit.changed());
  edit.Set(state.reserved.granted[3], 7);
  edit.Set(state.recorded.total_requests, 0x0000010000010000);
  EXPECT_TRUE(edit.changed());
  EXPECT_EQ(PiecesOf(edit), (PieceList{{recorded + 2, 4}, {granted + 3, 1}}));
  EXPECT_EQ(state.recorded.total_requests, 0x0000010000010000);
}

TEST(StateEdit, MergesWhatFourBytesOrFewerPart) {
  KeyState state = FreshState();
  StateEdit edit(&state);
  const int granted = offsetof(KeyState, reserved) + offsetof(ReservedUsage, granted);
  for (int i : {9, 4, 20, 14}) edit.Set(state.reserved.granted[i], 1);
  EXPECT_EQ(PiecesOf(edit), (PieceList{{granted + 4, 11}, {granted + 20, 1}}));
}

TEST(StateEdit, PartsAFieldThatChangesAtBothEnds) {
  KeyState state = FreshState();
  StateEdit edit(&state);
  const int recorded = offsetof(KeyState, recorded);
  edit.Set(state.recorded.total_requests, 0x0100000000000001);
  EXPECT_EQ(PiecesOf(edit), (PieceList{{recorded, 1}, {recorded + 7, 1}}));
}

TEST(StateEdit, NotesNothingOfWhatWasChangedBack) {
  KeyState state = FreshState();
  StateEdit edit(&state);
  edit.Set(state.recorded.total_tokens, 5);
  edit.Set(state.recorded.total_requests, 5);
  edit.Set(state.recorded.total_tokens, 6);
  edit.Set(state.recorded.total_tokens, 0);
  EXPECT_EQ(PiecesOf(edit), (PieceList{{offsetof(KeyState, recorded), 1}}));
}

// As many pieces as there can be.
TEST(StateEdit, HasRoomForTheWorst) {
  KeyState state = FreshState();
  const KeyState before = state;
  KeyState replayed = state;
  StateEdit edit(&state);
  for (int64_t &tokens : state.recorded.tokens) edit.Set(tokens, 0x0100000000000001);
  for (uint64_t &open : state.reserved.open) edit.Set(open, 0x0100000000000001);
  for (int64_t &tokens : state.reserved.tokens) edit.Set(tokens, -1);
  EXPECT_EQ(PiecesOf(edit, &replayed), PiecesByComparing(before, state));
  ExpectSame(state, replayed);
}

// Whatever is done to a key, what was noted is what comparing finds, and recovery makes of it the state that it made.
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
    PieceList expected = PiecesByComparing(before, state);
    PieceList pieces = PiecesOf(edit, &before);
    most = std::max(most, static_cast<int>(pieces.size()));
    ASSERT_EQ(pieces, expected) << "step " << step;
    ASSERT_NO_FATAL_FAILURE(ExpectSame(state, before)) << "step " << step;
  }
  EXPECT_GT(most, 8);
}

// A record in the log is small.
TEST(StateEdit, OfARequestIsSmall) {
  KeyState state = FreshState();
  Reservation reservation = Reserve(&state, 100, 1800000000 * kMicrosPerSecond, 0);
  StateEdit edit(&state);
  Record(&edit, &reservation, 100, 1800000001 * kMicrosPerSecond);
  int bytes = 0;
  for (const auto &[offset, length] : PiecesOf(edit)) bytes += length;
  EXPECT_LE(PiecesOf(edit).size(), 13);
  EXPECT_LE(bytes, 60);
}

}  // namespace
}  // namespace keypool
