// relations.h - where keypool's tables are, and whether anything about them has changed.
#pragma once

#include "pg/server/postgres_api.h"

// Columns of keypool.provider_keys, in order.
enum ProviderKeysColumn : AttrNumber {
  kKeysId = 1,
  kKeysProvider,
  kKeysLabel,
  kKeysValue,
  kKeysPriority,
  kKeysMaxRpm,
  kKeysMaxTpm,
  kKeysIsActive,
  kKeysInactiveUntil,
  kKeysCreatedAt,
  kKeysUpdatedAt,
  kKeysFingerprint,
  kKeysUnopenedSince,
  kKeysAccount,
  kKeysModels,
  kKeysExceptModels,
  kKeysWeight,
  kKeysMaxOutputTpm,
  kKeysMaxRpd,
  kKeysMaxTpd,
  kKeysMaxRequestsPerMonth,
  kKeysMaxTokensPerMonth,
  kKeysMaxCostPerDay,
  kKeysMaxCostPerMonth,
  kKeysMaxInFlight,
  kKeysBurstSeconds,
  kKeysAttributes,
  kKeysExpiresAt,
  kKeysColumns = kKeysExpiresAt,
};

// Columns of keypool.quotas, in order.
enum QuotasColumn : AttrNumber {
  kQuotasId = 1,
  kQuotasProvider,
  kQuotasName,
  kQuotasAccount,
  kQuotasModels,
  kQuotasExceptModels,
  kQuotasMaxRpm,
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
  kQuotasMaxInFlight,
  kQuotasBurstSeconds,
  kQuotasCounts,
  kQuotasOutputWeight,
  kQuotasTimeZone,
  kQuotasDay,
  kQuotasCreatedAt,
  kQuotasUpdatedAt,
  kQuotasColumns = kQuotasUpdatedAt,
};

// Columns of keypool.providers, in order. NULL: the default.
enum ProvidersColumn : AttrNumber {
  kProvidersProvider = 1,
  kProvidersStrategy,
  kProvidersTimeZone,
  kProvidersDefaultTokens,
  kProvidersDefaultCooldown,
  kProvidersMaxCooldown,
  kProvidersRateLimitScope,
  kProvidersCallTimeout,
  kProvidersBreakerThreshold,
  kProvidersColumns = kProvidersBreakerThreshold,
};

// Columns of keypool.error_rules, in order.
enum ErrorRulesColumn : AttrNumber {
  kErrorRulesProvider = 1,
  kErrorRulesStatus,
  kErrorRulesCode,
  kErrorRulesClass,
  kErrorRulesScope,
  kErrorRulesColumns = kErrorRulesScope,
};

// Columns of keypool.key_meters and keypool.quota_meters.
enum MetersColumn : AttrNumber { kMetersId = 1, kMetersMeter };

// Columns of keypool.wakeups.
enum WakeupsColumn : AttrNumber { kWakeupSlot = 1, kWakeupRing };

// Columns of keypool.refusals, in order.
enum RefusalsColumn : AttrNumber { kRefusalsProvider = 1, kRefusalsCounts };

// Columns of keypool.event_log, in order.
enum EventLogColumn : AttrNumber {
  kEventId = 1,
  kEventAt,
  kEventOfCalls,
  kEventName,
  kEventProvider,
  kEventSubject,
  kEventSubjectName,
  kEventRole,
  kEventSessionRole,
  kEventDetails,
  kEventColumns = kEventDetails,
};

// Columns of keypool.master_keys.
enum MasterKeysColumn : AttrNumber { kMasterKeysId = 1, kMasterKeysFingerprint };

// Columns of keypool.grants, in order.
enum GrantsColumn : AttrNumber { kGrantsRole = 1, kGrantsRights, kGrantsProvider, kGrantsColumns = kGrantsProvider };

// Takes a row of one of the tables apart. Raises 42809 if it has other columns than keypool gave it. The value of a
// text that is NULL is an empty one.
void read_provider_keys_row(HeapTuple row, TupleDesc columns, Datum (&values)[kKeysColumns],
                            bool (&nulls)[kKeysColumns]);
void read_quotas_row(HeapTuple row, TupleDesc columns, Datum (&values)[kQuotasColumns], bool (&nulls)[kQuotasColumns]);
void read_providers_row(HeapTuple row, TupleDesc columns, Datum (&values)[kProvidersColumns],
                        bool (&nulls)[kProvidersColumns]);
void read_error_rules_row(HeapTuple row, TupleDesc columns, Datum (&values)[kErrorRulesColumns],
                          bool (&nulls)[kErrorRulesColumns]);
void read_grants_row(HeapTuple row, TupleDesc columns, Datum (&values)[kGrantsColumns], bool (&nulls)[kGrantsColumns]);

// Raises likewise for a table of meters.
void check_meter_columns(Relation table);

// And for keypool.refusals and keypool.event_log, whose pages must be a heap's.
void check_refusals(Relation table);
void check_event_log(Relation table);

// Raises 42809 if a table's pages are not a heap's, as which keypool reads them.
void check_is_heap(Relation relation);

struct KeypoolRelations {
  Oid provider_keys;
  Oid provider_keys_by_id;           // its primary key
  Oid provider_keys_by_order;        // its index on (provider_id, priority, id)
  Oid provider_keys_by_fingerprint;  // its index on (provider_id, fingerprint)
  Oid quotas;
  Oid quotas_by_id;    // its primary key
  Oid quotas_by_name;  // its unique index on (provider_id, name)
  Oid providers;
  Oid providers_by_name;  // its primary key
  Oid key_meters;
  Oid key_meters_by_key;  // its primary key
  Oid quota_meters;
  Oid quota_meters_by_quota;  // its primary key
  Oid wakeups;
  Oid refusals;
  Oid refusals_by_provider;  // its index on (provider_id)
  Oid event_log;
  Oid event_log_by_age;  // its index on (of_calls, id)
  Oid event_ids;         // the sequence of their ids
  Oid grants;
  Oid error_rules;
  Oid master_keys;
  Oid master_keys_by_id;  // its primary key
};

void relations_init(void);

// Looks them up where they are not known. Raises 3F000 or 42P01 if the extension is not there, 55000 if its tables are
// those of an older version, which must be updated.
const KeypoolRelations &relations(void);

// Whether a relation is the index of keypool.provider_keys on their order, or may be: for a callback of invalidations.
bool relations_may_be_keys_order(Oid relation);

// The role that owns them.
Oid relations_owner(void);

// A number that changes whenever all that is known of the rows of keypool's tables of configuration, of meters and of
// keypool.wakeups may be wrong, places included: a table was rewritten, truncated or altered, or meters were restored.
// A key, quota or provider that is added, changed or removed is told of by its provider (provider_changes.h). Takes in
// what other sessions have committed up to now.
uint64 relations_version(void);

// A number that changes whenever a grant or an error rule was added, changed or removed in a transaction that
// committed, or in this transaction, and when relations_version does or the table keypool.master_keys is altered. Takes
// in likewise.
uint64 grants_version(void);

// What is committed by now, and what this transaction has done, its running command included. To be unregistered.
Snapshot snapshot_of_now(void);
