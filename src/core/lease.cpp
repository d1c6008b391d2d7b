// lease.cpp - packing a grant into a lease, and back.
#include "core/lease.h"

namespace keypool {

namespace {

constexpr int kTokenBits = 30;
constexpr int kChecksumBits = 12;
constexpr int kSequenceBits = 6;
constexpr int kSecondBits = 15;
constexpr uint64_t Mask(int bits) { return (uint64_t{1} << bits) - 1; }

static_assert(kMaxTokens <= static_cast<int64_t>(Mask(kTokenBits)));
static_assert(kSecondBits + kSequenceBits + kChecksumBits + kTokenBits == 63);
static_assert(kLeaseAheadSeconds + kLeaseLifeSeconds == Mask(kSecondBits) + 1);
static_assert(kTrackedGrants <= static_cast<int>(Mask(kSequenceBits)));

// The finalizer of MurmurHash3 (Austin Appleby, public domain): spreads every bit over all others.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

uint64_t Checksum(const KeyId &key, const Reservation &reservation) {
  uint64_t halves[2];
  memcpy(halves, key.bytes, sizeof(halves));
  uint64_t sum = Mix(halves[0] ^ Mix(halves[1]));
  sum = Mix(sum ^ (uint64_t{reservation.second} << 32 | reservation.sequence));
  sum = Mix(sum ^ static_cast<uint64_t>(reservation.tokens));
  return sum >> (64 - kChecksumBits);
}

// How far back an old lease is known for one: a week.
constexpr Second kOldLeaseSeconds = 7 * 86400;

// A number whose second and sequence are 0: a count of tokens, say.
bool IsSmall(int64_t lease) { return lease >> (kTokenBits + kChecksumBits) == 0; }

// Whether it is a lease of this key from before those that are still good.
bool IsOld(const KeyId &key, uint64_t checksum, Reservation reservation) {
  constexpr Second kPeriod = static_cast<Second>(Mask(kSecondBits)) + 1;
  for (Second age = kPeriod; age <= kOldLeaseSeconds + kPeriod; age += kPeriod) {
    reservation.second -= kPeriod;
    if (checksum == Checksum(key, reservation)) return true;
  }
  return false;
}

}  // namespace

int64_t EncodeLease(const KeyId &key, const Reservation &reservation) noexcept {
  uint64_t lease = reservation.second & Mask(kSecondBits);
  lease = lease << kSequenceBits | reservation.sequence;
  lease = lease << kChecksumBits | Checksum(key, reservation);
  lease = lease << kTokenBits | static_cast<uint64_t>(reservation.tokens);
  return static_cast<int64_t>(lease);
}

Status DecodeLease(const KeyId &key, int64_t lease, TimeUs now, Reservation *reservation) noexcept {
  uint64_t bits = static_cast<uint64_t>(lease);
  reservation->tokens = static_cast<int64_t>(bits & Mask(kTokenBits));
  bits >>= kTokenBits;
  uint64_t checksum = bits & Mask(kChecksumBits);
  bits >>= kChecksumBits;
  reservation->sequence = static_cast<uint32_t>(bits & Mask(kSequenceBits));
  uint32_t low_second = static_cast<uint32_t>(bits >> kSequenceBits);
  Second latest = static_cast<Second>(now / kMicrosPerSecond) + kLeaseAheadSeconds;
  reservation->second = latest - ((latest - low_second) & static_cast<Second>(Mask(kSecondBits)));
  bool possible = lease >= 0 && reservation->tokens <= kMaxTokens;
  if (possible && checksum == Checksum(key, *reservation)) return {};
  if (!possible || IsSmall(lease))
    return Failure(Code::kInvalidArgument, "lease is not a lease: no selection gives this number");
  if (IsOld(key, checksum, *reservation))
    return Failure(Code::kInvalidArgument, "lease is too old: it was good for %u hours", kLeaseLifeSeconds / 3600);
  return Failure(Code::kInvalidArgument, "lease does not belong to this key");
}

}  // namespace keypool
