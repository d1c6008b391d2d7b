// quota_triggers.cpp - what checks keypool.quotas and keypool.providers, and keeps meters and every session's cache
// true.
#include "pg/server/postgres_api.h"

#include "core/quota/lease.h"
#include "core/secret/given_text.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/pool/limit_columns.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/utf8.h"
#include "pg/sql/change_events.h"
#include "pg/sql/quota_overlap.h"
#include "pg/sql/trigger_rows.h"
#include "pg/state/meter_store.h"

using keypool::KeyId;

using QuotaRow = TriggerRow<kQuotasColumns>;
using ProviderRow = TriggerRow<kProvidersColumns>;

static constexpr size_t kMaxNameBytes = 255;

static QuotaRow read_quota(HeapTuple tuple, const TriggerData *trigger) {
  return read_trigger_row<kQuotasColumns>(tuple, RelationGetDescr(trigger->tg_relation), read_quotas_row);
}

static ProviderRow read_provider(HeapTuple tuple, const TriggerData *trigger) {
  return read_trigger_row<kProvidersColumns>(tuple, RelationGetDescr(trigger->tg_relation), read_providers_row);
}

static keypool::Limits limits_of(const QuotaRow &row) {
  keypool::Limits limits = limits_of_row(LimitsOf::kQuotas, row.values, row.nulls);
  limits.rolling_day = row.text_of(kQuotasDay) == "rolling";
  return limits;
}

[[noreturn]] static void refuse(const char *message, const char *hint) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
          hint != nullptr ? errhint("%s", hint) : 0);
  pg_unreachable();
}

// Answers say "key" where no quota is in the way.
static void check_name(std::string_view name) {
  std::string_view utf8 = utf8_of_text(name, "name");
  if (name.empty()) refuse("name must not be empty", nullptr);
  if (name.size() > kMaxNameBytes) refuse("name must not be longer than 255 bytes", nullptr);
  if (name == "key") refuse("name must not be \"key\"", "Answers say so of a key itself.");
  refuse_column(call_core([&] { return keypool::CheckGivenName(utf8, "name"); }), nullptr);
}

// Checks what no constraint of the table can.
static void check_columns(const QuotaRow &row) {
  if (!row.is_null(kQuotasName)) check_name(row.text_of(kQuotasName));
  if (!row.is_null(kQuotasAccount)) check_account_column(row.text_of(kQuotasAccount), nullptr);
  for (AttrNumber column : {kQuotasModels, kQuotasExceptModels})
    if (!row.is_null(column)) check_models_column(row.value(column), row.name(column), nullptr);
  if (!row.is_null(kQuotasTimeZone)) check_time_zone_column(row.value(kQuotasTimeZone));
  if (!keypool::HaveOneWidth(limits_of(row)))
    refuse("limits of a minute, of an hour and of a rolling day cannot be in one quota",
           "Make a quota for each, of the same account and models.");
}

// The other quotas of a provider.
struct OtherQuotas {
  QuotaScope *scopes;
  int count;
};

