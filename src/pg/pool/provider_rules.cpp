// provider_rules.cpp - what configuration says of a provider apart from its keys.
#include "pg/pool/provider_rules.h"

#include "core/quota/account.h"
#include "core/quota/model_pattern.h"
#include "pg/catalog/relations.h"
#include "pg/pool/limit_columns.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"
#include "pg/server/settings.h"

using keypool::TimeUs;

// Whether a pattern of the array matches. NULLs in it, which the triggers refuse, match nothing.
static bool matches_any(const ArrayType *patterns, std::string_view model) {
  int count = ArrayGetNItems(ARR_NDIM(patterns), ARR_DIMS(patterns));
  const bits8 *present = ARR_NULLBITMAP(patterns);
  const char *at = ARR_DATA_PTR(patterns);
  for (int i = 0; i < count; ++i) {
    if (present != nullptr && (present[i / 8] & (1 << (i % 8))) == 0) continue;
    if (keypool::Matches(text_view(reinterpret_cast<const text *>(at)), model)) return true;
    at = reinterpret_cast<const char *>(att_align_nominal(att_addlength_pointer(at, -1, at), TYPALIGN_INT));
  }
  return false;
}

bool model_rule_serves(const ModelRule &rule, std::string_view model) {
  if (rule.models != nullptr && (model.empty() || !matches_any(rule.models, model))) return false;
  return rule.except_models == nullptr || model.empty() || !matches_any(rule.except_models, model);
}

static bool same_array(const ArrayType *one, const ArrayType *other) {
  if (one == nullptr || other == nullptr) return one == other;
  return VARSIZE(one) == VARSIZE(other) && memcmp(one, other, VARSIZE(one)) == 0;
}

bool model_rule_equal(const ModelRule &one, const ModelRule &other) {
  return same_array(one.models, other.models) && same_array(one.except_models, other.except_models);
}

// One row, taken apart.
struct RuleRow {
  const Datum *values;
  const bool *nulls;

  bool has(AttrNumber column) const { return !nulls[column - 1]; }
  Datum value(AttrNumber column) const { return values[column - 1]; }
  std::string_view text_of(AttrNumber column) const {
    return has(column) ? text_view(DatumGetTextPCopy(value(column))) : std::string_view();
  }
  ArrayType *array_of(AttrNumber column) const { return has(column) ? DatumGetArrayTypePCopy(value(column)) : nullptr; }
  int integer(AttrNumber column, int otherwise) const { return has(column) ? DatumGetInt32(value(column)) : otherwise; }
};

// A zone that this server does not know: another one, which replicates or was dumped, does.
static pg_tz *zone_of(const RuleRow &row, AttrNumber column, pg_tz *otherwise) {
  if (!row.has(column)) return otherwise;
  const char *name = text_to_cstring(DatumGetTextPP(row.value(column)));
  pg_tz *zone = period_clock_zone(name);
  if (zone == nullptr) ereport(WARNING, errmsg("keypool: time zone \"%s\" is not known here; UTC is taken", name));
  return zone != nullptr ? zone : period_clock_zone(nullptr);
}

// False if it has no meter.
static bool read_quota(const RuleRow &row, const ProviderRules &rules, const MeterFinder &finder, PoolQuota *quota) {
  *quota = {};
  quota->place.id = key_id_from_datum(row.value(kQuotasId));
  if (!meter_finder_find(finder, quota->place.id, &quota->place.address)) return false;
  quota->name = row.text_of(kQuotasName);
  quota->account = row.text_of(kQuotasAccount);
  quota->models = {row.array_of(kQuotasModels), row.array_of(kQuotasExceptModels)};
  quota->tag = keypool::QuotaTag(quota->place.id);
  quota->limits = quota_limits_of_row(row.values, row.nulls);
  quota->rules = {quota->limits.rule, keypool::RingWidth(quota->limits), rules.key_rules.call_timeout, {}};
  quota->clock.zone = zone_of(row, kQuotasTimeZone, rules.key_clock.zone);
  return true;
}

static void add_quota(const PoolQuota &quota, ProviderRules *rules, int *capacity) {
  if (rules->quota_count == *capacity) {
    *capacity = Max(8, *capacity * 2);
    Size size = *capacity * sizeof(PoolQuota);
    rules->quotas = static_cast<PoolQuota *>(rules->quotas == nullptr ? palloc(size) : repalloc(rules->quotas, size));
  }
  rules->quotas[rules->quota_count++] = quota;
  if (quota.models.models != nullptr || quota.models.except_models != nullptr) rules->tells_models_apart = true;
}

static ScanKeyData provider_is(AttrNumber column, std::string_view provider) {
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, column, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  return condition;
}

