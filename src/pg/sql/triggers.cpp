// triggers.cpp - what keeps keypool.provider_keys sealed, its states beside it, and every session's cache true.
#include "pg/server/postgres_api.h"

#include <initializer_list>

#include "core/provider_name.h"
#include "core/secret/envelope.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/known_master_keys.h"
#include "pg/secrets/new_secrets.h"
#include "pg/secrets/secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/state/state_store.h"

// What a trigger function was called for. Raises if that is not what the install script made it for: whoever may
// execute it could put it on a table of their own.
static TriggerData *trigger_data(FunctionCallInfo fcinfo, const char *function, std::initializer_list<Oid> tables,
                                 TriggerEvent timing) {
  TriggerData *trigger = CALLED_AS_TRIGGER(fcinfo) ? reinterpret_cast<TriggerData *>(fcinfo->context) : nullptr;
  bool known = false;
  if (trigger != nullptr)
    for (Oid table : tables) known = known || RelationGetRelid(trigger->tg_relation) == table;
  if (!known || (trigger->tg_event & timing) != timing)
    ereport(ERROR, errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
            errmsg("%s must be called by the trigger that keypool made", function));
  return trigger;
}

// A row on its way into a table, with the columns that the trigger changes.
struct NewRow {
  TupleDesc columns;
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  bool changed[kKeysColumns];

  Datum value(AttrNumber column) const { return values[column - 1]; }
  bool is_null(AttrNumber column) const { return nulls[column - 1]; }
  std::string_view provider() const { return text_view(DatumGetTextPP(value(kKeysProvider))); }
  void Set(AttrNumber column, Datum value) {
    values[column - 1] = value;
    nulls[column - 1] = false;
    changed[column - 1] = true;
  }
  void SetFingerprint(bytea *fingerprint) {
    if (columns->natts >= kKeysFingerprint && fingerprint != nullptr)
      Set(kKeysFingerprint, PointerGetDatum(fingerprint));
  }
  void SetNull(AttrNumber column) {
    nulls[column - 1] = true;
    changed[column - 1] = true;
  }
};

static void read_row(HeapTuple tuple, TupleDesc columns, NewRow *row) {
  memset(row, 0, sizeof(*row));
  row->columns = columns;
  read_provider_keys_row(tuple, columns, row->values, row->nulls);
}

static bool same_value(const NewRow &one, const NewRow &other, AttrNumber column) {
  Form_pg_attribute attribute = TupleDescAttr(one.columns, column - 1);
  return !one.is_null(column) && !other.is_null(column) &&
         datum_image_eq(one.value(column), other.value(column), attribute->attbyval, attribute->attlen);
}

static HeapTuple with_changes(HeapTuple tuple, const NewRow &row) {
  int numbers[kKeysColumns];
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  int count = 0;
  for (int i = 0; i < Min(kKeysColumns, row.columns->natts); ++i) {
    if (!row.changed[i]) continue;
    numbers[count] = i + 1;
    values[count] = row.values[i];
    nulls[count++] = row.nulls[i];
  }
  return heap_modify_tuple_by_cols(tuple, row.columns, count, numbers, values, nulls);
}

// Raises if an UPDATE changes a column that never changes.
static void refuse_changed(const NewRow &old_row, const NewRow &new_row, AttrNumber column) {
  if (!same_value(old_row, new_row, column))
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s of a key cannot be changed", NameStr(TupleDescAttr(new_row.columns, column - 1)->attname)),
            errhint("Add a new key, and delete this one."));
}

// Whether rows are written as another server has them, which has checked them.
static bool is_replicating(void) { return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA; }

// What messages call a row.
static const char *name_of(const NewRow &row) {
  return DatumGetCString(DirectFunctionCall1(uuid_out, row.value(kKeysId)));
}

[[noreturn]] static void refuse_stored(const char *name, const char *message) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
          name != nullptr ? errdetail("The key is %s.", name) : 0);
  pg_unreachable();
}

