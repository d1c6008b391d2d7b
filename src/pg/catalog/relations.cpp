// relations.cpp - where keypool's tables are, and whether anything about them has changed.
#include "pg/catalog/relations.h"

extern "C" {
#include "catalog/pg_class.h"
#include "utils/syscache.h"
}

// `known` is of after the last change that was taken in.
static struct {
  KeypoolRelations known;  // provider_keys is 0: to be looked up
  uint64 version;          // of tables whose rows are cached, or places in which are
  uint64 changes;          // of all tables of keypool
} cache = {{}, 1, 1};

// Whether what changed is a table whose rows are cached, or places in which are.
static bool holds_cached_rows(Oid relation) {
  return relation == cache.known.provider_keys || relation == cache.known.quotas || relation == cache.known.providers ||
         relation == cache.known.key_meters || relation == cache.known.quota_meters || relation == cache.known.wakeups;
}

// Called while invalidations are taken in, also in the middle of a scan: only notes.
static void on_relation_change(Datum, Oid relation) {
  bool all = !OidIsValid(cache.known.provider_keys) || !OidIsValid(relation);
  bool rows = holds_cached_rows(relation);
  bool others =
      relation == cache.known.grants || relation == cache.known.error_rules || relation == cache.known.master_keys;
  if (!all && !rows && !others) return;
  cache.known = {};
  if (all || rows) ++cache.version;
  ++cache.changes;
}

void relations_init(void) { CacheRegisterRelcacheCallback(on_relation_change, Datum{0}); }

static Oid find(const char *name, Oid schema) {
  Oid relation = get_relname_relid(name, schema);
  if (!OidIsValid(relation))
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"keypool.%s\" does not exist", name));
  return relation;
}

// Raises if the tables are those of 0.1.0.
static void check_is_updated(Oid schema) {
  if (OidIsValid(get_relname_relid("key_meters", schema)) || !OidIsValid(get_relname_relid("provider_keys", schema)))
    return;
  ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
          errmsg("the extension keypool is older than its library"), errhint("Run ALTER EXTENSION keypool UPDATE."));
}

static KeypoolRelations look_up(void) {
  Oid schema = get_namespace_oid("keypool", false);
  check_is_updated(schema);
  KeypoolRelations found;
  found.provider_keys_by_id = find("provider_keys_pkey", schema);
  found.provider_keys_by_order = find("provider_keys_order", schema);
  found.provider_keys_by_fingerprint = find("provider_keys_fingerprint", schema);
  found.quotas = find("quotas", schema);
  found.quotas_by_id = find("quotas_pkey", schema);
  found.quotas_by_name = find("quotas_name", schema);
  found.providers = find("providers", schema);
  found.providers_by_name = find("providers_pkey", schema);
  found.key_meters = find("key_meters", schema);
  found.key_meters_by_key = find("key_meters_pkey", schema);
  found.quota_meters = find("quota_meters", schema);
  found.quota_meters_by_quota = find("quota_meters_pkey", schema);
  found.wakeups = find("wakeups", schema);
  found.refusals = find("refusals", schema);
  found.refusals_by_provider = find("refusals_provider", schema);
  found.event_log = find("event_log", schema);
  found.event_log_by_age = find("event_log_age", schema);
  found.event_ids = find("event_ids", schema);
  found.grants = find("grants", schema);
  found.error_rules = find("error_rules", schema);
  found.master_keys = find("master_keys", schema);
  found.master_keys_by_id = find("master_keys_pkey", schema);
  found.provider_keys = find("provider_keys", schema);
  return found;
}

const KeypoolRelations &relations(void) {
  while (!OidIsValid(cache.known.provider_keys)) {
    uint64 before = cache.changes;
    KeypoolRelations found = look_up();
    if (cache.changes == before) cache.known = found;  // else they may be of before and after a change
  }
  return cache.known;
}

bool relations_may_be_keys_order(Oid relation) {
  return !OidIsValid(relation) || !OidIsValid(cache.known.provider_keys) ||
         relation == cache.known.provider_keys_by_order;
}

Oid relations_owner(void) {
  HeapTuple row = SearchSysCache1(RELOID, ObjectIdGetDatum(relations().provider_keys));
  if (!HeapTupleIsValid(row)) elog(ERROR, "cache lookup failed for relation keypool.provider_keys");
  Oid owner = ((Form_pg_class)GETSTRUCT(row))->relowner;
  ReleaseSysCache(row);
  return owner;
}

// How many columns there are. What was added behind keypool's own and dropped again does not count: it cannot be undone
// any further, and stands behind all that is read here.
static int count_columns(TupleDesc columns, int count) {
  int kept = columns->natts;
  while (kept > count && TupleDescAttr(columns, kept - 1)->attisdropped) --kept;
  return kept;
}

// A type that is not valid stands for any.
static void check_columns(TupleDesc columns, int natts, const char *table, const Oid *types, int count) {
  bool same = natts == count;
  for (int i = 0; same && i < natts; ++i) {
    Form_pg_attribute column = TupleDescAttr(columns, i);
    same = !column->attisdropped && (column->atttypid == types[i] || !OidIsValid(types[i]));
  }
  if (!same)
    ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
            errmsg("keypool.%s does not have the columns that keypool gave it", table),
            errhint("Undo the ALTER TABLE. If that is not enough, dump the extension, drop it, and restore the dump."));
}

// The value of a text that is NULL. Where keypool gave NOT NULL, whoever reads it does not ask; the constraint may be
// gone.
static Datum null_text(void) {
  static text *empty = nullptr;
  if (empty == nullptr) {
    empty = static_cast<text *>(MemoryContextAlloc(TopMemoryContext, VARHDRSZ));
    SET_VARSIZE(empty, VARHDRSZ);
  }
  return PointerGetDatum(empty);
}

