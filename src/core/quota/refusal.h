// refusal.h - why a meter refuses a request, and until when. For admission.cpp.
//
// All times are the meter's own.
#pragma once

#include "core/quota/admission.h"
#include "core/quota/gauge.h"

namespace keypool {

bool IsBlocked(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept;

// By a block of this model alone.
bool IsModelKeptOut(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept;

// Whether the limits of the meter's window admit the request: slower than its sums, but also where slots are full or
// hold costs.
bool FitsOneByOne(const Meter &meter, const Limits &limits, const Request &request, TimeUs now) noexcept;

bool FitsBurst(const Meter &meter, const Limits &limits, TimeUs now) noexcept;

// Whether the slots in which it would be reserved can hold it.
bool FitsSlots(const Meter &meter, const Request &request, TimeUs now) noexcept;

// Of a request that is refused.
Admission Refusal(const Meter &meter, const Limits &limits, const Request &request, uint32_t model_hash,
                  TimeUs now) noexcept;

// The largest amounts that limits and slots have room for.
Request RoomOf(const Meter &meter, const Limits &limits, TimeUs now) noexcept;

}  // namespace keypool