static const char *const kNotThisKeys = "key_value was cut off, altered, or sealed for another key";

// Takes in a stored secret that replaces another: it must open here. The keyring may not be there for one that is
// replicated or restored with its row, so those are not looked at.
static void replace_stored(NewRow *row, const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  keypool::Status status = open_secret(stored, owner);
  if (status.code == keypool::Code::kInternal) report_status(status);
  if (status.code == keypool::Code::kMissingMasterKey)
    refuse_stored(name_of(*row), psprintf("key_value does not open: %s", status.message));
  if (!status.ok()) refuse_stored(name_of(*row), kNotThisKeys);
  row->SetFingerprint(fingerprint_secret(text_view(opened_secret()), owner));
  opened_secret_wipe();
}

// Takes in a stored secret as it is. One in the old form is bound to no row, so whoever can write it here could have
// taken it from anywhere.
static void take_stored(NewRow *row, const keypool::StoredSecret &stored, const keypool::SecretOwner &owner,
                        bool update) {
  if (stored.form == keypool::SecretForm::kLegacy && !is_owner(GetUserId()))
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
            errmsg("only the owner of keypool may bring in secrets that an older service encrypted"));
  if (update && !is_replicating()) replace_stored(row, stored, owner);
}

// Takes in the secret of a row: seals one that is new, and leaves a stored one as it is, so that a restored or
// replicated row does not change.
static void take_value(NewRow *row, bool update, const char *name) {
  if (row->is_null(kKeysValue)) return;  // the NOT NULL constraint refuses it
  std::string_view given = text_view(DatumGetTextPP(row->value(kKeysValue)));
  keypool::SecretOwner owner = {key_id_from_datum(row->value(kKeysId)), row->provider()};
  keypool::StoredSecret stored;
  auto *payload = static_cast<uint8_t *>(palloc(given.size() + 1));
  keypool::ParseStored(given, payload, &stored);
  if (stored.form == keypool::SecretForm::kSealed || stored.form == keypool::SecretForm::kLegacy) {
    take_stored(row, stored, owner, update);
    return;
  }
  explicit_bzero(payload, given.size() + 1);
  if (keypool::ClaimsEncryption(given) && is_replicating()) return;
  hide_given_secret(given);
  if (keypool::ClaimsEncryption(given)) refuse_stored(name, kNotThisKeys);
  if (!update) check_new_provider(row->provider(), name);
  if (!update && !row->is_null(kKeysLabel)) check_new_label(text_view(DatumGetTextPP(row->value(kKeysLabel))), name);
  NewSecret secret = take_new_secret(given, owner, name);
  row->Set(kKeysValue, PointerGetDatum(secret.sealed));
  row->SetFingerprint(secret.fingerprint);
}

extern "C" {

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.provider_keys FOR EACH ROW. The change is announced before it is made as
// well as after it: a statement that selects among rows that it has changed itself, and then fails, would else leave
// its session with a cache of rows that never were, since no trigger runs after it.
PG_FUNCTION_INFO_V1(keypool_before_key_change);
Datum keypool_before_key_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_key_change", {relations().provider_keys},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  NewRow row;
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) {
    read_row(trigger->tg_trigtuple, columns, &row);
    tell_provider_change(row.provider());
    return PointerGetDatum(trigger->tg_trigtuple);
  }
  bool update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
  HeapTuple tuple = update ? trigger->tg_newtuple : trigger->tg_trigtuple;
  read_row(tuple, columns, &row);
  if (row.is_null(kKeysProvider))
    ereport(ERROR, errcode(ERRCODE_NOT_NULL_VIOLATION), errmsg("provider_id must not be null"));
  bool secret_changed = true;
  const char *name = row.is_null(kKeysId) ? nullptr : name_of(row);
  if (update) {
    NewRow old_row;
    read_row(trigger->tg_trigtuple, columns, &old_row);
    refuse_changed(old_row, row, kKeysId);
    refuse_changed(old_row, row, kKeysProvider);
    secret_changed = !same_value(old_row, row, kKeysValue);
    if (!row.is_null(kKeysLabel) && !same_value(old_row, row, kKeysLabel) && !is_replicating())
      check_new_label(text_view(DatumGetTextPP(row.value(kKeysLabel))), name);
    if (DatumGetTimestampTz(row.value(kKeysUpdatedAt)) == DatumGetTimestampTz(old_row.value(kKeysUpdatedAt)))
      row.Set(kKeysUpdatedAt, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
  } else {
    report_status(call_core([&] { return keypool::CheckProviderName(row.provider()); }));
    if (row.is_null(kKeysId)) row.Set(kKeysId, key_id_datum(new_key_id(row.provider())));
  }
  if (secret_changed) take_value(&row, update, name);
  if (secret_changed && update) row.SetNull(kKeysUnopenedSince);  // what was found out is of the old one
  tell_provider_change(row.provider());
  return PointerGetDatum(with_changes(tuple, row));
}

