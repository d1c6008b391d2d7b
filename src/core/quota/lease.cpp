// lease.cpp - packing a selection into a lease, and back.
#include "core/quota/lease.h"

#include <cassert>

#include "core/quota/mix.h"

namespace keypool {

namespace {

constexpr uint64_t kVersion = 2;
constexpr int kBitsPerDigit = 6;
constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr int kVersionBits = 2, kSecondBits = 32, kSequenceBits = 6, kTokenBits = 30, kCostBits = 40, kTagBits = 16;
constexpr int kModelBits = 32, kProbeBits = 4, kChecksumBits = 8;  // of each half
constexpr uint64_t Mask(int bits) { return (uint64_t{1} << bits) - 1; }

static_assert(kVersionBits + kSecondBits + kSequenceBits + 3 * kTokenBits + kCostBits + kMaxQuotas * kTagBits +
                  kModelBits + kProbeBits + 2 * kChecksumBits ==
              kBitsPerDigit * static_cast<int>(kLeaseSize));
static_assert(kMaxTokens <= static_cast<int64_t>(Mask(kTokenBits)) &&
              kMaxCost <= static_cast<int64_t>(Mask(kCostBits)));
static_assert(kTrackedSelections <= static_cast<int>(Mask(kSequenceBits)) && kMaxMeters <= kProbeBits);

// Writes numbers of some bits each, and digits whenever there are six.
class BitWriter {
 public:
  explicit BitWriter(char *out) : at_(out) {}

  void Put(uint64_t value, int bits) {
    assert(value <= Mask(bits) && count_ < kBitsPerDigit);
    held_ = held_ << bits | value;
    for (count_ += bits; count_ >= kBitsPerDigit;) {
      count_ -= kBitsPerDigit;
      *at_++ = kDigits[held_ >> count_ & Mask(kBitsPerDigit)];
    }
    held_ &= Mask(count_);
  }

 private:
  char *at_;
  uint64_t held_ = 0;
  int count_ = 0;
};

int DigitValue(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '-' ? 62 : c == '_' ? 63 : -1;
}

// Reads what BitWriter wrote, from digits only.
class BitReader {
 public:
  explicit BitReader(std::string_view digits) : at_(digits.data()) {}

  uint64_t Get(int bits) {
    for (; count_ < bits; count_ += kBitsPerDigit)
      held_ = held_ << kBitsPerDigit | static_cast<uint64_t>(DigitValue(*at_++));
    count_ -= bits;
    uint64_t value = held_ >> count_ & Mask(bits);
    held_ &= Mask(count_);
    return value;
  }

