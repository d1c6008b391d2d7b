// provider_rules.h - what configuration says of a provider apart from its keys: its defaults, and its quotas.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/call.h"
#include "core/quota/lease.h"
#include "pg/server/period_clock.h"
#include "pg/state/meter_store.h"

// Models as patterns say: those that match one of `models` (null: all), and none of `except_models` (null: none).
struct ModelRule {
  ArrayType *models;
  ArrayType *except_models;
};

// Whether a rule is for a model. No model (an empty one) matches no pattern.
bool model_rule_serves(const ModelRule &rule, std::string_view model);

// Whether two rules say the same in the same words.
bool model_rule_equal(const ModelRule &one, const ModelRule &other);

struct PoolQuota {
  MeterPlace place;
  std::string_view name;
  std::string_view account;  // empty: the whole provider's
  ModelRule models;
  uint16 tag;  // in leases
  keypool::Limits limits;
  keypool::MeterRules rules;  // `ends` by meter_rules_at
  PeriodClock clock;
};

// Whom a 429 blames if neither the call says nor the call drew on a quota that can be blamed.
enum class Scope : uint8 { kKey, kModel, kAccount };

struct ProviderRules {
  bool takes_turns;      // strategy rotate; else fill_first
  int64 default_tokens;  // estimate of a selection that names none
  int default_cooldown;  // seconds, of a 429 that tells no time; 0: keypool.default_cooldown
  int max_cooldown;      // seconds; 0: keypool.max_cooldown
  Scope rate_limit_scope;
  int breaker_threshold;  // -1: keypool.breaker_threshold
  keypool::MeterRules key_rules;  // of the meters of all keys; `ends` by key_rules_at
  PeriodClock key_clock;
  bool tells_models_apart;  // some quota is for some models only
  int quota_count;
  PoolQuota *quotas;  // by name
};

// Reads a provider's rows, as the snapshot sees them, into the current memory context. Quotas without a meter are left
// out, with a warning. What rows hold that their triggers refuse (a restore or replication may bring it) is taken for
// the default, with a warning.
ProviderRules *load_provider_rules(std::string_view provider, Snapshot snapshot);

// The rules of a meter at this moment. Raise nothing.
const keypool::MeterRules *quota_rules_at(PoolQuota *quota, keypool::TimeUs now);
const keypool::MeterRules *key_rules_at(ProviderRules *rules, keypool::TimeUs now);

// Whether a quota is for a key of this account (empty: none).
bool quota_covers(const PoolQuota &quota, std::string_view account);

// The quotas that apply to a key of this account (empty: none) for a model (empty: none), by their index, rising, at
// most `max` of them; returns how many there are.
int quotas_for(const ProviderRules &rules, std::string_view account, std::string_view model, uint32 *quotas, int max);

// The quota that a lease names by its tag; null if it is deleted since.
PoolQuota *quota_of_tag(const ProviderRules &rules, uint16 tag);
PoolQuota *quota_of_name(const ProviderRules &rules, std::string_view name);