// AFTER INSERT OR UPDATE OR DELETE ON keypool.provider_keys FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_after_key_change);
Datum keypool_after_key_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.after_key_change", {relations().provider_keys}, 0);
  if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event)) {
    owner_execute("TRUNCATE keypool.key_state", {});
    CacheInvalidateRelcache(trigger->tg_relation);
    return PointerGetDatum(nullptr);
  }
  NewRow row;
  read_row(trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation), &row);
  keypool::KeyId id = key_id_from_datum(row.value(kKeysId));
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) state_store_add(id);
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) state_store_remove(id);
  tell_provider_change(row.provider());
  return PointerGetDatum(nullptr);
}

// BEFORE INSERT OR DELETE ON keypool.key_state FOR EACH STATEMENT: locks the keys before any state, as all else does. A
// load of keys beside it (a parallel restore) is waited for, so that the two cannot both make a row, and so is a
// deletion of keys, so that it does not wait for a state while keypool_heal() waits for it.
//
// BEFORE INSERT OR UPDATE FOR EACH ROW: a state that is restored replaces the fresh one that came with its key.
PG_FUNCTION_INFO_V1(keypool_before_state_change);
Datum keypool_before_state_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger =
      trigger_data(fcinfo, "keypool.before_state_change", {relations().key_state}, TRIGGER_EVENT_BEFORE);
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
    ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
            errmsg("keypool.key_state cannot be updated: it is changed in place by keypool's functions"));
  LockRelationOid(relations().provider_keys, ShareRowExclusiveLock);
  if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event)) return PointerGetDatum(nullptr);
  bool is_null;
  Datum key = heap_getattr(trigger->tg_trigtuple, kStateKeyId, RelationGetDescr(trigger->tg_relation), &is_null);
  if (!is_null) state_store_remove(key_id_from_datum(key));
  tell_states_change(trigger->tg_relation);
  return PointerGetDatum(trigger->tg_trigtuple);
}

// AFTER INSERT OR UPDATE OR DELETE ON keypool.grants FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_after_grant_change);
Datum keypool_after_grant_change(PG_FUNCTION_ARGS) {
  CacheInvalidateRelcache(trigger_data(fcinfo, "keypool.after_grant_change", {relations().grants}, 0)->tg_relation);
  return PointerGetDatum(nullptr);
}

// AFTER INSERT OR DELETE ON keypool.key_state FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_tell_sessions);
Datum keypool_tell_sessions(PG_FUNCTION_ARGS) {
  tell_states_change(trigger_data(fcinfo, "keypool.tell_sessions", {relations().key_state}, 0)->tg_relation);
  return PointerGetDatum(nullptr);
}

// BEFORE INSERT OR UPDATE ON keypool.grants FOR EACH ROW: a right on the table is no right to give rights.
PG_FUNCTION_INFO_V1(keypool_before_grant_change);
Datum keypool_before_grant_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_grant_change", {relations().grants},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  if (!is_owner(GetUserId()))
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("only the owner of keypool may grant its rights"));
  return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple);
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
