// state_type.cpp - the type keypool.state: text in and out.
#include "pg/postgres_api.h"

#include "core/key_state.h"
#include "pg/door.h"
#include "pg/report.h"

extern "C" {

PG_FUNCTION_INFO_V1(keypool_state_in);
Datum keypool_state_in(PG_FUNCTION_ARGS) {
  const char *given = PG_GETARG_CSTRING(0);
  auto *state = static_cast<keypool::KeyState *>(palloc(sizeof(keypool::KeyState)));
  keypool::Status status = call_core([&] { return keypool::ParseState(given, state); });
  if (!status.ok()) ereport(ERROR, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION), errmsg("%s", status.message));
  PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(keypool_state_out);
Datum keypool_state_out(PG_FUNCTION_ARGS) {
  // A copy first: where the value lies on a page that is changed in place, it must not change while it is written.
  keypool::KeyState state;
  memcpy(&state, PG_GETARG_POINTER(0), sizeof(state));
  static char out[keypool::kMaxStateText];
  size_t size = keypool::FormatState(state, out);
  PG_RETURN_CSTRING(pnstrdup(out, size));
}

}  // extern "C"
