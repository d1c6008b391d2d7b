// metrics.cpp - keypool_metrics: numbers for a collector, by the names and rules of Prometheus.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/jsonb.h"
}

#include <initializer_list>
#include <utility>

#include "core/quota/breaker.h"
#include "core/quota/limit_use.h"
#include "core/quota/window.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/call_meters.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/sql/provider_pools.h"
#include "pg/state/refusal_rows.h"

using keypool::Meter;
using keypool::TimeUs;

using Label = std::pair<const char *, std::string_view>;

static void push_text(JsonbParseState **state, JsonbIteratorToken token, std::string_view value) {
  JsonbValue pushed;
  pushed.type = jbvString;
  pushed.val.string.val = const_cast<char *>(value.data());
  pushed.val.string.len = static_cast<int>(value.size());
  pushJsonbValue(state, token, &pushed);
}

static Datum make_labels(std::initializer_list<Label> labels) {
  JsonbParseState *state = nullptr;
  pushJsonbValue(&state, WJB_BEGIN_OBJECT, nullptr);
  for (const auto &[label, content] : labels) {
    push_text(&state, WJB_KEY, label);
    push_text(&state, WJB_VALUE, content);
  }
  return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, nullptr)));
}

static void put_labelled(ReturnSetInfo *result, Datum name, Datum labels, double value) {
  Datum values[] = {name, labels, Float8GetDatum(value)};
  bool nulls[lengthof(values)] = {};
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void put(ReturnSetInfo *result, const char *name, std::initializer_list<Label> labels, double value) {
  put_labelled(result, CStringGetTextDatum(name), make_labels(labels), value);
}

// What meters have counted. It only grows, but for a meter that is gone, and a crash, which may forget the last of the
// reserved half.
struct Counts {
  double requests, tokens, output, cached, cost, rate_limits;
  double selections, releases, expiries, repeats;
  double open;
};

static void add(Counts *counts, const Meter &meter, TimeUs now) {
  const keypool::Totals &totals = meter.recorded.totals;
  counts->requests += static_cast<double>(totals.requests);
  counts->tokens += static_cast<double>(totals.tokens);
  counts->output += static_cast<double>(totals.output);
  counts->cached += static_cast<double>(totals.cached);
  counts->cost += static_cast<double>(totals.cost);
  counts->rate_limits += static_cast<double>(meter.reserved.rate_limits);
  counts->selections += static_cast<double>(meter.reserved.selections);
  counts->releases += static_cast<double>(meter.reserved.releases);
  counts->expiries += static_cast<double>(meter.reserved.expiries);
  counts->repeats += static_cast<double>(meter.reserved.repeats);
  counts->open += static_cast<double>(keypool::CallsInFlight(meter, now).calls);
}

static constexpr int kCounters = 11;

// What the counters of all things of a kind are called.
struct CounterNames {
  Datum names[kCounters];
};

static CounterNames counter_names(const char *prefix) {
  static const char *const kNames[kCounters] = {"requests_total",      "tokens_total",   "output_tokens_total",
                                                "cached_tokens_total", "cost_total",     "rate_limited_total",
                                                "selections_total",    "released_total", "never_settled_total",
                                                "settled_twice_total", "in_flight"};
  CounterNames made;
  for (int i = 0; i < kCounters; ++i) made.names[i] = CStringGetTextDatum(psprintf("%s%s", prefix, kNames[i]));
  return made;
}

static void put_counts(ReturnSetInfo *result, const CounterNames &names, Datum labels, const Counts &counts) {
  const double values[kCounters] = {counts.requests, counts.tokens,      counts.output,     counts.cached,
                                    counts.cost,     counts.rate_limits, counts.selections, counts.releases,
                                    counts.expiries, counts.repeats,     counts.open};
  for (int i = 0; i < kCounters; ++i) put_labelled(result, names.names[i], labels, values[i]);
}

// Of each limit of a quota: what it is, and how much of it is used.
static void put_limits(ReturnSetInfo *result, std::string_view provider, const PoolQuota &quota, const Meter &meter,
                       TimeUs now) {
  for (int i = 0; i < keypool::kLimits; ++i) {
    auto limit = static_cast<keypool::Limit>(i);
    if (quota.limits.of(limit) == 0) continue;
    keypool::LimitUse use = keypool::UseOfLimit(meter, quota.limits, limit, now);
    std::initializer_list<Label> labels = {
        {"provider", provider}, {"quota", quota.name}, {"limit", keypool::LimitName(limit)}};
    put(result, "keypool_quota_limit", labels, static_cast<double>(use.max));
    put(result, "keypool_quota_used", labels, static_cast<double>(use.use));
  }
}

// False if the pool shows what has changed.
static bool put_quotas(ReturnSetInfo *result, std::string_view provider, const ShownPool &shown, TimeUs now) {
  ProviderRules *rules = shown.pool->rules;
  CounterNames names = counter_names("keypool_quota_");
  for (int i = 0; i < rules->quota_count; ++i) {
    const PoolQuota &quota = rules->quotas[i];
    CallMeters call = call_meters_of_quota(&rules->quotas[i], rules);
    Meter meter;
    if (!call_meters_copy(shown.tables, &call, now, &meter)) return false;
    Counts counts = {};
    add(&counts, meter, now);
    Datum labels = make_labels({{"provider", provider}, {"quota", quota.name}});
    put_counts(result, names, labels, counts);
    put_limits(result, provider, quota, meter, now);
    TimeUs blocked_until = meter.recorded.blocked_until;
    put_labelled(result, CStringGetTextDatum("keypool_quota_blocked"), labels, blocked_until > now);
  }
  return true;
}

struct KeysOfProvider {
  Counts counts;
  int states[static_cast<int>(KeyState::kOff) + 1];
  int open_breakers, unopened;
  TimeUs longest_open;  // of these breakers
};

static void put_key(ReturnSetInfo *result, std::string_view provider, const PoolKey &key, const CounterNames &names,
                    const Counts &counts, KeyState state) {
  pg_uuid_t uuid;
  memcpy(uuid.data, key.place.id.bytes, UUID_LEN);
  std::string_view id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid)));
  std::string_view label = key.label != nullptr ? text_view(key.label) : std::string_view();
  put_counts(result, names, make_labels({{"provider", provider}, {"key", id}, {"label", label}}), counts);
  put(result, "keypool_key_state",
      {{"provider", provider}, {"key", id}, {"label", label}, {"state", key_state_name(state)}}, 1);
}

