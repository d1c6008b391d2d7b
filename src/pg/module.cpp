// module.cpp - what happens when the library is loaded.
#include "pg/server/postgres_api.h"

#include "pg/catalog/error_rules.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/pool/commit_breakers.h"
#include "pg/pool/pool_cache.h"
#include "pg/secrets/log_hiding.h"
#include "pg/secrets/secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/settings.h"
#include "pg/state/event_log.h"

extern "C" {

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
void _PG_init(void) {
  settings_init();
  relations_init();
  provider_changes_init();
  pool_cache_init();
  commit_breakers_init();
  event_log_init();
  privileges_init();
  error_rules_init();
  secrets_init();
  statement_hiding_init();
  log_hiding_init();
}

}  // extern "C"
