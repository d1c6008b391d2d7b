// state_fuzzer.cpp - any bytes as the text of a state: refused, or a state that is written and read back the same.
#include <cstdlib>
#include <cstring>

#include "core/window.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  KeyState state, again;
  if (!ParseState({reinterpret_cast<const char *>(data), size}, &state).ok()) return 0;
  static char text[kMaxStateText];
  size_t length = FormatState(state, text);
  if (length >= kMaxStateText || !ParseState({text, length}, &again).ok()) abort();
  if (memcmp(&state, &again, sizeof(state)) != 0) abort();
  TimeUs now = TimeUs{1767268800} * kMicrosPerSecond;
  StateEdit edit(&state);
  Record(&edit, nullptr, 5, now);
  Reserve(&state, 5, now, 0);
  if (UseInWindow(state, now).tokens < 0) abort();
  return 0;
}