static bool add_keys(ReturnSetInfo *result, std::string_view provider, const ShownPool &shown, bool by_key, TimeUs now,
                     KeysOfProvider *keys) {
  CounterNames names = counter_names("keypool_key_");
  for (int i = 0; i < shown.pool->count; ++i) {
    CHECK_FOR_INTERRUPTS();
    PoolKey *key = &shown.pool->keys[i];
    CallMeters call = call_meters_of_key(&key->place, key->limits, shown.pool->rules);
    Meter meter;
    KeyAnswer said = ask_key_of_any_model(shown.tables, shown.pool, static_cast<uint32>(i));
    if (said.kind == KeyAnswer::kMoved || !call_meters_copy(shown.tables, &call, now, &meter)) return false;
    ++keys->states[static_cast<int>(key_state(said))];
    keys->unopened += said.kind == KeyAnswer::kUnopened;
    keys->open_breakers += keypool::BreakerStateOf(meter, now) != keypool::BreakerState::kClosed;
    keys->longest_open = Max(keys->longest_open, keypool::BreakerOpenFor(meter, now));
    Counts counts = {};
    add(&counts, meter, now);
    add(&keys->counts, meter, now);
    if (by_key) put_key(result, provider, *key, names, counts, key_state(said));
  }
  return true;
}

// The statuses of refusals, in the order of keypool::Refused.
static const char *const kRefusedNames[] = {"limited", "cooling", "busy", "too_large", "no_key"};
static_assert(lengthof(kRefusedNames) == keypool::kRefused);

static void put_refusals(ReturnSetInfo *result, std::string_view provider, TimeUs now) {
  keypool::RefusalCounts counts;
  refusal_rows_read(provider, &counts);
  for (int i = 0; i < keypool::kRefused; ++i)
    put(result, "keypool_refusals_total", {{"provider", provider}, {"status", kRefusedNames[i]}},
        static_cast<double>(Max(counts.totals[i], 0)));
  TimeUs since = keypool::ShortSince(counts, now);
  put(result, "keypool_short_seconds", {{"provider", provider}},
      since == 0 ? 0 : static_cast<double>(now - since) / keypool::kMicrosPerSecond);
}

static bool put_metrics(ReturnSetInfo *result, text *name, const ShownPool &shown, bool by_key) {
  std::string_view provider = text_view(name);
  TimeUs now = clock_now();
  KeysOfProvider keys = {};
  if (!put_quotas(result, provider, shown, now) || !add_keys(result, provider, shown, by_key, now, &keys)) return false;
  for (int i = 0; i < static_cast<int>(lengthof(keys.states)); ++i)
    put(result, "keypool_keys", {{"provider", provider}, {"state", key_state_name(static_cast<KeyState>(i))}},
        keys.states[i]);
  put_counts(result, counter_names("keypool_"), make_labels({{"provider", provider}}), keys.counts);
  put(result, "keypool_breakers_open", {{"provider", provider}}, keys.open_breakers);
  put(result, "keypool_breaker_open_seconds", {{"provider", provider}},
      static_cast<double>(keys.longest_open) / keypool::kMicrosPerSecond);
  put(result, "keypool_secrets_unopened", {{"provider", provider}}, keys.unopened);
  put_refusals(result, provider, now);
  return true;
}

static bool put_by_provider(ReturnSetInfo *result, text *provider, const ShownPool &shown) {
  return put_metrics(result, provider, shown, false);
}

static bool put_by_key(ReturnSetInfo *result, text *provider, const ShownPool &shown) {
  return put_metrics(result, provider, shown, true);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_metrics);
Datum keypool_metrics(PG_FUNCTION_ARGS) {
  bool by_key = argument_given(fcinfo, 1) && PG_GETARG_BOOL(1);
  Datum none = show_providers(fcinfo, by_key ? put_by_key : put_by_provider);
  put(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), "keypool_keyring_loaded", {},
      master_keys_diagnosis().ok());
  return none;
}

}  // extern "C"
