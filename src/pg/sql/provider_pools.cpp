// provider_pools.cpp - the providers that a user may look at, one after the other, as selections know them.
#include "pg/sql/provider_pools.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/arguments.h"

static const char *const kProviders =
    "SELECT provider_id FROM keypool.provider_keys UNION SELECT provider_id FROM keypool.quotas ORDER BY 1";

// As texts.
static List *providers_to_show(FunctionCallInfo fcinfo) {
  if (!PG_ARGISNULL(0)) {
    privileges_require(Right::kMonitor, argument_provider(fcinfo, 0));
    return list_make1(PG_GETARG_TEXT_PP(0));
  }
  MemoryContext context = CurrentMemoryContext;
  List *providers = NIL;
  SPI_connect();
  uint64 count = owner_execute_connected(kProviders, {});
  MemoryContext before = MemoryContextSwitchTo(context);
  for (uint64 i = 0; i < count; ++i) {
    bool is_null;
    text *provider = DatumGetTextPCopy(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null));
    if (privileges_allow(Right::kMonitor, text_view(provider))) providers = lappend(providers, provider);
  }
  MemoryContextSwitchTo(before);
  SPI_finish();
  return providers;
}

static ShownPool open_pool(text *provider) {
  master_keys_check();  // before anything is locked: the command may take its time
  ShownPool shown;
  shown.pool = pool_cache_open_provider(text_view(provider), AccessShareLock, &shown.tables);
  if (shown.pool != nullptr) return shown;
  meter_tables_close(shown.tables);
  shown.pool = pool_cache_open_rules(text_view(provider), AccessShareLock, &shown.tables);
  return shown;
}

// The rows of a try are put aside until it has come to its end.
static void show_pool(text *provider, ReturnSetInfo *result, ShowPool show) {
  ReturnSetInfo tried = *result;
  for (int attempt = 0;; ++attempt) {
    tried.setResult = tuplestore_begin_heap(false, false, work_mem);
    ShownPool shown = open_pool(provider);
    bool done = show(&tried, provider, shown);
    meter_tables_close(shown.tables);
    if (done) break;
    tuplestore_end(tried.setResult);
    pool_cache_retry(shown.pool->hash, attempt);
  }
  TupleTableSlot *slot = MakeSingleTupleTableSlot(result->setDesc, &TTSOpsMinimalTuple);
  while (tuplestore_gettupleslot(tried.setResult, true, false, slot)) tuplestore_puttupleslot(result->setResult, slot);
  ExecDropSingleTupleTableSlot(slot);
  tuplestore_end(tried.setResult);
}

Datum show_providers(FunctionCallInfo fcinfo, ShowPool show) {
  List *providers = providers_to_show(fcinfo);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  ListCell *cell;
  foreach (cell, providers) show_pool(static_cast<text *>(lfirst(cell)), result, show);
  return Datum{0};
}
