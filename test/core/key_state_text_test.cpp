// key_state_text_test.cpp - a state survives its text form, and nothing else is taken for one.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "core/window.h"
#include "unlogged_edits.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;

std::string Text(const KeyState &state) {
  char out[kMaxStateText];
  size_t size = FormatState(state, out);
  return {out, size};
}

TEST(KeyStateText, KeepsEverything) {
  std::mt19937 random(11);
  KeyState state = FreshState(), read;
  TimeUs now = kStart;
  for (int i = 0; i < 3000; ++i) {
    now += random() % 3000000;
    Reservation lease = Reserve(&state, random() % 5000, now, 0);
    if (random() % 2) Record(&state, &lease, random() % 5000, now);
    if (random() % 50 == 0) Mark429(&state, nullptr, 30 * kMicrosPerSecond, now);
    if (i % 100 != 0) continue;
    ASSERT_TRUE(ParseState(Text(state), &read).ok());
    ASSERT_EQ(memcmp(&state, &read, sizeof(state)), 0);
  }
}

TEST(KeyStateText, OfAFreshStateIsShort) {
  KeyState read;
  EXPECT_TRUE(ParseState("1", &read).ok());
  KeyState fresh = FreshState();
  EXPECT_EQ(memcmp(&fresh, &read, sizeof(read)), 0);
}

TEST(KeyStateText, FitsEvenIfEveryNumberIsTheGreatest) {
  KeyState state;
  memset(&state, 0xff, sizeof(state));
  state.recorded.total_requests = state.recorded.total_tokens = INT64_MAX;
  EXPECT_LT(Text(state).size(), kMaxStateText);
}

TEST(KeyStateText, OfATornStateCanBeRead) {
  std::mt19937 random(12);
  for (int round = 0; round < 200; ++round) {
    KeyState state = FreshState(), read;
    for (int i = 0; i < kSecondBuckets; ++i) {
      state.reserved.second[i] = 1767268800 + static_cast<Second>(i);
      state.reserved.granted[i] = static_cast<uint8_t>(random() % 64);
      state.reserved.tokens[i] = static_cast<int64_t>(uint64_t{random()} << 32 | random());
    }
    EXPECT_TRUE(ParseState(Text(state), &read).ok());
  }
}

TEST(KeyStateText, RefusesWhatIsNone) {
  KeyState read;
  for (const char *text :
       {"", "2", "x", "1  total_requests=1", "1 total_requests", "1 total_requests=", "1 total_requests=-1",
        "1 total_requests=1x", "1 unknown=1", "1 second=1/2", "1 second=1/2/3/4", "1 second=0/1/1",
        "1 second=5/1/1 second=5/1/1", "1 second=5/1/1 second=69/1/1", "1 minute=1/1/1", "1 reserved=5/64/0/0/0",
        "1 total_tokens=9223372036854775808"})
    EXPECT_EQ(ParseState(text, &read).code, Code::kInvalidArgument) << text;
}

}  // namespace
}  // namespace keypool