static OtherQuotas read_others(std::string_view provider, std::string_view name) {
  OtherQuotas others = {static_cast<QuotaScope *>(palloc(8 * sizeof(QuotaScope))), 0};
  int capacity = 8;
  Relation quotas = table_open(relations().quotas, AccessShareLock);
  Snapshot snapshot = snapshot_of_now();
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, kQuotasProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(quotas, relations().quotas_by_name, true, snapshot, 1, &condition);
  while (HeapTuple tuple = systable_getnext(scan)) {
    Datum values[kQuotasColumns];
    bool nulls[kQuotasColumns];
    read_quotas_row(heap_copytuple(tuple), RelationGetDescr(quotas), values, nulls);
    QuotaScope scope = scope_of_quota(values, nulls);
    if (scope.name == name) continue;
    if (others.count == capacity)
      others.scopes = static_cast<QuotaScope *>(repalloc(others.scopes, (capacity *= 2) * sizeof(QuotaScope)));
    others.scopes[others.count++] = scope;
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(quotas, AccessShareLock);
  return others;
}

static bool has_tag(const OtherQuotas &others, const KeyId &id) {
  for (int i = 0; i < others.count; ++i)
    if (!(others.scopes[i].id == id) && keypool::QuotaTag(others.scopes[i].id) == keypool::QuotaTag(id)) return true;
  return false;
}

// Makes an id if none is given. Leases name a quota by the tag of its id, which must be the only one in the provider.
static void make_id(QuotaRow *row, const OtherQuotas &others) {
  std::string_view provider = row->text_of(kQuotasProvider);
  if (!row->is_null(kQuotasId)) {
    if (has_tag(others, key_id_from_datum(row->value(kQuotasId))))
      refuse("id of a quota has the hash of that of another quota of the provider", "Leave id out.");
    return;
  }
  KeyId id = new_key_id(provider);
  for (int i = 0; i < 1000 && has_tag(others, id); ++i) id = new_key_id(provider);
  if (has_tag(others, id)) refuse("the provider has too many quotas", nullptr);
  row->Set(kQuotasId, key_id_datum(id));
}

static void refuse_crowd(const QuotaRow &row, const OtherQuotas &others) {
  const QuotaScope *crowd[keypool::kMaxQuotas];
  if (!find_crowd(scope_of_quota(row.values, row.nulls), others.scopes, others.count, crowd)) return;
  auto name = [&](int i) { return pnstrdup(crowd[i]->name.data(), crowd[i]->name.size()); };
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
          errmsg("more than %d quotas could apply to one request", keypool::kMaxQuotas),
          errdetail("The others are \"%s\", \"%s\" and \"%s\".", name(0), name(1), name(2)),
          errhint("Give one of them another account or other models, or put the limits of two into one."));
}

// Another transaction must not add a quota meanwhile.
static OtherQuotas lock_others(const QuotaRow &row) {
  lock_provider(relations().quotas, row.text_of(kQuotasProvider));
  return read_others(row.text_of(kQuotasProvider), row.text_of(kQuotasName));
}

static void insert_quota(QuotaRow *row) {
  check_provider_column(row->text_of(kQuotasProvider));
  OtherQuotas others = {};
  if (!is_replicating()) {
    check_columns(*row);
    others = lock_others(*row);
  }
  make_id(row, others);
  if (!is_replicating()) refuse_crowd(*row, others);
}

static void update_quota(const QuotaRow &old_row, QuotaRow *row) {
  refuse_changed(old_row, *row, kQuotasId, "quota");
  refuse_changed(old_row, *row, kQuotasProvider, "quota");
  set_updated_at(old_row, row, kQuotasUpdatedAt);
  if (is_replicating()) return;
  check_columns(*row);
  bool moves = false;
  for (AttrNumber column : {kQuotasAccount, kQuotasModels, kQuotasExceptModels})
    moves = moves || !same_value(old_row, *row, column);
  if (!moves) return;
  OtherQuotas others = lock_others(old_row);  // by its old name, in case it changes
  refuse_crowd(*row, others);
}

static void log_quota_change(const TriggerData *trigger) {
  QuotaRow row = read_quota(new_tuple(trigger), trigger);
  const char *details = nullptr, *event = "quota_deleted";
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) {
    event = "quota_added";
    details = describe_new(row);
  } else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) {
    details = describe_change(read_quota(trigger->tg_trigtuple, trigger), row);
    event = details != nullptr ? "quota_changed" : nullptr;
  }
  KeyId id = key_id_from_datum(row.value(kQuotasId));
  if (event != nullptr) event_log_add({event, row.text_of(kQuotasProvider), &id, row.text_of(kQuotasName), details});
}

