// key_triggers.cpp - what keeps keypool.provider_keys sealed, its meters beside it, and every session's cache true.
#include "pg/server/postgres_api.h"

#include "core/secret/envelope.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/pool/commit_breakers.h"
#include "pg/secrets/new_secrets.h"
#include "pg/secrets/secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/sql/attributes.h"
#include "pg/sql/change_events.h"
#include "pg/sql/trigger_rows.h"
#include "pg/state/meter_store.h"
#include "pg/state/refusal_rows.h"

using keypool::SecretOwner;

using KeyRow = TriggerRow<kKeysColumns>;

static KeyRow read_row(HeapTuple tuple, const TriggerData *trigger) {
  return read_trigger_row<kKeysColumns>(tuple, RelationGetDescr(trigger->tg_relation), read_provider_keys_row);
}

static SecretOwner owner_of(const KeyRow &row) {
  return {key_id_from_datum(row.value(kKeysId)), row.text_of(kKeysProvider)};
}

static SecretUse use_of(const KeyRow &row) {
  SecretUse use = {};
  if (!row.is_null(kKeysAccount)) use.account = DatumGetTextPP(row.value(kKeysAccount));
  if (!row.is_null(kKeysAttributes)) use.attributes = PG_DETOAST_DATUM(row.value(kKeysAttributes));
  return use;
}

// What messages call a row; null for one whose id is not made yet.
static const char *name_of(const KeyRow &row) {
  return row.is_null(kKeysId) ? nullptr : DatumGetCString(DirectFunctionCall1(uuid_out, row.value(kKeysId)));
}

static const char *detail_of(const char *name) { return name == nullptr ? nullptr : psprintf("The key is %s.", name); }

[[noreturn]] static void refuse_stored(const char *name, const char *message) {
  refuse_column(keypool::Failure(keypool::Code::kInvalidArgument, "%s", message), detail_of(name));
  pg_unreachable();
}

static const char *const kNotThisKeys = "key_value was cut off, altered, or sealed for another key";

// Takes in a stored secret that replaces another: it must open here. The keyring may not be there for one that is
// replicated or restored with its row, so those are not looked at.
static void replace_stored(KeyRow *row, const keypool::StoredSecret &stored, const SecretOwner &owner) {
  keypool::Status status = open_secret(stored, owner);
  if (status.code == keypool::Code::kInternal) report_status(status);
  if (status.code == keypool::Code::kMissingMasterKey)
    refuse_stored(name_of(*row), psprintf("key_value does not open: %s", status.message));
  if (!status.ok()) refuse_stored(name_of(*row), kNotThisKeys);
  bytea *fingerprint = fingerprint_secret(text_view(opened_secret()), owner);
  if (fingerprint != nullptr) row->Set(kKeysFingerprint, PointerGetDatum(fingerprint));
  opened_secret_wipe();
}

// Takes in a stored secret as it is. One in the old form is bound to no row, so whoever can write it here could have
// taken it from anywhere.
static void take_stored(KeyRow *row, const keypool::StoredSecret &stored, const SecretOwner &owner, bool update) {
  if (stored.form == keypool::SecretForm::kLegacy && !is_owner(GetUserId()))
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
            errmsg("only the owner of keypool may bring in secrets that an older service encrypted"));
  if (update && !is_replicating()) replace_stored(row, stored, owner);
}

// Takes in the secret of a row: seals one that is new, and leaves a stored one as it is, so that a restored or
// replicated row does not change.
static void take_value(KeyRow *row, bool update, const char *name) {
  std::string_view given = row->text_of(kKeysValue);
  SecretOwner owner = owner_of(*row);
  keypool::StoredSecret stored;
  auto *payload = static_cast<uint8_t *>(palloc(given.size() + 1));
  keypool::ParseStored(given, payload, &stored);
  if (stored.form == keypool::SecretForm::kSealed || stored.form == keypool::SecretForm::kLegacy) {
    take_stored(row, stored, owner, update);
    return;
  }
  if (stored.form == keypool::SecretForm::kNone && !update) return;
  explicit_bzero(payload, given.size() + 1);
  if (keypool::ClaimsEncryption(given) && is_replicating()) return;
  hide_given_secret(given);
  if (keypool::ClaimsEncryption(given)) refuse_stored(name, kNotThisKeys);
  if (!update) check_new_provider(owner.provider, name);
  if (!update && !row->is_null(kKeysLabel)) check_new_label(row->text_of(kKeysLabel), name);
  NewSecret secret = take_new_secret(given, owner, use_of(*row), name);
  row->Set(kKeysValue, PointerGetDatum(secret.sealed));
  row->Set(kKeysFingerprint, PointerGetDatum(secret.fingerprint));
}

// Checks what no constraint of the table can, of the columns that are new or differ from the old row's.
static void check_columns(const KeyRow &row, const KeyRow *old_row, const char *detail) {
  auto changes = [&](AttrNumber column) {
    return !row.is_null(column) && (old_row == nullptr || !same_value(*old_row, row, column));
  };
  if (changes(kKeysAccount)) check_account_column(row.text_of(kKeysAccount), detail);
  for (AttrNumber column : {kKeysModels, kKeysExceptModels})
    if (changes(column)) check_models_column(row.value(column), row.name(column), detail);
  if (changes(kKeysAttributes)) check_attributes(row.value(kKeysAttributes), detail);
  if (changes(kKeysExpiresAt) && TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(row.value(kKeysExpiresAt))))
    refuse_column(keypool::Failure(keypool::Code::kInvalidArgument, "expires_at must be finite: NULL is never"),
                  detail);
}

