// limit_columns.h - the limits in rows of keypool.provider_keys and keypool.quotas.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/limits.h"

// Whose columns they are.
enum class LimitsOf : uint8 { kKeys, kQuotas };

// The column of a limit, and of burst_seconds, in that table; 0 if it has none (hours are for quotas only).
AttrNumber limit_column(LimitsOf table, keypool::Limit limit);
AttrNumber burst_column(LimitsOf table);

// Reads them out of a row that was taken apart. NULL is none. `rule` and `rolling_day` stay as they are by default.
keypool::Limits limits_of_row(LimitsOf table, const Datum *values, const bool *nulls);

// All that a row of keypool.quotas says of its limits: `rule` and `rolling_day`, too. What its triggers refuse counts
// as the default.
keypool::Limits quota_limits_of_row(const Datum *values, const bool *nulls);