static void read_row(HeapTuple row, TupleDesc columns, const char *table, const Oid *types, int count, Datum *values,
                     bool *nulls) {
  check_columns(columns, count_columns(columns, count), table, types, count);
  if (columns->natts <= count)
    heap_deform_tuple(row, columns, values, nulls);
  else
    for (int i = 0; i < count; ++i) values[i] = heap_getattr(row, i + 1, columns, &nulls[i]);
  for (int i = 0; i < count; ++i)
    if (nulls[i] && types[i] == TEXTOID) values[i] = null_text();
}

void read_provider_keys_row(HeapTuple row, TupleDesc columns, Datum (&values)[kKeysColumns],
                            bool (&nulls)[kKeysColumns]) {
  // clang-format off
  static const Oid kTypes[] = {
      UUIDOID, TEXTOID, TEXTOID, TEXTOID, INT4OID,                              // id to priority
      INT8OID, INT8OID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,                // max_rpm to created_at
      TIMESTAMPTZOID, BYTEAOID, TIMESTAMPTZOID,                                 // updated_at to unopened_since
      TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT4OID,                             // account to weight
      INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,   // max_output_tpm to max_in_flight
      INT2OID, JSONBOID, TIMESTAMPTZOID};                                       // burst_seconds to expires_at
  // clang-format on
  static_assert(lengthof(kTypes) == kKeysColumns);
  read_row(row, columns, "provider_keys", kTypes, kKeysColumns, values, nulls);
}

void read_quotas_row(HeapTuple row, TupleDesc columns, Datum (&values)[kQuotasColumns], bool (&nulls)[kQuotasColumns]) {
  // clang-format off
  static const Oid kTypes[] = {
      UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID,   // id to except_models
      INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,    // max_rpm to max_tpd
      INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,                      // max_requests_per_month to max_in_flight
      INT2OID, TEXTOID, INT4OID, TEXTOID, TEXTOID,                      // burst_seconds to day
      TIMESTAMPTZOID, TIMESTAMPTZOID};                                  // created_at, updated_at
  // clang-format on
  static_assert(lengthof(kTypes) == kQuotasColumns);
  read_row(row, columns, "quotas", kTypes, kQuotasColumns, values, nulls);
}

void read_providers_row(HeapTuple row, TupleDesc columns, Datum (&values)[kProvidersColumns],
                        bool (&nulls)[kProvidersColumns]) {
  static const Oid kTypes[] = {TEXTOID, TEXTOID, TEXTOID, INT8OID, INT4OID, INT4OID, TEXTOID, INT4OID, INT4OID};
  static_assert(lengthof(kTypes) == kProvidersColumns);
  read_row(row, columns, "providers", kTypes, kProvidersColumns, values, nulls);
}

void read_error_rules_row(HeapTuple row, TupleDesc columns, Datum (&values)[kErrorRulesColumns],
                          bool (&nulls)[kErrorRulesColumns]) {
  static const Oid kTypes[] = {TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID};
  static_assert(lengthof(kTypes) == kErrorRulesColumns);
  read_row(row, columns, "error_rules", kTypes, kErrorRulesColumns, values, nulls);
}

void read_grants_row(HeapTuple row, TupleDesc columns, Datum (&values)[kGrantsColumns], bool (&nulls)[kGrantsColumns]) {
  static const Oid kTypes[] = {REGROLEOID, TEXTOID, TEXTOID};
  static_assert(lengthof(kTypes) == kGrantsColumns);
  read_row(row, columns, "grants", kTypes, kGrantsColumns, values, nulls);
}

// Rows of fixed width: a column that was dropped makes new ones wider, so it counts.
void check_meter_columns(Relation table) {
  static const Oid kTypes[] = {UUIDOID, InvalidOid};  // the second is keypool's own
  TupleDesc columns = RelationGetDescr(table);
  check_columns(columns, columns->natts, RelationGetRelationName(table), kTypes, lengthof(kTypes));
}

// Rows are made of these columns and no others: here, too, one that was dropped counts.
static void check_table(Relation table, const Oid *types, int count) {
  check_is_heap(table);
  TupleDesc columns = RelationGetDescr(table);
  check_columns(columns, columns->natts, RelationGetRelationName(table), types, count);
}

void check_refusals(Relation table) {
  static const Oid kTypes[] = {TEXTOID, BYTEAOID};
  check_table(table, kTypes, lengthof(kTypes));
}

void check_event_log(Relation table) {
  static const Oid kTypes[] = {INT8OID, TIMESTAMPTZOID, BOOLOID, TEXTOID, TEXTOID,
                               UUIDOID, TEXTOID,        TEXTOID, TEXTOID, JSONBOID};
  static_assert(lengthof(kTypes) == kEventColumns);
  check_table(table, kTypes, lengthof(kTypes));
}

void check_is_heap(Relation relation) {
  if (relation->rd_tableam == GetHeapamTableAmRoutine()) return;
  ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
          errmsg("keypool.%s does not have the access method heap", RelationGetRelationName(relation)),
          errhint("Undo the ALTER TABLE ... SET ACCESS METHOD."));
}

uint64 relations_version(void) {
  AcceptInvalidationMessages();
  return cache.version;
}

uint64 grants_version(void) {
  AcceptInvalidationMessages();
  return cache.changes;
}

Snapshot snapshot_of_now(void) {
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  snapshot->curcid = GetCurrentCommandId(false) + 1;
  return snapshot;
}
