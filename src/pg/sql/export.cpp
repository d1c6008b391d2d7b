// export.cpp - keypool_export: the configuration as a document of keypool_apply, without secrets.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/server/arguments.h"

// Attributes keep their own nulls. $1: the provider, or NULL for all, and then the error rules, too.
static const char *const kExport =
    "WITH named AS ("
    " SELECT provider_id FROM keypool.provider_keys UNION SELECT provider_id FROM keypool.quotas"
    " UNION SELECT provider_id FROM keypool.providers)"
    "SELECT pg_catalog.jsonb_build_object('providers', COALESCE(("
    " SELECT pg_catalog.jsonb_object_agg(n.provider_id, pg_catalog.jsonb_build_object("
    "  'settings', COALESCE((SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.to_jsonb(s)"
    "    OPERATOR(pg_catalog.-) 'provider_id'::text)"
    "   FROM keypool.providers s WHERE s.provider_id OPERATOR(pg_catalog.=) n.provider_id), '{}'),"
    "  'keys', COALESCE((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.to_jsonb(k)"
    "    OPERATOR(pg_catalog.-) ARRAY['provider_id', 'key_value', 'attributes', 'fingerprint', 'unopened_since',"
    "     'created_at', 'updated_at', CASE WHEN NOT pg_catalog.isfinite(k.inactive_until) THEN 'inactive_until' END])"
    "   OPERATOR(pg_catalog.||) CASE WHEN k.attributes IS NULL THEN '{}'::jsonb"
    "     ELSE pg_catalog.jsonb_build_object('attributes', k.attributes) END ORDER BY k.id)"
    "   FROM keypool.provider_keys k WHERE k.provider_id OPERATOR(pg_catalog.=) n.provider_id), '[]'),"
    "  'quotas', COALESCE((SELECT pg_catalog.jsonb_object_agg(q.name, pg_catalog.jsonb_strip_nulls("
    "    pg_catalog.to_jsonb(q) OPERATOR(pg_catalog.-) ARRAY['id', 'provider_id', 'name', 'created_at', 'updated_at']))"
    "   FROM keypool.quotas q WHERE q.provider_id OPERATOR(pg_catalog.=) n.provider_id), '{}')))"
    " FROM named n WHERE $1 IS NULL OR n.provider_id OPERATOR(pg_catalog.=) $1), '{}'))"
    " OPERATOR(pg_catalog.||) CASE WHEN $1 IS NOT NULL THEN '{}'::jsonb ELSE"
    "  pg_catalog.jsonb_build_object('error_rules', COALESCE((SELECT pg_catalog.jsonb_agg("
    "   pg_catalog.jsonb_strip_nulls(pg_catalog.to_jsonb(r)) ORDER BY r.provider, r.http_status, r.error_code)"
    "  FROM keypool.error_rules r), '[]')) END";

extern "C" {

PG_FUNCTION_INFO_V1(keypool_export);
Datum keypool_export(PG_FUNCTION_ARGS) {
  if (!PG_ARGISNULL(0)) argument_provider(fcinfo, 0);
  privileges_require_everywhere(Right::kOperator);
  MemoryContext context = CurrentMemoryContext;
  QueryArguments arguments;
  arguments.Add(TEXTOID, PG_ARGISNULL(0) ? Datum{0} : PG_GETARG_DATUM(0), PG_ARGISNULL(0));
  SPI_connect();
  owner_execute_connected(kExport, arguments);
  bool is_null;
  Datum document = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
  MemoryContext before = MemoryContextSwitchTo(context);
  document = PointerGetDatum(PG_DETOAST_DATUM_COPY(document));
  MemoryContextSwitchTo(before);
  SPI_finish();
  PG_RETURN_DATUM(document);
}

}  // extern "C"
