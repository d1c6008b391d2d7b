// lease.h - the opaque text that names one selection of one key.
//
// 48 characters of base64url (RFC 4648, section 5), 288 bits, most significant first:
//   version 4, second 32, sequence 6, tokens 30, output 30, cached 30, cost 40, three quota tags of 16, model hash 32,
//   probe flags 4, and two checksums of 16
// A quota's tag is a hash of its id, unique in its provider; 0: none. One checksum is over all of these, the other over
// the key's id, too: of 65,536 texts that are no lease, or are a lease of another key, all but one are told from a real
// one. A guard against mistakes, not a signature. Text, because JSON and JavaScript round large numbers.
#pragma once

#include <string_view>

#include "core/key_id.h"
#include "core/quota/settling.h"
#include "core/status.h"

namespace keypool {

inline constexpr size_t kLeaseSize = 48;
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
