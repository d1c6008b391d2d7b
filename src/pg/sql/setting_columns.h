// setting_columns.h - the settings of keys, quotas and providers that are given as JSON.
#pragma once

#include "core/quota/amounts.h"
#include "core/quota/meter.h"
#include "pg/sql/settings_json.h"

inline constexpr SettingColumn kKeySettings[] = {
    {"key_label", SettingKind::kText, 0, 0, nullptr},
    {"priority", SettingKind::kNumber, PG_INT32_MIN, PG_INT32_MAX, nullptr},
    {"is_active", SettingKind::kBoolean, 0, 0, nullptr},
    {"inactive_until", SettingKind::kTime, 0, 0, nullptr},
    {"account", SettingKind::kText, 0, 0, nullptr},
    {"models", SettingKind::kTexts, 0, 0, nullptr},
    {"except_models", SettingKind::kTexts, 0, 0, nullptr},
    {"weight", SettingKind::kNumber, 1, 1000, nullptr},
    {"max_rpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_output_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_rpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_requests_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tokens_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_day", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_in_flight", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"burst_seconds", SettingKind::kNumber, 1, 30, nullptr},
    {"attributes", SettingKind::kObject, 0, 0, nullptr},
    {"expires_at", SettingKind::kTime, 0, 0, nullptr},
    {"key_value", SettingKind::kRefused, 0, 0, "Secrets never travel in JSON: use keypool_set_secret()."},
};

inline constexpr SettingColumn kQuotaSettings[] = {
    {"account", SettingKind::kText, 0, 0, nullptr},
    {"models", SettingKind::kTexts, 0, 0, nullptr},
    {"except_models", SettingKind::kTexts, 0, 0, nullptr},
    {"max_rpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_output_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_rph", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tph", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_rpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_requests_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tokens_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_day", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_in_flight", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"burst_seconds", SettingKind::kNumber, 1, 30, nullptr},
    {"counts", SettingKind::kText, 0, 0, "tokens, prompt, input, uncached"},
    {"output_weight", SettingKind::kNumber, 1, keypool::kMaxOutputWeight, nullptr},
    {"time_zone", SettingKind::kText, 0, 0, nullptr},
    {"day", SettingKind::kText, 0, 0, "calendar, rolling"},
};

inline constexpr SettingColumn kProviderSettings[] = {
    {"strategy", SettingKind::kText, 0, 0, "rotate, fill_first"},
    {"time_zone", SettingKind::kText, 0, 0, nullptr},
    {"default_tokens", SettingKind::kNumber, 0, keypool::kMaxTokens, nullptr},
    {"default_cooldown", SettingKind::kNumber, 1, PG_INT32_MAX, nullptr},
    {"max_cooldown", SettingKind::kNumber, 1, PG_INT32_MAX, nullptr},
    {"rate_limit_scope", SettingKind::kText, 0, 0, "key, model, account"},
    {"call_timeout", SettingKind::kNumber, keypool::kMinCallTimeout, keypool::kMaxCallTimeout, nullptr},
    {"breaker_threshold", SettingKind::kNumber, 0, 1000, nullptr},
};
