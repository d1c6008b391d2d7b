// lease.cpp - packing a selection into a lease, and back.
#include "core/quota/lease.h"

#include <algorithm>
#include <cassert>

#include "core/quota/mix.h"

namespace keypool {

namespace {

constexpr uint64_t kVersion = 2;
constexpr int kBitsPerDigit = 6;
constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr int kVersionBits = 4, kSecondBits = 32, kSequenceBits = 6, kTokenBits = 30, kCostBits = 40, kTagBits = 16;
constexpr int kModelBits = 32, kProbeBits = 4, kChecksumBits = 16;
constexpr uint64_t Mask(int bits) { return (uint64_t{1} << bits) - 1; }

static_assert(kVersionBits + kSecondBits + kSequenceBits + 3 * kTokenBits + kCostBits + kMaxQuotas * kTagBits +
                  kModelBits + kProbeBits + 2 * kChecksumBits ==
              kBitsPerDigit * static_cast<int>(kLeaseSize));
static_assert(kMaxTokens <= static_cast<int64_t>(Mask(kTokenBits)) &&
              kMaxCost <= static_cast<int64_t>(Mask(kCostBits)));
static_assert(kTrackedSelections <= static_cast<int>(Mask(kSequenceBits)) && kMaxMeters <= kProbeBits);

// The bits of a lease, most significant first: words of fields, and one with the checksums over these.
constexpr int kWordBits = 64;
constexpr int kFieldBits = kBitsPerDigit * static_cast<int>(kLeaseSize) - 2 * kChecksumBits;
static_assert(kFieldBits % kWordBits == 0);
constexpr int kFieldWords = kFieldBits / kWordBits;
constexpr int kWords = kFieldWords + 1;

class BitWriter {
 public:
  void Put(uint64_t value, int bits) {
    assert(value <= Mask(bits));
    free_ -= bits;
    if (free_ >= 0) {
      words_[at_] |= value << free_;
      return;
    }
    words_[at_++] |= value >> -free_;
    free_ += kWordBits;
    words_[at_] = value << free_;
  }

  const uint64_t (&words() const)[kWords] { return words_; }

 private:
  uint64_t words_[kWords] = {};
  int at_ = 0;
  int free_ = kWordBits;
};

class BitReader {
 public:
  explicit BitReader(const uint64_t (&words)[kWords]) : words_(words) {}

  uint64_t Get(int bits) {
    int end = from_ % kWordBits + bits;
    uint64_t word = words_[from_ / kWordBits];
    uint64_t value = end <= kWordBits
                         ? word >> (kWordBits - end)
                         : word << (end - kWordBits) | words_[from_ / kWordBits + 1] >> (2 * kWordBits - end);
    from_ += bits;
    return value & Mask(bits);
  }

 private:
  const uint64_t (&words_)[kWords];
  int from_ = 0;
};

void WriteDigits(const uint64_t (&words)[kWords], char (&out)[kLeaseSize]) {
  constexpr int kDigitsAtOnce = 8;
  static_assert(kLeaseSize % kDigitsAtOnce == 0);
  BitReader reader(words);
  for (char *at = out; at != out + kLeaseSize; at += kDigitsAtOnce) {
    uint64_t bits = reader.Get(kDigitsAtOnce * kBitsPerDigit);
#pragma GCC unroll 8
    for (int i = 0; i < kDigitsAtOnce; ++i)
      at[i] = kDigits[bits >> (kDigitsAtOnce - 1 - i) * kBitsPerDigit & Mask(kBitsPerDigit)];
  }
}

struct DigitValues {
  int8_t of[256];

  constexpr DigitValues() : of() {
    for (int8_t &value : of) value = -1;
    for (int i = 0; i < 64; ++i) of[static_cast<unsigned char>(kDigits[i])] = static_cast<int8_t>(i);
  }
};
constexpr DigitValues kValues;

// False if it is no text of that many digits.
bool ReadDigits(std::string_view text, BitWriter *bits) {
  if (text.size() != kLeaseSize) return false;
  int all = 0;
  for (char c : text) all |= kValues.of[static_cast<unsigned char>(c)];
  if (all < 0) return false;
  for (char c : text) bits->Put(static_cast<uint64_t>(kValues.of[static_cast<unsigned char>(c)]), kBitsPerDigit);
  return true;
}

// Over the fields, and over them and the key.
struct Checksums {
  uint64_t text;
  uint64_t key;
};

Checksums ChecksumsOf(const KeyId &key, const uint64_t (&words)[kWords]) {
  uint64_t sum = 0;
  for (int i = 0; i < kFieldWords; ++i) sum = MixBits(sum ^ words[i]);
  return {sum >> (kWordBits - kChecksumBits), MixBits(sum ^ HashOfId(key)) >> (kWordBits - kChecksumBits)};
}

void WriteFields(const Lease &lease, BitWriter *writer) {
  const Reservation &reservation = lease.reservation;
  writer->Put(kVersion, kVersionBits);
  writer->Put(reservation.second, kSecondBits);
  writer->Put(reservation.sequence, kSequenceBits);
  writer->Put(static_cast<uint64_t>(reservation.estimates.tokens), kTokenBits);
  writer->Put(static_cast<uint64_t>(reservation.estimates.output), kTokenBits);
  writer->Put(static_cast<uint64_t>(reservation.estimates.cached), kTokenBits);
  writer->Put(static_cast<uint64_t>(reservation.estimates.cost), kCostBits);
  for (uint16_t tag : lease.quota_tag) writer->Put(tag, kTagBits);
  writer->Put(lease.model_hash, kModelBits);
  writer->Put(lease.probe_flags, kProbeBits);
}

// A quota that is named twice is settled once.
void DropRepeatedTags(Lease *lease) {
  uint16_t(&tag)[kMaxQuotas] = lease->quota_tag;
  for (int i = 1; i < kMaxQuotas; ++i)
    if (std::find(tag, tag + i, tag[i]) != tag + i) tag[i] = 0;
}

// All but the version, which is read already.
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
  assert(IsPossible(lease.reservation.estimates) && lease.reservation.sequence <= kTrackedSelections);
  BitWriter writer;
  WriteFields(lease, &writer);
  Checksums sums = ChecksumsOf(key, writer.words());
  writer.Put(sums.text, kChecksumBits);
  writer.Put(sums.key, kChecksumBits);
  WriteDigits(writer.words(), out);
}

Status DecodeLease(const KeyId &key, std::string_view text, TimeUs now, Lease *lease, LeaseAge *age) noexcept {
  *age = LeaseAge::kUnknown;
  *lease = {};
  Status no_lease = Failure(Code::kInvalidArgument, "lease is not one of this version of keypool");
  BitWriter bits;
  if (!ReadDigits(text, &bits)) return no_lease;
  BitReader reader(bits.words());
  if (reader.Get(kVersionBits) != kVersion) return no_lease;
  ReadFields(&reader, lease);
  Checksums sums = ChecksumsOf(key, bits.words());
  if (reader.Get(kChecksumBits) != sums.text || !IsPossible(lease->reservation.estimates)) return no_lease;
  if (reader.Get(kChecksumBits) != sums.key) return Failure(Code::kInvalidArgument, "lease belongs to another key");
  DropRepeatedTags(lease);
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
