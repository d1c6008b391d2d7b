// limit_columns.cpp - the limits in rows of keypool.provider_keys and keypool.quotas.
#include "pg/pool/limit_columns.h"

#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"

using keypool::kLimits;

static constexpr AttrNumber kColumnsOfKeys[kLimits] = {kKeysMaxRpm,
                                                       kKeysMaxTpm,
                                                       kKeysMaxOutputTpm,
                                                       0,
                                                       0,
                                                       kKeysMaxRpd,
                                                       kKeysMaxTpd,
                                                       kKeysMaxRequestsPerMonth,
                                                       kKeysMaxTokensPerMonth,
                                                       kKeysMaxCostPerDay,
                                                       kKeysMaxCostPerMonth,
                                                       kKeysMaxInFlight};
static constexpr AttrNumber kColumnsOfQuotas[kLimits] = {kQuotasMaxRpm,
                                                         kQuotasMaxTpm,
                                                         kQuotasMaxOutputTpm,
                                                         kQuotasMaxRph,
                                                         kQuotasMaxTph,
                                                         kQuotasMaxRpd,
                                                         kQuotasMaxTpd,
                                                         kQuotasMaxRequestsPerMonth,
                                                         kQuotasMaxTokensPerMonth,
                                                         kQuotasMaxCostPerDay,
                                                         kQuotasMaxCostPerMonth,
                                                         kQuotasMaxInFlight};

AttrNumber limit_column(LimitsOf table, keypool::Limit limit) {
  return (table == LimitsOf::kKeys ? kColumnsOfKeys : kColumnsOfQuotas)[static_cast<int>(limit)];
}

AttrNumber burst_column(LimitsOf table) {
  return static_cast<AttrNumber>(table == LimitsOf::kKeys ? int{kKeysBurstSeconds} : int{kQuotasBurstSeconds});
}

keypool::Limits limits_of_row(LimitsOf table, const Datum *values, const bool *nulls) {
  keypool::Limits limits;
  for (int i = 0; i < kLimits; ++i) {
    AttrNumber column = limit_column(table, static_cast<keypool::Limit>(i));
    if (column != 0 && !nulls[column - 1]) limits.max[i] = DatumGetInt64(values[column - 1]);
  }
  AttrNumber burst = burst_column(table);
  if (!nulls[burst - 1]) limits.burst_seconds = static_cast<uint8_t>(DatumGetInt16(values[burst - 1]));
  return limits;
}

static keypool::Counts counts_of(std::string_view name) {
  return name == "prompt"     ? keypool::Counts::kPrompt
         : name == "input"    ? keypool::Counts::kInput
         : name == "uncached" ? keypool::Counts::kUncached
                              : keypool::Counts::kTokens;
}

keypool::Limits quota_limits_of_row(const Datum *values, const bool *nulls) {
  auto text_of = [&](AttrNumber column) {
    return nulls[column - 1] ? std::string_view() : text_view(DatumGetTextPP(values[column - 1]));
  };
  keypool::Limits limits = limits_of_row(LimitsOf::kQuotas, values, nulls);
  limits.rolling_day = text_of(kQuotasDay) == "rolling";
  limits.rule.counts = counts_of(text_of(kQuotasCounts));
  int32 weight = nulls[kQuotasOutputWeight - 1] ? 1 : DatumGetInt32(values[kQuotasOutputWeight - 1]);
  if (weight >= 1 && weight <= keypool::kMaxOutputWeight) limits.rule.output_weight = weight;
  if (!keypool::HaveOneWidth(limits)) {
    limits.of(keypool::Limit::kRph) = limits.of(keypool::Limit::kTph) = 0;
    limits.rolling_day = false;
  }
  return limits;
}
