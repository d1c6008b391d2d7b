// grant_triggers.cpp - what keeps keypool.grants its owner's, and keypool.master_keys true.
#include "pg/server/postgres_api.h"

#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/known_master_keys.h"
#include "pg/sql/trigger_rows.h"
#include "pg/state/event_log.h"

// An UPDATE takes one right and gives another; only the latter is told.
static void log_change(const TriggerData *trigger) {
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  auto row = read_trigger_row<kGrantsColumns>(new_tuple(trigger), columns, read_grants_row);
  const char *role = GetUserNameFromId(DatumGetObjectId(row.value(kGrantsRole)), true);
  std::string_view rights = row.text_of(kGrantsRights);
  const char *details = psprintf("{\"rights\": \"%.*s\"}", static_cast<int>(rights.size()), rights.data());
  bool deleted = TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
  event_log_add({deleted ? "right_revoked" : "right_granted", row.text_of(kGrantsProvider), nullptr,
                 role != nullptr ? role : std::string_view(), details});
}

extern "C" {

// AFTER INSERT OR UPDATE OR DELETE ON keypool.grants FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_after_grant_change);
Datum keypool_after_grant_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.after_grant_change", {relations().grants}, 0);
  CacheInvalidateRelcache(trigger->tg_relation);
  if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event)) log_change(trigger);
  return PointerGetDatum(nullptr);
}

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.grants FOR EACH ROW: a right on the table is no right to give rights.
// Announced as changes of keys are.
PG_FUNCTION_INFO_V1(keypool_before_grant_change);
Datum keypool_before_grant_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_grant_change", {relations().grants},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) {
    if (!is_owner(GetUserId()))
      ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("only the owner of keypool may grant its rights"));
    TupleDesc columns = RelationGetDescr(trigger->tg_relation);
    require_values(read_trigger_row<kGrantsColumns>(new_tuple(trigger), columns, read_grants_row),
                   {kGrantsRole, kGrantsRights});
  }
  CacheInvalidateRelcache(trigger->tg_relation);
  return PointerGetDatum(new_tuple(trigger));
}

// BEFORE INSERT ON keypool.master_keys FOR EACH ROW. A dump or a publisher may bring an id that is known here; what is
// known stays.
PG_FUNCTION_INFO_V1(keypool_before_master_key_insert);
Datum keypool_before_master_key_insert(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_master_key_insert", {relations().master_keys},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  bool is_known = known_master_keys_has(trigger->tg_trigtuple, trigger->tg_relation);
  return PointerGetDatum(is_known ? nullptr : trigger->tg_trigtuple);
}

}  // extern "C"
