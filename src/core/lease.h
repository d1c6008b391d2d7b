// lease.h - the opaque number that names one grant of one key.
//
// Never negative. Below the sign, from the top: 15 bits of the grant's second, 6 bits of its sequence, 12 bits of a
// checksum over the key's id and all of the rest (the whole second included), 30 bits of the estimate. The checksum
// tells a lease of another key, or a number that is no lease, from a real one in all but one of 4,096 cases; it is a
// guard against mistakes, not a signature.
#pragma once

#include "core/key_id.h"
#include "core/window.h"

namespace keypool {

// How far the clock may be away from a lease's second when the lease is read.
inline constexpr Second kLeaseAheadSeconds = 2 * 3600;                   // the clock stepped back
inline constexpr Second kLeaseLifeSeconds = 32768 - kLeaseAheadSeconds;  // about 7 hours

int64_t EncodeLease(const KeyId &key, const Reservation &reservation) noexcept;

// kInvalidArgument if the number is no lease, is one of another key, or is older than kLeaseLifeSeconds; the message
// says which. A lease of more than a week ago looks like another key's, and one of 200 leases of another key like an
// old one.
Status DecodeLease(const KeyId &key, int64_t lease, TimeUs now, Reservation *reservation) noexcept;

}  // namespace keypool
