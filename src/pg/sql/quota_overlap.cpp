// quota_overlap.cpp - which quotas can apply to one request, and whether they are more than one call can settle.
#include "pg/sql/quota_overlap.h"

extern "C" {
#include "utils/array.h"
}

#include "core/quota/account.h"
#include "core/quota/model_pattern.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"

QuotaScope scope_of_quota(const Datum *values, const bool *nulls) {
  QuotaScope scope = {};
  scope.id = key_id_from_datum(values[kQuotasId - 1]);
  scope.name = text_view(DatumGetTextPP(values[kQuotasName - 1]));
  if (!nulls[kQuotasAccount - 1]) scope.account = text_view(DatumGetTextPP(values[kQuotasAccount - 1]));
  if (!nulls[kQuotasModels - 1]) scope.models.models = DatumGetArrayTypeP(values[kQuotasModels - 1]);
  if (!nulls[kQuotasExceptModels - 1]) scope.models.except_models = DatumGetArrayTypeP(values[kQuotasExceptModels - 1]);
  return scope;
}

// Whether the keys of some account are under both.
static bool share_keys(std::string_view one, std::string_view other) {
  return one.empty() || other.empty() || keypool::Covers(one, other) || keypool::Covers(other, one);
}

// The patterns of an array.
struct Patterns {
  Datum *texts;
  int count;

  std::string_view at(int i) const { return text_view(DatumGetTextPP(texts[i])); }
};

// Those of a valid length: a restore or replication may bring others, which match nothing.
static Patterns patterns_of(ArrayType *array) {
  Patterns patterns = {};
  if (array == nullptr || array_contains_nulls(array)) return patterns;
  int count;
  deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &patterns.texts, nullptr, &count);
  for (int i = 0; i < count; ++i) {
    Size size = VARSIZE_ANY_EXHDR(DatumGetTextPP(patterns.texts[i]));
    if (size > 0 && size <= keypool::kMaxPatternBytes) patterns.texts[patterns.count++] = patterns.texts[i];
  }
  return patterns;
}

// Whether all models that a pattern matches are left out by one of these. May say no where it is so: `?` must not take
// the star of the other pattern for a character.
static bool all_left_out(std::string_view pattern, const Patterns &except) {
  bool has_star = pattern.find('*') != pattern.npos;
  for (int i = 0; i < except.count; ++i) {
    bool may_take_star = has_star && except.at(i).find('?') != std::string_view::npos;
    if (!may_take_star && keypool::Matches(except.at(i), pattern)) return true;
  }
  return false;
}

// Whether a rule is for a model that a pattern matches, and that `except` leaves in.
static bool serves_some(const ModelRule &rule, std::string_view pattern, const Patterns &except) {
  Patterns own_except = patterns_of(rule.except_models);
  if (all_left_out(pattern, own_except) || all_left_out(pattern, except)) return false;
  if (rule.models == nullptr) return true;
  Patterns models = patterns_of(rule.models);
  for (int i = 0; i < models.count; ++i) {
    std::string_view own = models.at(i);
    if (keypool::Overlap(own, pattern) && !all_left_out(own, own_except) && !all_left_out(own, except)) return true;
  }
  return false;
}

static bool share_models(const ModelRule &one, const ModelRule &other) {
  if (one.models == nullptr && other.models == nullptr) return true;  // both are for requests without a model
  const ModelRule &named = one.models != nullptr ? one : other;
  const ModelRule &counterpart = one.models != nullptr ? other : one;
  Patterns models = patterns_of(named.models);
  Patterns except = patterns_of(named.except_models);
  for (int i = 0; i < models.count; ++i)
    if (serves_some(counterpart, models.at(i), except)) return true;
  return false;
}

bool quotas_overlap(const QuotaScope &one, const QuotaScope &other) {
  return share_keys(one.account, other.account) && share_models(one.models, other.models);
}

bool find_crowd(const QuotaScope &quota, const QuotaScope *others, int count,
                const QuotaScope *(&crowd)[keypool::kMaxQuotas]) {
  static_assert(keypool::kMaxQuotas == 3);
  auto **near = static_cast<const QuotaScope **>(palloc(Max(count, 1) * sizeof(const QuotaScope *)));
  int found = 0;
  for (int i = 0; i < count; ++i)
    if (quotas_overlap(quota, others[i])) near[found++] = &others[i];
  for (int i = 0; i < found; ++i)
    for (int j = i + 1; j < found; ++j) {
      CHECK_FOR_INTERRUPTS();
      if (!quotas_overlap(*near[i], *near[j])) continue;
      for (int k = j + 1; k < found; ++k) {
        if (!quotas_overlap(*near[i], *near[k]) || !quotas_overlap(*near[j], *near[k])) continue;
        crowd[0] = near[i];
        crowd[1] = near[j];
        crowd[2] = near[k];
        return true;
      }
    }
  return false;
}

static char *names_of_crowd(const QuotaScope &quota, const QuotaScope *(&crowd)[keypool::kMaxQuotas]) {
  StringInfoData names;
  initStringInfo(&names);
  appendBinaryStringInfo(&names, quota.name.data(), static_cast<int>(quota.name.size()));
  for (const QuotaScope *other : crowd) {
    appendStringInfoString(&names, ", ");
    appendBinaryStringInfo(&names, other->name.data(), static_cast<int>(other->name.size()));
  }
  return names.data;
}

// By provider: each quota is looked at with those before it.
char *find_crowd_anywhere(void) {
  Relation quotas = table_open(relations().quotas, AccessShareLock);
  Relation order = index_open(relations().quotas_by_name, AccessShareLock);
  Snapshot snapshot = snapshot_of_now();
  SysScanDesc scan = systable_beginscan_ordered(quotas, order, snapshot, 0, nullptr);
  std::string_view provider;
  int count = 0, capacity = 64;
  auto *scopes = static_cast<QuotaScope *>(palloc(capacity * sizeof(QuotaScope)));
  char *found = nullptr;
  HeapTuple row = systable_getnext_ordered(scan, ForwardScanDirection);
  while (HeapTupleIsValid(row) && found == nullptr) {
    Datum values[kQuotasColumns];
    bool nulls[kQuotasColumns];
    read_quotas_row(heap_copytuple(row), RelationGetDescr(quotas), values, nulls);
    std::string_view next = text_view(DatumGetTextPP(values[kQuotasProvider - 1]));
    if (next != provider) count = 0;
    provider = next;
    if (count == capacity) scopes = static_cast<QuotaScope *>(repalloc(scopes, (capacity *= 2) * sizeof(QuotaScope)));
    scopes[count++] = scope_of_quota(values, nulls);
    const QuotaScope *crowd[keypool::kMaxQuotas];
    if (find_crowd(scopes[count - 1], scopes, count - 1, crowd)) found = names_of_crowd(scopes[count - 1], crowd);
    row = systable_getnext_ordered(scan, ForwardScanDirection);
  }
  systable_endscan_ordered(scan);
  UnregisterSnapshot(snapshot);
  index_close(order, AccessShareLock);
  table_close(quotas, AccessShareLock);
  return found;
}
