// lease.h - the opaque text that names one selection of one key.
//
// 45 characters of base64url (RFC 4648, section 5, without padding), 270 bits, most significant first:
//   version 2, second 32, sequence 6, tokens 30, output 30, cached 30, cost 40, three quota tags of 16, model hash 32,
//   probe flags 4, checksum 16
// A quota's tag is a hash of its id, unique in its provider; 0: none. The first half of the checksum is over all of the
// rest, the second over the key's id, too: text that is no lease, and a lease of another key, are told from a real one
// in all but one of 65,536 cases, and from each other in all but one of 256. A guard against mistakes, not a signature.
// Text, because JSON and JavaScript round large numbers.
#pragma once

#include <string_view>

#include "core/key_id.h"
#include "core/quota/settling.h"
#include "core/status.h"

namespace keypool {

inline constexpr size_t kLeaseSize = 45;
inline constexpr Second kLeaseAheadSeconds = 2 * 3600;  // how far the clock may have stepped back since
inline constexpr Second kLeaseLifeSeconds = 7 * 3600;
inline constexpr int kMaxQuotas = kMaxMeters - 1;

struct Lease {
  Reservation reservation;
  uint16_t quota_tag[kMaxQuotas];  // 0: none. No other is in a lease twice that was read
  uint32_t model_hash;             // 0: no model was named
  uint8_t probe_flags;             // bit i: it is the probe of the i-th meter's breaker
};

void EncodeLease(const KeyId &key, const Lease &lease, char (&out)[kLeaseSize]) noexcept;

// kInvalidArgument, with three messages: what is no lease at all (or one of an older version), one of another key, and
// one that is older than kLeaseLifeSeconds or from further ahead than kLeaseAheadSeconds. `age` tells the last apart:
// such a lease is read all the same, for totals still count. `now` is the meter's own.
enum class LeaseAge : uint8_t { kUnknown, kUsable, kTooOld };
Status DecodeLease(const KeyId &key, std::string_view text, TimeUs now, Lease *lease, LeaseAge *age) noexcept;

// The tag of a quota: a hash of its id, never 0.
uint16_t QuotaTag(const KeyId &quota) noexcept;

}  // namespace keypool