static void load_quotas(std::string_view provider, Snapshot snapshot, ProviderRules *rules) {
  Relation quotas = table_open(relations().quotas, AccessShareLock);
  Relation meters = meter_table_open(MeterKind::kQuota, AccessShareLock);
  Relation by_name = index_open(relations().quotas_by_name, AccessShareLock);
  ScanKeyData condition = provider_is(kQuotasProvider, provider);
  SysScanDesc scan = systable_beginscan_ordered(quotas, by_name, snapshot, 1, &condition);
  MeterFinder finder = meter_finder_begin(MeterKind::kQuota, meters, snapshot);
  int capacity = 0;
  while (HeapTuple tuple = systable_getnext_ordered(scan, ForwardScanDirection)) {
    CHECK_FOR_INTERRUPTS();
    Datum values[kQuotasColumns];
    bool nulls[kQuotasColumns];
    read_quotas_row(tuple, RelationGetDescr(quotas), values, nulls);
    PoolQuota quota;
    if (read_quota({values, nulls}, *rules, finder, &quota))
      add_quota(quota, rules, &capacity);
    else
      ereport(WARNING, errmsg("keypool: a quota of this provider has no meter and is not heeded"),
              errhint("Run keypool_heal()."));
  }
  meter_finder_end(&finder);
  systable_endscan_ordered(scan);
  index_close(by_name, AccessShareLock);
  table_close(meters, AccessShareLock);
  table_close(quotas, AccessShareLock);
}

static Scope scope_of_setting(std::string_view scope) {
  return scope == "model" ? Scope::kModel : scope == "account" ? Scope::kAccount : Scope::kKey;
}

static void read_provider(const RuleRow &row, ProviderRules *rules) {
  rules->takes_turns = row.text_of(kProvidersStrategy) != "fill_first";
  rules->key_clock.zone = zone_of(row, kProvidersTimeZone, rules->key_clock.zone);
  if (row.has(kProvidersDefaultTokens)) rules->default_tokens = DatumGetInt64(row.value(kProvidersDefaultTokens));
  rules->default_cooldown = row.integer(kProvidersDefaultCooldown, 0);
  rules->max_cooldown = row.integer(kProvidersMaxCooldown, 0);
  rules->rate_limit_scope = scope_of_setting(row.text_of(kProvidersRateLimitScope));
  rules->breaker_threshold = row.integer(kProvidersBreakerThreshold, -1);
  rules->key_rules.call_timeout =
      static_cast<uint32_t>(row.integer(kProvidersCallTimeout, static_cast<int>(keypool::kDefaultCallTimeout)));
}

static void load_provider(std::string_view provider, Snapshot snapshot, ProviderRules *rules) {
  Relation providers = table_open(relations().providers, AccessShareLock);
  ScanKeyData condition = provider_is(kProvidersProvider, provider);
  SysScanDesc scan = systable_beginscan(providers, relations().providers_by_name, true, snapshot, 1, &condition);
  if (HeapTuple tuple = systable_getnext(scan)) {
    Datum values[kProvidersColumns];
    bool nulls[kProvidersColumns];
    read_providers_row(tuple, RelationGetDescr(providers), values, nulls);
    read_provider({values, nulls}, rules);
  }
  systable_endscan(scan);
  table_close(providers, AccessShareLock);
}

ProviderRules *load_provider_rules(std::string_view provider, Snapshot snapshot) {
  auto *rules = static_cast<ProviderRules *>(palloc0(sizeof(ProviderRules)));
  rules->takes_turns = true;
  rules->rate_limit_scope = Scope::kKey;
  rules->breaker_threshold = -1;
  rules->key_rules = {{}, keypool::kSecondSlots, keypool::kDefaultCallTimeout, {}};
  rules->key_clock.zone = period_clock_zone(nullptr);
  load_provider(provider, snapshot, rules);
  load_quotas(provider, snapshot, rules);
  return rules;
}

const keypool::MeterRules *quota_rules_at(PoolQuota *quota, TimeUs now) {
  quota->rules.ends = period_clock_read(&quota->clock, now);
  return &quota->rules;
}

const keypool::MeterRules *key_rules_at(ProviderRules *rules, TimeUs now) {
  rules->key_rules.ends = period_clock_read(&rules->key_clock, now);
  return &rules->key_rules;
}

bool quota_covers(const PoolQuota &quota, std::string_view account) {
  return quota.account.empty() || (!account.empty() && keypool::Covers(quota.account, account));
}

int quotas_for(const ProviderRules &rules, std::string_view account, std::string_view model, uint32 *quotas, int max) {
  int found = 0;
  for (int i = 0; i < rules.quota_count; ++i) {
    const PoolQuota &quota = rules.quotas[i];
    if (!quota_covers(quota, account) || !model_rule_serves(quota.models, model)) continue;
    if (found < max) quotas[found] = static_cast<uint32>(i);
    ++found;
  }
  return found;
}

PoolQuota *quota_of_tag(const ProviderRules &rules, uint16 tag) {
  for (int i = 0; i < rules.quota_count; ++i)
    if (rules.quotas[i].tag == tag) return &rules.quotas[i];
  return nullptr;
}

PoolQuota *quota_of_name(const ProviderRules &rules, std::string_view name) {
  for (int i = 0; i < rules.quota_count; ++i)
    if (rules.quotas[i].name == name) return &rules.quotas[i];
  return nullptr;
}
