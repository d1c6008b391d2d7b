// meter_triggers.cpp - what lets dumps restore meters, and keeps all else from writing them as rows.
#include "pg/server/postgres_api.h"

#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/server/key_ids.h"
#include "pg/sql/trigger_rows.h"
#include "pg/state/meter_store.h"

static MeterKind kind_of(Relation meters) {
  return RelationGetRelid(meters) == relations().key_meters ? MeterKind::kKey : MeterKind::kQuota;
}

// Locks the keys or quotas before any of their meters, as all else does. A load of them beside this one (a parallel
// restore) is waited for, so that the two cannot both make a row, and so is a deletion, so that it does not wait for a
// meter while keypool_heal() waits for it.
static void lock_owners(MeterKind kind) {
  LockRelationOid(kind == MeterKind::kKey ? relations().provider_keys : relations().quotas, ShareRowExclusiveLock);
}

extern "C" {

// BEFORE INSERT OR DELETE ON keypool.key_meters or keypool.quota_meters FOR EACH STATEMENT: takes that lock. Announced
// as changes of keys are.
//
// BEFORE INSERT OR UPDATE FOR EACH ROW: a meter that is restored replaces the fresh one that came with its key or
// quota.
PG_FUNCTION_INFO_V1(keypool_before_meter_change);
Datum keypool_before_meter_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_meter_change",
                                      {relations().key_meters, relations().quota_meters}, TRIGGER_EVENT_BEFORE);
  Relation meters = trigger->tg_relation;
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
    ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
            errmsg("keypool.%s cannot be updated: it is changed in place by keypool's functions",
                   RelationGetRelationName(meters)));
  lock_owners(kind_of(meters));
  tell_meters_change(meters);
  if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event)) return PointerGetDatum(nullptr);
  bool is_null;
  Datum id = heap_getattr(trigger->tg_trigtuple, kMetersId, RelationGetDescr(meters), &is_null);
  if (!is_null) meter_store_remove(kind_of(meters), key_id_from_datum(id));
  return PointerGetDatum(trigger->tg_trigtuple);
}

// The trigger of 0.1.0 on keypool.key_state. Its tables are not served: this only says so.
PG_FUNCTION_INFO_V1(keypool_before_state_change);
Datum keypool_before_state_change(PG_FUNCTION_ARGS) { return keypool_before_meter_change(fcinfo); }

// AFTER INSERT OR DELETE ON keypool.key_meters or keypool.quota_meters FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_tell_sessions);
Datum keypool_tell_sessions(PG_FUNCTION_ARGS) {
  tell_meters_change(
      trigger_data(fcinfo, "keypool.tell_sessions", {relations().key_meters, relations().quota_meters}, 0)
          ->tg_relation);
  return PointerGetDatum(nullptr);
}

// INSTEAD OF INSERT ON keypool.key_state FOR EACH ROW: a row of a dump of 0.1.0, which replaces the fresh meter. The
// type has read its text, which is of layout 1.
PG_FUNCTION_INFO_V1(keypool_insert_key_state);
Datum keypool_insert_key_state(PG_FUNCTION_ARGS) {
  Oid view = get_relname_relid("key_state", get_rel_namespace(relations().key_meters));
  TriggerData *trigger = trigger_data(fcinfo, "keypool.insert_key_state", {view},
                                      TRIGGER_EVENT_INSTEAD | TRIGGER_EVENT_ROW | TRIGGER_EVENT_INSERT);
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  bool no_key, no_meter;
  Datum key = heap_getattr(trigger->tg_trigtuple, kMetersId, columns, &no_key);
  Datum meter = heap_getattr(trigger->tg_trigtuple, kMetersMeter, columns, &no_meter);
  if (no_key || no_meter)
    ereport(ERROR, errcode(ERRCODE_NOT_NULL_VIOLATION), errmsg("key_id and state must not be null"));
  keypool::KeyId id = key_id_from_datum(key);
  lock_owners(MeterKind::kKey);
  meter_store_remove(MeterKind::kKey, id);
  meter_store_add(MeterKind::kKey, id, *reinterpret_cast<const keypool::Meter *>(DatumGetPointer(meter)));
  Relation meters = meter_table_open(MeterKind::kKey, RowExclusiveLock);
  tell_meters_change(meters);
  table_close(meters, NoLock);
  return PointerGetDatum(trigger->tg_trigtuple);
}

}  // extern "C"
