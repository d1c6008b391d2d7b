// blame.cpp - which meters of a call its end is the fault of.
#include "pg/pool/blame.h"

#include "core/quota/account.h"

// Whether a quota has limits, and all of them are of cost: no provider answers 429 for those.
static bool limits_cost_only(const keypool::Limits &limits) {
  using keypool::Limit;
  bool cost = limits.of(Limit::kCostDay) != 0 || limits.of(Limit::kCostMonth) != 0;
  for (int i = 0; i < keypool::kLimits; ++i) {
    auto limit = static_cast<Limit>(i);
    if (limits.max[i] != 0 && limit != Limit::kCostDay && limit != Limit::kCostMonth) return false;
  }
  return cost;
}

// How narrow a quota is, the narrowest first: of models and an account, of an account, of models; then by the length of
// the account. 0 if a 429 is never its.
static int narrowness(const PoolQuota &quota) {
  static constexpr int kClass = 1 + keypool::kMaxAccountBytes;
  bool of_models = quota.models.models != nullptr || quota.models.except_models != nullptr;
  int length = static_cast<int>(quota.account.size());
  if (limits_cost_only(quota.limits) || (length == 0 && !of_models)) return 0;
  return kClass * (length == 0 ? 3 : of_models ? 1 : 2) - length;
}

static uint8 narrowest_quotas(const CallMeters &call) {
  int narrowest = 0;
  uint8 blames = 0;
  for (int i = 1; i < call.count; ++i) {
    int its = narrowness(*call.quota[i]);
    if (its == 0 || (narrowest != 0 && its > narrowest)) continue;
    blames = static_cast<uint8>((its == narrowest ? blames : 0) | 1 << i);
    narrowest = its;
  }
  return blames;
}

static uint8 quotas_of_accounts(const CallMeters &call) {
  uint8 blames = 0;
  for (int i = 1; i < call.count; ++i)
    if (!call.quota[i]->account.empty()) blames |= static_cast<uint8>(1 << i);
  return blames;
}

static uint8 quota_named(const CallMeters &call, std::string_view name) {
  for (int i = 1; i < call.count; ++i)
    if (call.quota[i]->name == name) return static_cast<uint8>(1 << i);
  return 0;
}

uint8 blame_account(const CallMeters &call) {
  uint8 blames = quotas_of_accounts(call);
  return blames != 0 ? blames : kBlameKey;
}

Blame blame_limited(const CallMeters &call, std::string_view scope) {
  static constexpr std::string_view kOfQuota = "quota:";
  Blame blame = {};
  bool usual = scope.empty() || scope == "quota";
  if (scope.substr(0, kOfQuota.size()) == kOfQuota) {
    blame.meters = quota_named(call, scope.substr(kOfQuota.size()));
    usual = blame.other_quota = blame.meters == 0;
  }
  if (usual) blame.meters = narrowest_quotas(call);
  Scope otherwise = call.provider->rate_limit_scope;
  usual = usual && blame.meters == 0;
  if (scope == "account" || (usual && otherwise == Scope::kAccount)) blame.meters = quotas_of_accounts(call);
  blame.of_model = scope == "model" || (usual && otherwise == Scope::kModel);
  if (blame.meters == 0) blame.meters = kBlameKey;
  return blame;
}
