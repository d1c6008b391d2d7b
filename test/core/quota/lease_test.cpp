// lease_test.cpp - a lease says what was selected, to the key that it is of, for some hours.
#include "core/quota/lease.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <set>
#include <string>

#include "meters.h"

namespace keypool {
namespace {

KeyId RandomId(std::mt19937_64 *random) {
  KeyId id;
  for (uint8_t &byte : id.bytes) byte = static_cast<uint8_t>((*random)());
  return id;
}

Lease RandomLease(std::mt19937_64 *random) {
  auto up_to = [&](uint64_t max) { return static_cast<int64_t>((*random)() % (max + 1)); };
  Lease lease = {};
  lease.reservation.second = SecondOf(kStart) + static_cast<Second>(up_to(1000));
  lease.reservation.sequence = static_cast<uint32_t>(up_to(kTrackedSelections));
  lease.reservation.estimates = {up_to(kMaxTokens), up_to(kMaxTokens), up_to(kMaxTokens), up_to(kMaxCost)};
  CoverParts(&lease.reservation.estimates);
  for (uint16_t &tag : lease.quota_tag) tag = static_cast<uint16_t>((*random)());
  lease.model_hash = static_cast<uint32_t>((*random)());
  lease.probe_flags = static_cast<uint8_t>(up_to(15));
  return lease;
}

bool Same(const Lease &a, const Lease &b) {
  return a.reservation.second == b.reservation.second && a.reservation.sequence == b.reservation.sequence &&
         a.reservation.estimates == b.reservation.estimates &&
         memcmp(a.quota_tag, b.quota_tag, sizeof(a.quota_tag)) == 0 && a.model_hash == b.model_hash &&
         a.probe_flags == b.probe_flags;
}

std::string Text(const KeyId &key, const Lease &lease) {
  char out[kLeaseSize];
  EncodeLease(key, lease, out);
  return {out, sizeof(out)};
}

TEST(Lease, ComesBackAsItWas) {
  std::mt19937_64 random(31);
  for (int i = 0; i < 20000; ++i) {
    KeyId key = RandomId(&random);
    Lease lease = RandomLease(&random), read;
    LeaseAge age;
    ASSERT_TRUE(DecodeLease(key, Text(key, lease), kStart, &read, &age).ok());
    ASSERT_EQ(age, LeaseAge::kUsable);
    ASSERT_TRUE(Same(lease, read));
  }
}

TEST(Lease, OfTheLargestNumbersComesBack) {
  Lease lease = {{UINT32_MAX, kTrackedSelections, {kMaxTokens, kMaxTokens, 0, kMaxCost}},
                 {65535, 65534, 65533},
                 UINT32_MAX,
                 15},
        read;
  LeaseAge age;
  EXPECT_TRUE(DecodeLease({}, Text({}, lease), StartOf(UINT32_MAX), &read, &age).ok());
  EXPECT_TRUE(Same(lease, read));
}

// As somebody may forge it. Settled twice, a quota would lose what is logged of the first time.
TEST(Lease, NamesAQuotaOnce) {
  auto read = [](uint16_t first, uint16_t second, uint16_t third) {
    Lease lease;
    LeaseAge age;
    EXPECT_TRUE(
        DecodeLease({}, Text({}, {{SecondOf(kStart), 0, {}}, {first, second, third}, 0, 0}), kStart, &lease, &age)
            .ok());
    return std::array{lease.quota_tag[0], lease.quota_tag[1], lease.quota_tag[2]};
  };
  EXPECT_EQ(read(7, 8, 9), (std::array<uint16_t, 3>{7, 8, 9}));
  EXPECT_EQ(read(7, 7, 9), (std::array<uint16_t, 3>{7, 0, 9}));
  EXPECT_EQ(read(7, 8, 7), (std::array<uint16_t, 3>{7, 8, 0}));
  EXPECT_EQ(read(7, 8, 8), (std::array<uint16_t, 3>{7, 8, 0}));
  EXPECT_EQ(read(7, 7, 7), (std::array<uint16_t, 3>{7, 0, 0}));
  EXPECT_EQ(read(0, 0, 7), (std::array<uint16_t, 3>{0, 0, 7}));
}

TEST(Lease, IsTextThatUrlsAndJsonTakeAsItIs) {
  std::mt19937_64 random(32);
  for (int i = 0; i < 1000; ++i)
    for (char c : Text(RandomId(&random), RandomLease(&random))) ASSERT_TRUE(isalnum(c) || c == '-' || c == '_');
}

TEST(Lease, OfAnotherKeyIsTold) {
  std::mt19937_64 random(33);
  int told = 0, taken = 0;
  for (int i = 0; i < 20000; ++i) {
    Lease read;
    LeaseAge age;
    Status status = DecodeLease(RandomId(&random), Text(RandomId(&random), RandomLease(&random)), kStart, &read, &age);
    taken += status.ok();
    told += strstr(status.message, "another key") != nullptr;
  }
  EXPECT_LE(taken, 3) << "by chance: 20000 / 65536";
  EXPECT_EQ(told + taken, 20000);
}

TEST(Lease, ThatIsNoneIsTold) {
  std::mt19937_64 random(34);
  KeyId key = RandomId(&random);
  std::string good = Text(key, RandomLease(&random));
  Lease read;
  LeaseAge age;
  for (std::string text :
       {std::string(), std::string("7382910337189"), good.substr(1), good + "A", good.substr(0, kLeaseSize - 1) + "=",
        good.substr(0, kLeaseSize - 1) + "\n", std::string(kLeaseSize, 'A'), std::string(kLeaseSize, '+')}) {
    Status status = DecodeLease(key, text, kStart, &read, &age);
    EXPECT_NE(strstr(status.message, "not one of this version"), nullptr) << text;
    EXPECT_EQ(age, LeaseAge::kUnknown);
  }
}

TEST(Lease, WithOneDigitChangedIsHardlyEverTaken) {
  std::mt19937_64 random(35);
  KeyId key = RandomId(&random);
  int taken = 0, count = 0;
  for (int i = 0; i < 500; ++i) {
    std::string text = Text(key, RandomLease(&random));
    for (size_t at = 0; at < text.size(); ++at) {
      std::string changed = text;
      changed[at] = changed[at] == 'Q' ? 'x' : 'Q';
      Lease read;
      LeaseAge age;
      taken += DecodeLease(key, changed, kStart, &read, &age).ok();
      ++count;
    }
  }
  EXPECT_LE(taken, 5) << "of " << count;
}

TEST(Lease, LivesSevenHoursAndSurvivesAStepBackOfTwo) {
  KeyId key = {{1}};
  Lease lease = {{SecondOf(kStart), 0, {5, 0, 0, 0}}, {}, 0, 0}, read;
  std::string text = Text(key, lease);
  LeaseAge age;
  EXPECT_TRUE(DecodeLease(key, text, At(kLeaseLifeSeconds), &read, &age).ok());
  Status old = DecodeLease(key, text, At(kLeaseLifeSeconds + 1), &read, &age);
  EXPECT_NE(strstr(old.message, "older than 7 hours"), nullptr);
  EXPECT_EQ(age, LeaseAge::kTooOld);
  EXPECT_TRUE(Same(lease, read)) << "its totals still count";
  EXPECT_TRUE(DecodeLease(key, text, At(-int64_t{kLeaseAheadSeconds}), &read, &age).ok());
  EXPECT_FALSE(DecodeLease(key, text, At(-int64_t{kLeaseAheadSeconds} - 1), &read, &age).ok());
}

TEST(QuotaTag, IsNeverNoneAndMostlyItsOwn) {
  std::mt19937_64 random(36);
  std::set<uint16_t> tags;
  for (int i = 0; i < 100; ++i) tags.insert(QuotaTag(RandomId(&random)));
  EXPECT_GE(tags.size(), 98u);
  EXPECT_EQ(tags.count(0), 0u);
}

}  // namespace
}  // namespace keypool
