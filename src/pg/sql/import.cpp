// import.cpp - keypool_import: takes over the tables of the service that keypool replaces.
//
// Runs entirely as the caller, who must be allowed to read the source and to write keypool's tables. The source may be
// anybody's: no statement names it.
#include "pg/server/postgres_api.h"

#include "pg/catalog/relations.h"
#include "pg/catalog/source_table.h"
#include "pg/secrets/new_secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"

// Times and ids may be text or what they should be; through text both read alike. A key that is off stays off, unless
// its cooldown goes on: then it comes back after that.
static const char *const kImportKeys =
    "INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority, max_rpm, max_tpm, is_active,"
    "  inactive_until, created_at, updated_at)"
    " SELECT id::text::uuid, provider_id, key_label, key_value, COALESCE(priority, 0),"
    "  NULLIF(GREATEST(max_rpm, 0), 0), NULLIF(GREATEST(max_tpm, 0), 0), is_active,"
    "  CASE WHEN NOT is_active AND cooldown_until::text::timestamptz > $1 THEN cooldown_until::text::timestamptz END,"
    "  COALESCE(created_at::text::timestamptz, now()),"
    "  COALESCE(updated_at::text::timestamptz, created_at::text::timestamptz, now())"
    " FROM %s";

// The meter in the text form of layout 1 (see meter_text.h), which says all that is known. What was used in the running
// minute counts as used now, what was used in the one before as used in its last second: later than it was, so that no
// limit can be exceeded by moving.
static const char *const kImportMeters =
    "WITH source_key AS ("
    "  SELECT id::text::uuid AS id, COALESCE(total_requests, 0) AS requests, COALESCE(total_tokens, 0) AS tokens,"
    "   COALESCE((extract(epoch FROM last_used_at::text::timestamptz) * 1000000)::bigint, 0) AS last_used,"
    "   COALESCE((extract(epoch FROM last_429_at::text::timestamptz) * 1000000)::bigint, 0) AS last_429,"
    "   COALESCE((extract(epoch FROM cooldown_until::text::timestamptz) * 1000000)::bigint, 0) AS cooldown"
    "  FROM %s),"
    " clock AS (SELECT floor(extract(epoch FROM $1))::bigint AS second),"
    " source_minute AS ("
    "  SELECT key_id::text::uuid AS id,"
    "   floor(extract(epoch FROM window_minute::text::timestamptz) / 60)::bigint AS minute,"
    "   sum(request_count)::bigint AS requests, sum(token_count)::bigint AS tokens"
    "  FROM %s GROUP BY 1, 2),"
    " kept_minute AS ("
    "  SELECT m.*, LEAST(m.minute * 60 + 59, c.second) AS last_second, c.second AS now_second"
    "  FROM source_minute m, clock c WHERE m.minute BETWEEN c.second / 60 - 59 AND c.second / 60),"
    " minutes AS ("
    "  SELECT id, string_agg(format('minute=%%s/%%s/%%s/0', minute, requests, tokens), ' ') AS fields,"
    "   string_agg(format('second=%%s/%%s/%%s', last_second, requests, tokens), ' ')"
    "     FILTER (WHERE last_second >= now_second - 60) AS seconds,"
    "   max(last_second) AS newest FROM kept_minute GROUP BY id)"
    " INSERT INTO keypool.key_meters (key_id, meter)"
    " SELECT k.id, concat_ws(' ', '1', format('total_requests=%%s total_tokens=%%s last_used_at=%%s last_429_at=%%s"
    " cooldown_until=%%s newest_second=%%s', k.requests, k.tokens, k.last_used, k.last_429, k.cooldown,"
    "   COALESCE(m.newest, 0)), m.seconds, m.fields, format('last_grant=%%s', k.last_used))::keypool.meter"
    " FROM source_key k LEFT JOIN minutes m USING (id)";

static const char *const kNoWindows =
    "(SELECT NULL AS key_id, NULL AS window_minute, NULL::bigint AS request_count, NULL::bigint AS token_count"
    " WHERE false) AS none";

static const char *const kKeyColumns[] = {"id",           "provider_id",    "key_label",      "key_value",
                                          "priority",     "max_rpm",        "max_tpm",        "is_active",
                                          "last_429_at",  "cooldown_until", "total_requests", "total_tokens",
                                          "last_used_at", "created_at",     "updated_at",     nullptr};
static const char *const kWindowColumns[] = {"key_id", "window_minute", "request_count", "token_count", nullptr};

static uint64 execute(const char *sql, int count, Datum value) {
  Oid type = TIMESTAMPTZOID;
  int result = SPI_execute_with_args(sql, count, &type, &value, nullptr, false, 0);
  if (result < 0) elog(ERROR, "keypool: statement failed: %s", SPI_result_code_string(result));
  return SPI_processed;
}

static uint64 count_rows(const char *relation) {
  execute(psprintf("SELECT count(*) FROM %s", relation), 0, Datum{0});
  bool is_null;
  return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

// Raises for a provider or a label that a new key may not have, also where the secret is encrypted already.
static void check_names(const char *keys) {
  execute(psprintf("SELECT id::text, provider_id::text, key_label::text FROM %s", keys), 0, Datum{0});
  for (uint64 i = 0; i < SPI_processed; ++i) {
    CHECK_FOR_INTERRUPTS();
    char *values[3];
    for (int column = 0; column < 3; ++column)
      values[column] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column + 1);
    if (values[1] != nullptr) check_new_provider(values[1], values[0]);
    if (values[2] != nullptr) check_new_label(values[2], values[0]);
  }
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_import);
Datum keypool_import(PG_FUNCTION_ARGS) {
  argument_require(fcinfo, 0, "keys");
  argument_require(fcinfo, 2, "time_zone");
  report_if_read_only("keypool_import");
  TupleDesc columns;
  if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
    elog(ERROR, "keypool_import must return a row");
  const char *keys = "imported_keys";
  const char *windows = PG_ARGISNULL(1) ? kNoWindows : "imported_windows";
  char *time_zone = text_to_cstring(PG_GETARG_TEXT_PP(2));

  int nest_level = NewGUCNestLevel();
  set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
  set_config_option("timezone", time_zone, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
  set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
  SPI_connect();
  source_table_read(PG_GETARG_OID(0), kKeyColumns, keys);
  if (!PG_ARGISNULL(1)) source_table_read(PG_GETARG_OID(1), kWindowColumns, windows);
  // The lock that the trigger on keypool.key_meters takes must come first, or two imports at once would wait for each
  // other.
  LockRelationOid(relations().provider_keys, ShareRowExclusiveLock);
  check_names(keys);
  Datum now = TimestampTzGetDatum(clock_to_timestamptz(clock_now()));
  uint64 key_count = execute(psprintf(kImportKeys, keys), 1, now);
  execute(psprintf(kImportMeters, keys, windows), 1, now);
  uint64 window_count = PG_ARGISNULL(1) ? 0 : count_rows(windows);
  SPI_finish();
  AtEOXact_GUC(true, nest_level);

  Datum values[] = {Int64GetDatum(static_cast<int64>(key_count)), Int64GetDatum(static_cast<int64>(window_count))};
  bool nulls[] = {false, false};
  return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

}  // extern "C"
