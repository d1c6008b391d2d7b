// meter_text.h - a meter as text, for dumps.
//
// The layout's number, then `name=value` fields parted by one space. Only slots that hold something are written. Values
// of more than one number are parted by '/':
//   total_requests=N total_tokens=N total_output=N total_cached=N total_cost=N
//   last_used_at=US last_429_at=US blocked_until=US ring_width=S call_timeout=S
//   breaker=open_until/opened_at/failures/openings/reason/seconds
//   day=end/requests/tokens/output/cached/cost month=(likewise)
//   slot=number/requests/tokens/output/settled bits or cost
//   minute=M/requests/tokens/rate_limited model=hash/blocked_until
//   past_hour=hour/requests/tokens/rate_limited/peak requests/peak tokens past_day=(likewise)
//   turn=N last_selected_at=US selections=N releases=N expiries=N rate_limits=N repeats=N without_model=N
//   without_model_at=US probe_until=S
//   reserved=S/selected/open/tokens/output open=number/calls/tokens/cost
// A field may be missing: then it is as in a fresh meter of a key.
//
// Dumps of 0.1.0 hold layout 1, the state of a key (core/key_state_text.cpp). It becomes a meter of a key: totals,
// cooldown, window, minutes and open reservations stay. Its leases are of an older version; its calls can be settled
// without.
#pragma once

#include <string_view>

#include "core/quota/meter.h"
#include "core/status.h"

namespace keypool {

inline constexpr size_t kMaxMeterText = 32768;

// Writes the text form, with a NUL, and returns its length. What a crash tore is written as the nearest that can be.
size_t FormatMeter(const Meter &meter, char (&out)[kMaxMeterText]) noexcept;

// Reads the text form, of layout 1 or 2. kInvalidArgument if it is anything else, or holds a time beyond kLatestTime
// (for the end of a block, twice that): the meter would believe it for ever.
Status ParseMeter(std::string_view text, Meter *meter) noexcept;

}  // namespace keypool