// A secret that stays, but for another account or other attributes, may be one that another key has for these.
static void check_use(const KeyRow &row, const KeyRow &old_row, const char *name) {
  bool same = same_value(old_row, row, kKeysAccount) && same_value(old_row, row, kKeysAttributes);
  if (same || row.is_null(kKeysFingerprint)) return;
  check_new_use(owner_of(row), DatumGetByteaPP(row.value(kKeysFingerprint)), use_of(row), name);
}

static void update_row(const KeyRow &old_row, KeyRow *row) {
  const char *name = name_of(*row);
  refuse_changed(old_row, *row, kKeysId, "key");
  refuse_changed(old_row, *row, kKeysProvider, "key");
  bool same_secret = same_value(old_row, *row, kKeysValue);
  if (!is_replicating()) {
    if (!row->is_null(kKeysLabel) && !same_value(old_row, *row, kKeysLabel))
      check_new_label(row->text_of(kKeysLabel), name);
    check_columns(*row, &old_row, detail_of(name));
    if (same_secret) check_use(*row, old_row, name);
  }
  set_updated_at(old_row, row, kKeysUpdatedAt);
  if (same_secret) return;
  take_value(row, true, name);
  row->SetNull(kKeysUnopenedSince);  // what was found out is of the old one
}

static void insert_row(KeyRow *row) {
  const char *name = name_of(*row);
  check_provider_column(row->text_of(kKeysProvider));
  if (!is_replicating()) check_columns(*row, nullptr, detail_of(name));
  if (name == nullptr) row->Set(kKeysId, key_id_datum(new_key_id(row->text_of(kKeysProvider))));
  take_value(row, false, name);
}

// A secret that was only sealed again is the same.
static bool has_same_secret(const KeyRow &old_row, const KeyRow &row) {
  return same_value(old_row, row, kKeysValue) ||
         (!row.is_null(kKeysFingerprint) && same_value(old_row, row, kKeysFingerprint));
}

static void judge_new_secret(const TriggerData *trigger) {
  KeyRow old_row = read_row(trigger->tg_trigtuple, trigger), row = read_row(trigger->tg_newtuple, trigger);
  if (!has_same_secret(old_row, row) && !is_replicating()) close_breaker_at_commit(owner_of(row).id);
}

// What has become of a key that was changed; null: nothing that people would want to know.
static const char *change_of_key(KeyRow old_row, const KeyRow &row, const char **details) {
  if (has_same_secret(old_row, row)) old_row.values[kKeysValue - 1] = row.values[kKeysValue - 1];
  *details = describe_change(old_row, row);
  bool unopened = !same_value(old_row, row, kKeysUnopenedSince) && !row.is_null(kKeysUnopenedSince);
  if (unopened) return "secret_unopened";
  if (!same_value(old_row, row, kKeysIsActive))
    return DatumGetBool(row.value(kKeysIsActive)) ? "key_switched_on" : "key_switched_off";
  return *details != nullptr ? "key_changed" : nullptr;
}

static void log_change(const TriggerData *trigger) {
  KeyRow row = read_row(new_tuple(trigger), trigger);
  const char *details = nullptr, *event;
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) {
    event = "key_added";
    details = describe_new(row);
  } else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) {
    event = change_of_key(read_row(trigger->tg_trigtuple, trigger), row, &details);
  } else {
    event = "key_deleted";
  }
  SecretOwner key = owner_of(row);
  if (event != nullptr) event_log_add({event, key.provider, &key.id, row.text_of(kKeysLabel), details});
}

extern "C" {

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.provider_keys FOR EACH ROW. The change is announced before it is made as
// well as after it: a statement that selects among rows that it has changed itself, and then fails, would else leave
// its session with a cache of rows that never were, since no trigger runs after it.
PG_FUNCTION_INFO_V1(keypool_before_key_change);
Datum keypool_before_key_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_key_change", {relations().provider_keys},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  KeyRow row = read_row(new_tuple(trigger), trigger);
  if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
    require_values(row, {kKeysProvider, kKeysValue, kKeysPriority, kKeysIsActive, kKeysWeight});
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) update_row(read_row(trigger->tg_trigtuple, trigger), &row);
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) insert_row(&row);
  tell_provider_change(row.text_of(kKeysProvider));
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) return PointerGetDatum(trigger->tg_trigtuple);
  return PointerGetDatum(with_changes(new_tuple(trigger), row));
}

// AFTER INSERT OR UPDATE OR DELETE ON keypool.provider_keys FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_after_key_change);
Datum keypool_after_key_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.after_key_change", {relations().provider_keys}, 0);
  if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event)) {
    owner_execute("TRUNCATE keypool.key_meters", {});
    CacheInvalidateRelcache(trigger->tg_relation);
    event_log_add({"keys_truncated", {}, nullptr, {}, nullptr});
    return PointerGetDatum(nullptr);
  }
  SecretOwner key = owner_of(read_row(trigger->tg_trigtuple, trigger));
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) {
    meter_store_add(MeterKind::kKey, key.id, keypool::FreshMeter(keypool::kSecondSlots, call_timeout_of(key.provider)));
    refusal_rows_add(key.provider);
  }
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) meter_store_remove(MeterKind::kKey, key.id);
  tell_provider_change(key.provider);
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) judge_new_secret(trigger);
  log_change(trigger);
  return PointerGetDatum(nullptr);
}

}  // extern "C"
