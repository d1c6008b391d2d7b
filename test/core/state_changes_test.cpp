// state_changes_test.cpp - the bytes that are found make of one state the other.
#include "core/state_changes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/window.h"

namespace keypool {
namespace {

TEST(StateChanges, MakeOneStateOfTheOther) {
  std::mt19937 random(9);
  for (int round = 0; round < 3000; ++round) {
    KeyState before = FreshState();
    auto *bytes = reinterpret_cast<unsigned char *>(&before);
    for (size_t i = 0; i < sizeof(before); ++i) bytes[i] = static_cast<unsigned char>(random() % 3);
    KeyState after = before;
    auto *changed = reinterpret_cast<unsigned char *>(&after);
    size_t wanted = random() % 4 == 0 ? random() % 4000 : random() % 20;
    for (size_t i = 0; i < wanted; ++i) changed[random() % sizeof(after)] ^= random() % 3;
    ChangedBytes pieces[kMaxChanges];
    int count = FindChanges(before, after, pieces);
    ASSERT_LE(count, kMaxChanges);
    size_t end = 0;
    for (int i = 0; i < count; ++i) {
      ASSERT_GE(pieces[i].offset, end);
      ASSERT_GT(pieces[i].length, 0);
      end = size_t{pieces[i].offset} + pieces[i].length;
      ASSERT_LE(end, sizeof(before));
      ASSERT_NE(bytes[pieces[i].offset], changed[pieces[i].offset]);
      ASSERT_NE(bytes[end - 1], changed[end - 1]);
      memcpy(bytes + pieces[i].offset, changed + pieces[i].offset, pieces[i].length);
    }
    ASSERT_EQ(memcmp(&before, &after, sizeof(before)), 0);
  }
}

TEST(StateChanges, AtEitherEndAndEverywhere) {
  KeyState before = FreshState();
  KeyState after = before;
  ChangedBytes pieces[kMaxChanges];
  EXPECT_EQ(FindChanges(before, after, pieces), 0);
  auto *bytes = reinterpret_cast<unsigned char *>(&after);
  bytes[0] ^= 1;
  bytes[sizeof(after) - 1] ^= 1;
  ASSERT_EQ(FindChanges(before, after, pieces), 2);
  EXPECT_EQ(pieces[0].offset, 0);
  EXPECT_EQ(pieces[1].offset, sizeof(after) - 1);
  for (size_t i = 0; i < sizeof(after); i += 16) bytes[i] ^= 2;
  EXPECT_EQ(FindChanges(before, after, pieces), kMaxChanges);
  for (size_t i = 0; i < sizeof(after); ++i)
    bytes[i] = static_cast<unsigned char>(~reinterpret_cast<unsigned char *>(&before)[i]);
  ASSERT_EQ(FindChanges(before, after, pieces), 1);
  EXPECT_EQ(pieces[0].length, sizeof(after));
}

// A record is small: what one request changes lies in a few places.
TEST(StateChanges, OfARequestAreFew) {
  KeyState before = FreshState();
  Reserve(&before, 100, 1800000000 * kMicrosPerSecond, 0);
  KeyState after = before;
  Record(&after, nullptr, 100, 1800000001 * kMicrosPerSecond);
  ChangedBytes pieces[kMaxChanges];
  int count = FindChanges(before, after, pieces);
  int bytes = 0;
  for (int i = 0; i < count; ++i) bytes += pieces[i].length;
  EXPECT_LE(count, 15);
  EXPECT_LE(bytes, 60);
}

}  // namespace
}  // namespace keypool