 private:
  const char *at_;
  uint64_t held_ = 0;
  int count_ = 0;
};

// Over the fields, and over them and the key.
struct Checksums {
  uint64_t text;
  uint64_t key;
};

Checksums ChecksumsOf(const KeyId &key, const Lease &lease) {
  const Reservation &reservation = lease.reservation;
  uint64_t sum = MixBits(uint64_t{reservation.second} << 32 | reservation.sequence);
  const Amounts &estimates = reservation.estimates;
  for (int64_t amount : {estimates.tokens, estimates.output, estimates.cached, estimates.cost})
    sum = MixBits(sum ^ static_cast<uint64_t>(amount));
  for (uint16_t tag : lease.quota_tag) sum = MixBits(sum ^ tag);
  sum = MixBits(sum ^ (uint64_t{lease.model_hash} << 8 | lease.probe_flags));
  return {sum >> (64 - kChecksumBits), MixBits(sum ^ HashOfId(key)) >> (64 - kChecksumBits)};
}

bool IsLeaseText(std::string_view text) {
  if (text.size() != kLeaseSize) return false;
  for (char c : text)
    if (DigitValue(c) < 0) return false;
  return true;
}

void ReadFields(BitReader *reader, Lease *lease) {
  Reservation &reservation = lease->reservation;
  reservation.second = static_cast<Second>(reader->Get(kSecondBits));
  reservation.sequence = static_cast<uint32_t>(reader->Get(kSequenceBits));
  reservation.estimates.tokens = static_cast<int64_t>(reader->Get(kTokenBits));
  reservation.estimates.output = static_cast<int64_t>(reader->Get(kTokenBits));
  reservation.estimates.cached = static_cast<int64_t>(reader->Get(kTokenBits));
  reservation.estimates.cost = static_cast<int64_t>(reader->Get(kCostBits));
  for (uint16_t &tag : lease->quota_tag) tag = static_cast<uint16_t>(reader->Get(kTagBits));
  lease->model_hash = static_cast<uint32_t>(reader->Get(kModelBits));
  lease->probe_flags = static_cast<uint8_t>(reader->Get(kProbeBits));
}

// What no selection can have: such a lease would break what the meters rely on.
bool IsPossible(const Amounts &estimates) {
  Amounts cut = estimates;
  return !CutToRange(&cut) && !CoverParts(&cut) && cut == estimates;
}

LeaseAge AgeOf(Second second, TimeUs now) {
  auto age = static_cast<int64_t>(SecondOf(now)) - second;
  return age <= kLeaseLifeSeconds && age >= -static_cast<int64_t>(kLeaseAheadSeconds) ? LeaseAge::kUsable
                                                                                      : LeaseAge::kTooOld;
}

}  // namespace

void EncodeLease(const KeyId &key, const Lease &lease, char (&out)[kLeaseSize]) noexcept {
  const Reservation &reservation = lease.reservation;
  assert(IsPossible(reservation.estimates) && reservation.sequence <= kTrackedSelections);
  BitWriter writer(out);
  writer.Put(kVersion, kVersionBits);
  writer.Put(reservation.second, kSecondBits);
  writer.Put(reservation.sequence, kSequenceBits);
  writer.Put(static_cast<uint64_t>(reservation.estimates.tokens), kTokenBits);
  writer.Put(static_cast<uint64_t>(reservation.estimates.output), kTokenBits);
  writer.Put(static_cast<uint64_t>(reservation.estimates.cached), kTokenBits);
  writer.Put(static_cast<uint64_t>(reservation.estimates.cost), kCostBits);
  for (uint16_t tag : lease.quota_tag) writer.Put(tag, kTagBits);
  writer.Put(lease.model_hash, kModelBits);
  writer.Put(lease.probe_flags, kProbeBits);
  Checksums sums = ChecksumsOf(key, lease);
  writer.Put(sums.text, kChecksumBits);
  writer.Put(sums.key, kChecksumBits);
}

Status DecodeLease(const KeyId &key, std::string_view text, TimeUs now, Lease *lease, LeaseAge *age) noexcept {
  *age = LeaseAge::kUnknown;
  *lease = {};
  Status no_lease = Failure(Code::kInvalidArgument, "lease is not one of this version of keypool");
  if (!IsLeaseText(text)) return no_lease;
  BitReader reader(text);
  if (reader.Get(kVersionBits) != kVersion) return no_lease;
  ReadFields(&reader, lease);
  Checksums sums = ChecksumsOf(key, *lease);
  if (reader.Get(kChecksumBits) != sums.text || !IsPossible(lease->reservation.estimates)) return no_lease;
  if (reader.Get(kChecksumBits) != sums.key) return Failure(Code::kInvalidArgument, "lease belongs to another key");
  *age = AgeOf(lease->reservation.second, now);
  if (*age == LeaseAge::kUsable) return {};
  return Failure(Code::kInvalidArgument, "lease is older than %u hours, or the clock has stepped back",
                 kLeaseLifeSeconds / 3600);
}

uint16_t QuotaTag(const KeyId &quota) noexcept {
  auto tag = static_cast<uint16_t>(HashOfId(quota) >> 48);
  return tag == 0 ? 1 : tag;
}

}  // namespace keypool
