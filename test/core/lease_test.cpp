// lease_test.cpp - leases name one grant of one key, and nothing else passes for one.
#include "core/lease.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
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

// Whether a lease is refused with a message that says so.
bool Refused(const KeyId &key, int64_t lease, const char *saying) {
  Reservation read;
  Status status = DecodeLease(key, lease, kNow, &read);
  return status.code == Code::kInvalidArgument && strstr(status.message, saying) != nullptr;
}

TEST(Lease, OfAnotherKeyIsRefusedAsSuch) {
  int refused = 0;
  for (int i = 0; i < 4096; ++i)
    refused += Refused(kOther, EncodeLease(kKey, Granted(i % 60, i % 64, i)), "does not belong to this key");
  EXPECT_GT(refused, 4050);
}

TEST(Lease, OfTheLastWeekIsTooOld) {
  int refused = 0;
  for (int i = 0; i < 1000; ++i) refused += Refused(kKey, EncodeLease(kKey, Granted(32768 + i * 571, 1, 5)), "too old");
  EXPECT_GT(refused, 990);
}

TEST(Lease, OfAMonthAgoIsRefused) {
  int refused = 0;
  for (int i = 0; i < 1000; ++i) refused += Refused(kKey, EncodeLease(kKey, Granted(2600000 + i, 1, 5)), "lease");
  EXPECT_GT(refused, 990);
}

TEST(Lease, NumbersThatNoSelectionGivesAreNoLeases) {
  int64_t too_many_tokens = EncodeLease(kKey, Granted(1, 2, 0)) | ((int64_t{1} << 30) - 1);
  int64_t with_checksum_alone = int64_t{1} << 41;
  for (int64_t number : {int64_t{-1}, std::numeric_limits<int64_t>::min(), -EncodeLease(kKey, Granted(1, 2, 3)),
                         int64_t{0}, int64_t{1}, int64_t{1000}, kMaxTokens, too_many_tokens, with_checksum_alone})
    EXPECT_TRUE(Refused(kKey, number, "is not a lease")) << number;
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
