// gauge.h - what counts against one limit, and when it leaves. For admission.cpp and refusal.cpp.
#pragma once

#include "core/quota/limits.h"
#include "core/quota/slots.h"

namespace keypool {

// A request, as one meter counts it.
struct Request {
  int64_t tokens;
  int64_t output;
  int64_t cost;
};

// Whether so much more may come: less than the limit is used, and with the rest it is kept.
inline bool HasRoom(int64_t max, int64_t use, int64_t more) {
  assert(max >= 0 && use >= 0 && more >= 0);
  return max == 0 || (use < max && more <= max - use);
}

// What of a request counts against a limit.
int64_t AmountFor(Limit limit, const Request &request) noexcept;

// All that counts against one limit at a moment, which is the meter's own, oldest first.
class Gauge {
 public:
  Gauge(const Meter &meter, const Limits &limits, Limit limit, TimeUs now) noexcept;

  int64_t use() const { return use_; }

  // The first moment at which there is room for so much more, if nothing else happens; `now` if there is.
  TimeUs FirstRoom(int64_t max, int64_t more) const noexcept;

 private:
  struct Leaving {
    TimeUs at;
    int64_t amount;
  };

  template <typename OfRecorded, typename OfReserved>
  void AddSlots(const Meter &meter, OfRecorded of_recorded, OfReserved of_reserved) noexcept;
  void AddWindow(const Meter &meter, Limit limit) noexcept;
  void AddPeriod(const Meter &meter, const Period &period, const CountRule &rule, Limit limit) noexcept;
  void AddOpen(const Meter &meter, Limit limit) noexcept;

  void AddCounted(TimeUs at, int64_t amount) noexcept {
    assert(amount > 0 && counted_count_ <= static_cast<int>(kWindowSlots));
    counted_[counted_count_++] = {at, amount};
    use_ = SaturatingSum(use_, amount);
  }

  TimeUs now_;
  int64_t use_ = 0;
  int counted_count_ = 0;
  int open_count_ = 0;
  Leaving counted_[kWindowSlots + 1];
  Leaving open_[kOpenSlots];
};

}  // namespace keypool
