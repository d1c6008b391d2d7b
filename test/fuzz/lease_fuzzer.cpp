// lease_fuzzer.cpp - any number as a lease, applied to any history: nothing goes below zero, and a good lease comes
// back as it was.
#include <cstdlib>
#include <cstring>

#include "core/lease.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  KeyState state = FreshState();
  KeyId key = {{1, 2, 3}};
  TimeUs now = TimeUs{1767268800} * kMicrosPerSecond;
  int64_t last_lease = 0;
  for (; size >= 10; data += 10, size -= 10) {
    int64_t number;
    memcpy(&number, data + 2, sizeof(number));
    now += (data[1] - 20) * kMicrosPerSecond / 8;
    int64_t tokens = number & 0xfffff;
    if (data[0] % 3 == 0) number = last_lease;
    Reservation lease;
    bool good = DecodeLease(key, number, now, &lease).ok();
    if (good && EncodeLease(key, lease) != number) abort();
    StateEdit edit(&state);
    switch (data[0] % 5) {
      case 0:
        last_lease = EncodeLease(key, Reserve(&state, tokens, now, 0));
        break;
      case 1:
        Record(&edit, good ? &lease : nullptr, tokens, now);
        break;
      case 2:
        if (good) Release(&edit, lease, now);
        break;
      case 3:
        Mark429(&edit, good ? &lease : nullptr, (1 + tokens % 100) * kMicrosPerSecond, now);
        break;
      default:
        ClearCooldown(&edit);
    }
    WindowUse use = UseInWindow(state, now);
    if (use.requests < use.open || use.open < 0 || use.tokens < 0) abort();
    Admission admission = Admit(state, {1 + tokens % 50, 0}, 0, now);
    if (!admission.admitted && admission.moment <= now) abort();
  }
  return 0;
}
