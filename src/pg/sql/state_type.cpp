// state_type.cpp - the type keypool.state: in and out. The binary form holds the bytes of the text form, which every
// server reads alike.
#include "pg/server/postgres_api.h"

extern "C" {
#include "libpq/pqformat.h"
}

#include "core/key_state.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"

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

PG_FUNCTION_INFO_V1(keypool_state_recv);
Datum keypool_state_recv(PG_FUNCTION_ARGS) {
  auto *message = reinterpret_cast<StringInfo>(PG_GETARG_POINTER(0));
  int size = message->len - message->cursor;
  const char *given = pq_getmsgbytes(message, size);
  auto *state = static_cast<keypool::KeyState *>(palloc(sizeof(keypool::KeyState)));
  keypool::Status status = call_core([&] { return keypool::ParseState({given, static_cast<size_t>(size)}, state); });
  if (!status.ok()) ereport(ERROR, errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("%s", status.message));
  PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(keypool_state_send);
Datum keypool_state_send(PG_FUNCTION_ARGS) {
  keypool::KeyState state;  // a copy first, as above
  memcpy(&state, PG_GETARG_POINTER(0), sizeof(state));
  static char out[keypool::kMaxStateText];
  int size = static_cast<int>(keypool::FormatState(state, out));
  StringInfoData message;
  pq_begintypsend(&message);
  pq_sendbytes(&message, out, size);
  PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

}  // extern "C"
