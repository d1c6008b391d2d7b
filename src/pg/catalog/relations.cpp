// relations.cpp - where keypool's tables are, and whether anything about them has changed.
#include "pg/catalog/relations.h"

extern "C" {
#include "catalog/pg_class.h"
#include "utils/syscache.h"
}

static KeypoolRelations known;
static uint64 version = 1;
static uint64 changes = 1;

// Called while invalidations are taken in, also in the middle of a scan: only notes.
static void on_relation_change(Datum, Oid relation) {
  bool all = !OidIsValid(known.provider_keys) || !OidIsValid(relation);
  bool rows = relation == known.provider_keys || relation == known.key_state || relation == known.wakeups;
  bool others = relation == known.grants || relation == known.master_keys;
  if (!all && !rows && !others) return;
  known = {};
  if (all || rows) ++version;
  ++changes;
}

void relations_init(void) { CacheRegisterRelcacheCallback(on_relation_change, Datum{0}); }

static Oid find(const char *name, Oid schema) {
  Oid relation = get_relname_relid(name, schema);
  if (!OidIsValid(relation))
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"keypool.%s\" does not exist", name));
  return relation;
}

static KeypoolRelations look_up(void) {
  Oid schema = get_namespace_oid("keypool", false);
  KeypoolRelations found;
  found.provider_keys_by_id = find("provider_keys_pkey", schema);
  found.provider_keys_by_order = find("provider_keys_order", schema);
  found.provider_keys_by_fingerprint = get_relname_relid("provider_keys_fingerprint", schema);
  found.key_state_by_key = find("key_state_pkey", schema);
  found.key_state = find("key_state", schema);
  found.wakeups = get_relname_relid("wakeups", schema);
  found.grants = find("grants", schema);
  found.master_keys = get_relname_relid("master_keys", schema);
  found.master_keys_by_id = get_relname_relid("master_keys_pkey", schema);
  found.provider_keys = find("provider_keys", schema);
  return found;
}

const KeypoolRelations &relations(void) {
  while (!OidIsValid(known.provider_keys)) {
    uint64 before = changes;
    KeypoolRelations found = look_up();
    if (changes == before) known = found;  // else they may be of before and after a change
  }
  return known;
}

bool relations_may_be_keys_order(Oid relation) {
  return !OidIsValid(relation) || !OidIsValid(known.provider_keys) || relation == known.provider_keys_by_order;
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

// `older_count` is what the table had before the extension was updated. A type that is not valid stands for any.
static void check_columns(TupleDesc columns, int natts, const char *table, const Oid *types, int count,
                          int older_count) {
  bool same = natts == count || natts == older_count;
  for (int i = 0; same && i < natts; ++i) {
    Form_pg_attribute column = TupleDescAttr(columns, i);
    same = !column->attisdropped && (column->atttypid == types[i] || !OidIsValid(types[i]));
  }
  if (!same)
    ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
            errmsg("keypool.%s does not have the columns that keypool gave it", table),
            errhint("Undo the ALTER TABLE. If that is not enough, dump the extension, drop it, and restore the dump."));
}

static void read_row(HeapTuple row, TupleDesc columns, Datum *values, bool *nulls, int count) {
  if (columns->natts <= count)
    heap_deform_tuple(row, columns, values, nulls);
  else
    for (int i = 0; i < count; ++i) values[i] = heap_getattr(row, i + 1, columns, &nulls[i]);
}

void read_provider_keys_row(HeapTuple row, TupleDesc columns, Datum (&values)[kKeysColumns],
                            bool (&nulls)[kKeysColumns]) {
  static const Oid kTypes[] = {UUIDOID,        TEXTOID,  TEXTOID,       TEXTOID,        INT4OID,
                               INT8OID,        INT8OID,  BOOLOID,       TIMESTAMPTZOID, TIMESTAMPTZOID,
                               TIMESTAMPTZOID, BYTEAOID, TIMESTAMPTZOID};
  static_assert(lengthof(kTypes) == kKeysColumns);
  check_columns(columns, count_columns(columns, kKeysColumns), "provider_keys", kTypes, kKeysColumns, kKeysUpdatedAt);
  for (int i = columns->natts; i < kKeysColumns; ++i) values[i] = Datum{0}, nulls[i] = true;
  read_row(row, columns, values, nulls, kKeysColumns);
}

void read_grants_row(HeapTuple row, TupleDesc columns, Datum (&values)[kGrantsColumns], bool (&nulls)[kGrantsColumns]) {
  static const Oid kTypes[] = {REGROLEOID, TEXTOID, TEXTOID};
  static_assert(lengthof(kTypes) == kGrantsColumns);
  check_columns(columns, count_columns(columns, kGrantsColumns), "grants", kTypes, kGrantsColumns, kGrantsColumns);
  read_row(row, columns, values, nulls, kGrantsColumns);
}

// Rows of fixed width: a column that was dropped makes new ones wider, so it counts.
void check_key_state_columns(TupleDesc columns) {
  static const Oid kTypes[] = {UUIDOID, InvalidOid};  // the second is keypool's own
  check_columns(columns, columns->natts, "key_state", kTypes, lengthof(kTypes), lengthof(kTypes));
}

void check_is_heap(Relation relation) {
  if (relation->rd_tableam == GetHeapamTableAmRoutine()) return;
  ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
          errmsg("keypool.%s does not have the access method heap", RelationGetRelationName(relation)),
          errhint("Undo the ALTER TABLE ... SET ACCESS METHOD."));
}

uint64 relations_version(void) {
  AcceptInvalidationMessages();
  return version;
}

uint64 grants_version(void) {
  AcceptInvalidationMessages();
  return changes;
}
