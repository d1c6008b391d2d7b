// reactivation.cpp - keys that were switched off for a time come back.
#include "pg/pool/reactivation.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/server/clock.h"

static const char *const kReactivate =
    "WITH returning_key AS MATERIALIZED ("
    "  SELECT id FROM keypool.provider_keys"
    "  WHERE provider_id OPERATOR(pg_catalog.=) $1 AND NOT is_active AND inactive_until OPERATOR(pg_catalog.<=) $2"
    "  ORDER BY id USING OPERATOR(pg_catalog.<) FOR NO KEY UPDATE SKIP LOCKED)"
    " UPDATE keypool.provider_keys k SET is_active = true, inactive_until = NULL"
    " FROM returning_key r WHERE k.id OPERATOR(pg_catalog.=) r.id";

// A snapshot of before may not see the keys as they are, or fail for it.
static bool may_update(void) {
  return !IsolationUsesXactSnapshot() && ConditionalLockRelationOid(relations().provider_keys, RowExclusiveLock);
}

void try_to_reactivate_keys(std::string_view provider, keypool::TimeUs now) {
  if (!may_update()) return;
  QueryArguments arguments;
  arguments.Add(TEXTOID, PointerGetDatum(cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()))));
  arguments.Add(TIMESTAMPTZOID, TimestampTzGetDatum(clock_to_timestamptz(now)));
  owner_execute(kReactivate, arguments);
}
