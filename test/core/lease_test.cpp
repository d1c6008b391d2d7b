// lease_test.cpp - leases name one grant of one key, and nothing else passes for one.
#include "core/lease.h"

#include <gtest/gtest.h>

#include <random>

namespace keypool {
namespace {

constexpr TimeUs kNow = TimeUs{1767268800} * kMicrosPerSecond;
constexpr KeyId kKey = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
constexpr KeyId kOther = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17}};

Reservation Granted(int64_t seconds_ago, uint32_t sequence, int64_t tokens) {
  return {static_cast<Second>(kNow / kMicrosPerSecond - seconds_ago), sequence, tokens};
}

TEST(Lease, ComesBackAsItWas) {
  for (int64_t ago : {-7000, -1, 0, 1, 60, 3600, 25000})
    for (uint32_t sequence : {0u, 1u, 62u, 63u})
      for (int64_t tokens : {int64_t{0}, int64_t{1}, kMaxTokens}) {
        Reservation reservation = Granted(ago, sequence, tokens), read;
        int64_t lease = EncodeLease(kKey, reservation);
        EXPECT_GE(lease, 0);
        ASSERT_TRUE(DecodeLease(kKey, lease, kNow, &read).ok()) << ago;
        EXPECT_EQ(read.second, reservation.second);
        EXPECT_EQ(read.sequence, sequence);
        EXPECT_EQ(read.tokens, tokens);
      }
}

TEST(Lease, OfAnotherKeyIsRefused) {
  int refused = 0;
  for (int i = 0; i < 4096; ++i) {
    Reservation read;
    refused += !DecodeLease(kOther, EncodeLease(kKey, Granted(i % 60, i % 64, i)), kNow, &read).ok();
  }
  EXPECT_GT(refused, 4080);
}

TEST(Lease, OfTwoDaysAgoIsRefused) {
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    Reservation read;
    refused += !DecodeLease(kKey, EncodeLease(kKey, Granted(172800 + i, 1, 5)), kNow, &read).ok();
  }
  EXPECT_GT(refused, 990);
}

TEST(Lease, RandomNumbersAreRefused) {
  std::mt19937_64 random(3);
  int refused = 0;
  for (int i = 0; i < 4096; ++i) {
    Reservation read;
    Status status = DecodeLease(kKey, static_cast<int64_t>(random()), kNow, &read);
    refused += !status.ok();
    EXPECT_TRUE(status.ok() || status.code == Code::kInvalidArgument);
  }
  EXPECT_GT(refused, 4080);
}

}  // namespace
}  // namespace keypool
