// module.cpp - what happens when the library is loaded.
#include "pg/postgres_api.h"

#include "pg/log_hiding.h"
#include "pg/pool_cache.h"
#include "pg/provider_changes.h"
#include "pg/relations.h"
#include "pg/rights.h"
#include "pg/secrets.h"
#include "pg/settings.h"
#include "pg/statement_hiding.h"

extern "C" {

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
void _PG_init(void) {
  settings_init();
  relations_init();
  provider_changes_init();
  pool_cache_init();
  rights_init();
  secrets_init();
  statement_hiding_init();
  log_hiding_init();
}

}  // extern "C"
