// error_rules.cpp - the rules of keypool.error_rules.
#include "pg/catalog/error_rules.h"

#include <algorithm>

#include "core/quota/model_pattern.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"

using keypool::AnswerClass;
using keypool::ErrorRule;

struct StoredRule {
  std::string_view provider;  // a shell pattern
  ErrorRule rule;
  std::string_view scope;
};

// What is loaded is of use while `loaded_version` is grants_version().
static struct {
  MemoryContext context;
  StoredRule *rules;
  int count;
  uint64 loaded_version;
} cache;

void error_rules_init(void) {
  cache.context = AllocSetContextCreate(CacheMemoryContext, "keypool error rules", ALLOCSET_SMALL_SIZES);
}

static std::string_view keep_text(Datum value, bool is_null) {
  return is_null ? std::string_view() : text_view(DatumGetTextPCopy(value));
}

// Codes are compared in lower case.
static std::string_view keep_code(Datum value, bool is_null) {
  std::string_view code = keep_text(value, is_null);
  for (char *c = const_cast<char *>(code.data()); c != code.data() + code.size(); ++c) *c = pg_ascii_tolower(*c);
  return code;
}

// A class that is not known, which a restore may bring, makes a rule that fits nothing.
static StoredRule read_rule(HeapTuple row, TupleDesc columns) {
  Datum values[kErrorRulesColumns];
  bool nulls[kErrorRulesColumns];
  read_error_rules_row(row, columns, values, nulls);
  auto text_of = [&](int column) { return keep_text(values[column - 1], nulls[column - 1]); };
  StoredRule stored = {text_of(kErrorRulesProvider), {}, text_of(kErrorRulesScope)};
  stored.rule.status = nulls[kErrorRulesStatus - 1] ? 0 : DatumGetInt32(values[kErrorRulesStatus - 1]);
  stored.rule.code = keep_code(values[kErrorRulesCode - 1], nulls[kErrorRulesCode - 1]);
  if (!keypool::ReadAnswerClass(text_of(kErrorRulesClass), &stored.rule.answer_class)) stored.provider = {};
  return stored;
}

static bool comes_first(const StoredRule &one, const StoredRule &other) {
  if (one.provider.size() != other.provider.size()) return one.provider.size() > other.provider.size();
  if (one.rule.code.empty() != other.rule.code.empty()) return !one.rule.code.empty();
  if (one.rule.code.size() != other.rule.code.size()) return one.rule.code.size() > other.rule.code.size();
  if ((one.rule.status == 0) != (other.rule.status == 0)) return one.rule.status != 0;
  if (one.provider != other.provider) return one.provider < other.provider;
  return one.rule.code != other.rule.code ? one.rule.code < other.rule.code : one.rule.status < other.rule.status;
}

static void load_rules(void) {
  MemoryContextReset(cache.context);
  MemoryContext before = MemoryContextSwitchTo(cache.context);
  Relation relation = table_open(relations().error_rules, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, nullptr);
  int capacity = 8;
  cache.count = 0;
  cache.rules = static_cast<StoredRule *>(palloc(capacity * sizeof(StoredRule)));
  while (HeapTuple row = systable_getnext(scan)) {
    if (cache.count == capacity)
      cache.rules = static_cast<StoredRule *>(repalloc(cache.rules, (capacity *= 2) * sizeof(StoredRule)));
    cache.rules[cache.count++] = read_rule(row, RelationGetDescr(relation));
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(relation, AccessShareLock);
  MemoryContextSwitchTo(before);
  std::sort(cache.rules, cache.rules + cache.count, comes_first);
}

static void refresh_rules(void) {
  while (cache.loaded_version != grants_version()) {
    cache.loaded_version = 0;
    uint64 version = grants_version();
    load_rules();
    cache.loaded_version = version;
  }
}

bool error_rules_exist(void) {
  refresh_rules();
  return cache.count > 0;
}

OwnErrorRules error_rules_for(std::string_view provider) {
  refresh_rules();
  OwnErrorRules own = {};
  own.rules = static_cast<ErrorRule *>(palloc(Max(cache.count, 1) * sizeof(ErrorRule)));
  own.providers = static_cast<std::string_view *>(palloc(Max(cache.count, 1) * sizeof(std::string_view)));
  own.scopes = static_cast<std::string_view *>(palloc(Max(cache.count, 1) * sizeof(std::string_view)));
  for (int i = 0; i < cache.count; ++i) {
    const StoredRule &stored = cache.rules[i];
    if (stored.provider.empty() || !keypool::Matches(stored.provider, provider)) continue;
    own.rules[own.count] = stored.rule;
    own.providers[own.count] = stored.provider;
    own.scopes[own.count++] = stored.scope;
  }
  return own;
}
