// meter_fuzzer.cpp - any bytes as the text of a meter, of either layout: refused, or a meter that is written and read
// back the same, and that goes on.
#include <cstdlib>
#include <cstring>

#include "core/quota/meter_text.h"
#include "core/quota/settling.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Meter meter, again;
  if (!ParseMeter({reinterpret_cast<const char *>(data), size}, &meter).ok()) return 0;
  static char text[kMaxMeterText];
  size_t length = FormatMeter(meter, text);
  if (length >= kMaxMeterText || !ParseMeter({text, length}, &again).ok()) abort();
  static char text_again[kMaxMeterText];
  if (FormatMeter(again, text_again) != length || memcmp(text, text_again, length) != 0) abort();
  TimeUs now = TimeUs{1767268800} * kMicrosPerSecond;
  PeriodEnds ends = {SecondOf(now) + 100, SecondOf(now) + 1000};
  MeterEdit edit(&meter);
  if (ClockWasWrong(meter, now)) MoveToNow(&edit, ends, 3600 * kMicrosPerSecond, now);
  now = MeterNow(meter, now);
  Reservation taken;
  if (meter.recorded.ring_width == kSecondSlots) TakeOldest(&edit, &taken, now);
  Count(&edit, {}, {5, 2, 1, 1}, SecondOf(now), ends, now);
  Reserve(&meter, {}, {5, 2, 1, 1}, meter.recorded.ring_width == kSecondSlots, 1, now);
  Limits limits;
  limits.of(Limit::kInFlight) = limits.of(Limit::kTpd) = 10;
  Admission admission = Admit(meter, limits, {{1, 1, 0, 0}, 5, now});
  if (!admission.admitted() && admission.moment <= now) abort();
  WindowUse use = UseInWindow(meter, now);
  if (use.tokens < 0 || use.requests < use.open || LoadOf(meter, {}, now).day_tokens < 0) abort();
  return 0;
}
