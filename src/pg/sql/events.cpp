// events.cpp - keypool_events: who changed what, and what went wrong, as far as the user may see it.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/server/arguments.h"

static const char *const kEvents =
    "SELECT id, at, event, provider_id, subject, subject_name, role, session_role, details FROM keypool.event_log"
    " WHERE id OPERATOR(pg_catalog.>) $1"
    " AND (provider_id OPERATOR(pg_catalog.=) $2 OR pg_catalog.length($2) OPERATOR(pg_catalog.=) 0) ORDER BY id DESC";
static constexpr int kColumns = 9;
static constexpr int kProviderColumn = 3;

// What concerns no one provider is for those who may look at all of them.
static bool may_see(Datum provider, bool is_null) {
  return privileges_allow(Right::kMonitor, is_null ? "" : text_view(DatumGetTextPP(provider)));
}

static void put_event(ReturnSetInfo *result, HeapTuple row, TupleDesc columns) {
  Datum values[kColumns];
  bool nulls[kColumns];
  heap_deform_tuple(row, columns, values, nulls);
  if (may_see(values[kProviderColumn], nulls[kProviderColumn]))
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_events);
Datum keypool_events(PG_FUNCTION_ARGS) {
  std::string_view provider = "";  // of all
  if (!PG_ARGISNULL(0)) {
    provider = argument_provider(fcinfo, 0);
    privileges_require(Right::kMonitor, provider);
  }
  InitMaterializedSRF(fcinfo, 0);
  QueryArguments arguments;
  arguments.Add(INT8OID, argument_given(fcinfo, 1) ? PG_GETARG_DATUM(1) : Int64GetDatum(0));
  arguments.Add(TEXTOID, PointerGetDatum(cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()))));
  SPI_connect();
  uint64 count = owner_execute_connected(kEvents, arguments);
  for (uint64 i = 0; i < count; ++i)
    put_event(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
  SPI_finish();
  return Datum{0};
}

}  // extern "C"
