// versions.h - what differs between the versions of PostgreSQL, 15 to 18; no other file asks for the version.
//
// Included by postgres_api.h, after the server's headers.
#pragma once

// Whether keypool is tested with the server that it is built for.
static constexpr bool kServerIsTested =
    PG_VERSION_NUM / 10000 == 15 || PG_VERSION_NUM / 10000 == 17 || PG_VERSION_NUM / 10000 == 18;

extern "C" {
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#include "storage/proc.h"
#include "utils/wait_event.h"
}

// Memory for what a setting's check hook leaves to its assign hook. Null if there is none left. guc.c frees it.
static inline void *allocate_setting_extra(size_t size) {
#if PG_VERSION_NUM >= 160000
  return guc_malloc(LOG, size);
#else
  return malloc(size);
#endif
}

// DecodeDateTime(), for texts that say what is wrong with them to nobody.
static inline int decode_date_time(char **fields, int *types, int count, int *kind, struct pg_tm *tm, fsec_t *fraction,
                                   int *zone) {
#if PG_VERSION_NUM >= 160000
  DateTimeErrorExtra ignored;
  return DecodeDateTime(fields, types, count, kind, tm, fraction, zone, &ignored);
#else
  return DecodeDateTime(fields, types, count, kind, tm, fraction, zone);
#endif
}

// The last parameter of ExecutorRun, which newer servers do without.
#if PG_VERSION_NUM >= 180000
#define KEYPOOL_EXECUTE_ONCE
#define KEYPOOL_EXECUTE_ONCE_ARGUMENT
#else
#define KEYPOOL_EXECUTE_ONCE , bool execute_once
#define KEYPOOL_EXECUTE_ONCE_ARGUMENT , execute_once
#endif

// Pins the buffer in which a page was seen last, if it still holds that page: cheaper than to look for it.
static inline bool read_recent_buffer(Relation relation, BlockNumber block, Buffer buffer) {
#if PG_VERSION_NUM >= 160000
  return ReadRecentBuffer(relation->rd_locator, MAIN_FORKNUM, block, buffer);
#else
  return ReadRecentBuffer(relation->rd_node, MAIN_FORKNUM, block, buffer);
#endif
}

// What tells the transactions of this process apart.
static inline LocalTransactionId local_transaction_id(void) {
#if PG_VERSION_NUM >= 170000
  return MyProc->vxid.lxid;
#else
  return MyProc->lxid;
#endif
}

// A wait event of this name in pg_stat_activity, or the one of all extensions.
static inline uint32 wait_event_of(const char *name) {
#if PG_VERSION_NUM >= 170000
  return WaitEventExtensionNew(name);
#else
  (void)name;
  return PG_WAIT_EXTENSION;
#endif
}

// Begins a scan of an index by one key, which index_rescan() then gives.
static inline IndexScanDesc begin_index_scan(Relation table, Relation index, Snapshot snapshot) {
#if PG_VERSION_NUM >= 180000
  return index_beginscan(table, index, snapshot, nullptr, 1, 0);
#else
  return index_beginscan(table, index, snapshot, 1, 0);
#endif
}