// A row is made with what is not as by default, and nothing else is told of it.
static void log_provider_change(const TriggerData *trigger) {
  ProviderRow row = read_provider(new_tuple(trigger), trigger);
  ProviderRow before = {};
  before.columns = row.columns;
  for (bool &is_null : before.nulls) is_null = true;
  if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) before = read_provider(trigger->tg_trigtuple, trigger);
  bool deleted = TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
  const char *details = deleted ? nullptr : describe_change(before, row);
  if (deleted || details != nullptr)
    event_log_add(
        {deleted ? "provider_reset" : "provider_changed", row.text_of(kProvidersProvider), nullptr, {}, details});
}

extern "C" {

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.quotas FOR EACH ROW. Announced as changes of keys are.
PG_FUNCTION_INFO_V1(keypool_before_quota_change);
Datum keypool_before_quota_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_quota_change", {relations().quotas},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  QuotaRow row = read_quota(new_tuple(trigger), trigger);
  if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
    require_values(row, {kQuotasProvider, kQuotasName, kQuotasCounts, kQuotasOutputWeight, kQuotasDay});
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)) update_quota(read_quota(trigger->tg_trigtuple, trigger), &row);
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event)) insert_quota(&row);
  tell_provider_change(row.text_of(kQuotasProvider));
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) return PointerGetDatum(trigger->tg_trigtuple);
  return PointerGetDatum(with_changes(new_tuple(trigger), row));
}

// AFTER INSERT OR UPDATE OR DELETE ON keypool.quotas FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT. A change of
// limits leaves the meter alone: if it needs another ring, its next use sees to that.
PG_FUNCTION_INFO_V1(keypool_after_quota_change);
Datum keypool_after_quota_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.after_quota_change", {relations().quotas}, 0);
  if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event)) {
    owner_execute("TRUNCATE keypool.quota_meters", {});
    CacheInvalidateRelcache(trigger->tg_relation);
    event_log_add({"quotas_truncated", {}, nullptr, {}, nullptr});
    return PointerGetDatum(nullptr);
  }
  QuotaRow row = read_quota(trigger->tg_trigtuple, trigger);
  std::string_view provider = row.text_of(kQuotasProvider);
  KeyId id = key_id_from_datum(row.value(kQuotasId));
  if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
    meter_store_add(MeterKind::kQuota, id,
                    keypool::FreshMeter(keypool::RingWidth(limits_of(row)), call_timeout_of(provider)));
  if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event)) meter_store_remove(MeterKind::kQuota, id);
  tell_provider_change(provider);
  log_quota_change(trigger);
  return PointerGetDatum(nullptr);
}

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.providers FOR EACH ROW
PG_FUNCTION_INFO_V1(keypool_before_provider_change);
Datum keypool_before_provider_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.before_provider_change", {relations().providers},
                                      TRIGGER_EVENT_BEFORE | TRIGGER_EVENT_ROW);
  ProviderRow row = read_provider(new_tuple(trigger), trigger);
  require_values(row, {kProvidersProvider});
  if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
    refuse_changed(read_provider(trigger->tg_trigtuple, trigger), row, kProvidersProvider, "row of keypool.providers");
  bool given = !TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
  if (given) check_provider_column(row.text_of(kProvidersProvider));
  if (given && !row.is_null(kProvidersTimeZone) && !is_replicating())
    check_time_zone_column(row.value(kProvidersTimeZone));
  tell_provider_change(row.text_of(kProvidersProvider));
  return PointerGetDatum(new_tuple(trigger));
}

// AFTER INSERT OR UPDATE OR DELETE ON keypool.providers FOR EACH ROW, AFTER TRUNCATE FOR EACH STATEMENT
PG_FUNCTION_INFO_V1(keypool_after_provider_change);
Datum keypool_after_provider_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.after_provider_change", {relations().providers}, 0);
  if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event)) {
    CacheInvalidateRelcache(trigger->tg_relation);
    event_log_add({"providers_truncated", {}, nullptr, {}, nullptr});
    return PointerGetDatum(nullptr);
  }
  tell_provider_change(read_provider(trigger->tg_trigtuple, trigger).text_of(kProvidersProvider));
  log_provider_change(trigger);
  return PointerGetDatum(nullptr);
}

}  // extern "C"
