// meter_type.cpp - the type keypool.meter: in and out. The binary form holds the bytes of the text form, which every
// server reads alike. And of 0.1.0's type keypool.state what its update needs: out.
#include "pg/server/postgres_api.h"

extern "C" {
#include "libpq/pqformat.h"
}

#include <string_view>

#include "core/quota/layout_1.h"
#include "core/quota/meter_text.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"

// Text of a meter that lies in memory, or on a page that is changed in place: a copy first, since it must not change
// while it is written.
static std::string_view text_of_meter(Datum value) {
  static char text[keypool::kMaxMeterText];
  keypool::Meter meter;
  memcpy(&meter, DatumGetPointer(value), sizeof(meter));
  return {text, keypool::FormatMeter(meter, text)};
}

static Datum meter_of_text(std::string_view text, int sqlstate) {
  auto *meter = static_cast<keypool::Meter *>(palloc(sizeof(keypool::Meter)));
  keypool::Status status = call_core([&] { return keypool::ParseMeter(text, meter); });
  if (!status.ok()) ereport(ERROR, errcode(sqlstate), errmsg("%s", status.message));
  return PointerGetDatum(meter);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_meter_in);
Datum keypool_meter_in(PG_FUNCTION_ARGS) {
  return meter_of_text(PG_GETARG_CSTRING(0), ERRCODE_INVALID_TEXT_REPRESENTATION);
}

PG_FUNCTION_INFO_V1(keypool_meter_out);
Datum keypool_meter_out(PG_FUNCTION_ARGS) {
  std::string_view text = text_of_meter(PG_GETARG_DATUM(0));
  PG_RETURN_CSTRING(pnstrdup(text.data(), text.size()));
}

PG_FUNCTION_INFO_V1(keypool_meter_recv);
Datum keypool_meter_recv(PG_FUNCTION_ARGS) {
  auto *message = reinterpret_cast<StringInfo>(PG_GETARG_POINTER(0));
  int size = message->len - message->cursor;
  return meter_of_text({pq_getmsgbytes(message, size), static_cast<size_t>(size)},
                       ERRCODE_INVALID_BINARY_REPRESENTATION);
}

PG_FUNCTION_INFO_V1(keypool_meter_send);
Datum keypool_meter_send(PG_FUNCTION_ARGS) {
  std::string_view text = text_of_meter(PG_GETARG_DATUM(0));
  StringInfoData message;
  pq_begintypsend(&message);
  pq_sendbytes(&message, text.data(), static_cast<int>(text.size()));
  PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

PG_FUNCTION_INFO_V1(keypool_state_in);
Datum keypool_state_in(PG_FUNCTION_ARGS) {
  ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
          errmsg("type keypool.state is of an older version of keypool"),
          errhint("Run ALTER EXTENSION keypool UPDATE."));
  PG_RETURN_NULL();
}

PG_FUNCTION_INFO_V1(keypool_state_out);
Datum keypool_state_out(PG_FUNCTION_ARGS) {
  keypool::KeyState1 state;  // a copy first, as above
  memcpy(&state, PG_GETARG_POINTER(0), sizeof(state));
  static char text[keypool::kMaxLayout1Text];
  size_t size = keypool::FormatLayout1(state, text);
  PG_RETURN_CSTRING(pnstrdup(text, size));
}

}  // extern "C"
