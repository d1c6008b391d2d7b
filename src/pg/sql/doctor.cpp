// doctor.cpp - keypool_doctor: what is not as it should be, and what to do about it.
#include "pg/server/postgres_api.h"

extern "C" {
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/varlena.h"
}

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/pool/pool_cache.h"
#include "pg/secrets/log_hiding.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/settings.h"
#include "pg/sql/quota_overlap.h"
#include "pg/state/meter_store.h"

// How bad it is if a check is not ok: an error loses something or stops a key from serving, or may any moment.
enum class Severity : uint8 { kWarning, kError };

// `number`: how many things are not as they should be; 0: it is ok.
static void put_check(ReturnSetInfo *result, const char *check, Severity severity, int64 number, const char *advice) {
  bool ok = number == 0;
  Datum values[] = {CStringGetTextDatum(check), BoolGetDatum(ok),
                    CStringGetTextDatum(ok                             ? "ok"
                                        : severity == Severity::kError ? "error"
                                                                       : "warning"),
                    Int64GetDatum(number), CStringGetTextDatum(ok ? "ok" : advice)};
  bool nulls[lengthof(values)] = {};
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static bool setting_is(const char *name, const char *value) {
  const char *current = GetConfigOption(name, true, false);
  return current != nullptr && strcmp(current, value) == 0;
}

// Whether a setting, which may be one of a library that is not loaded, has this value or none.
static bool setting_is_off(const char *name, const char *off) {
  const char *current = GetConfigOption(name, true, false);
  return current == nullptr || current[0] == '\0' || strcmp(current, off) == 0;
}

static void check_keyring(ReturnSetInfo *result, const keypool::Status &problem) {
  put_check(result, "keyring", Severity::kError, !problem.ok(),
            psprintf("%s; until that is corrected nothing can be sealed", problem.message));
  put_check(
      result, "statements hidden", Severity::kWarning,
      session_preload_libraries_string == nullptr || strstr(session_preload_libraries_string, "keypool") == nullptr,
      "set session_preload_libraries = 'keypool', so that the log hides a typed secret from a session's first "
      "statement on");
}

static constexpr int kExamples = 3;

struct SecretCensus {
  int64 missing;
  int64 unopened;
  char examples[kExamples * 37 + 1];  // the ids of the first of them, each after a blank
  int64 legacy;
  int64 plain;
};

static void count_secret(HeapTuple row, TupleDesc columns, SecretCensus *census) {
  bool is_null;
  text *provider = DatumGetTextPP(SPI_getbinval(row, columns, 2, &is_null));
  std::string_view value = text_view(DatumGetTextPP(SPI_getbinval(row, columns, 3, &is_null)));
  keypool::StoredSecret stored;
  keypool::ParseStored(value, static_cast<uint8_t *>(palloc(value.size() + 1)), &stored);
  if (stored.form == keypool::SecretForm::kNone) {
    ++census->missing;
    return;
  }
  keypool::SecretOwner owner = {key_id_from_datum(SPI_getbinval(row, columns, 1, &is_null)), text_view(provider)};
  keypool::Status status = open_secret(stored, owner);
  opened_secret_wipe();
  if (!status.ok() && census->unopened++ < kExamples) {
    strlcat(census->examples, " ", sizeof(census->examples));
    strlcat(census->examples, DatumGetCString(DirectFunctionCall1(uuid_out, key_id_datum(owner.id))),
            sizeof(census->examples));
  }
  census->legacy += stored.form == keypool::SecretForm::kLegacy;
  census->plain += stored.form == keypool::SecretForm::kPlain;
}

static SecretCensus take_census(void) {
  SecretCensus census = {};
  SPI_connect();
  uint64 count = owner_execute_connected(
      "SELECT id, provider_id, key_value FROM keypool.provider_keys WHERE provider_id IS NOT NULL AND key_value IS NOT "
      "NULL",
      {});
  for (uint64 i = 0; i < count; ++i) count_secret(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &census);
  SPI_finish();
  return census;
}

static int64 count_rows(const char *sql) {
  SPI_connect();
  owner_execute_connected(sql, {});
  bool is_null;
  int64 count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
  SPI_finish();
  return count;
}

// Keys that have the secret of another key of their provider for the same use, and keys of which that is not known.
static void check_duplicates(ReturnSetInfo *result) {
  static const char *const kShared =
      "SELECT COALESCE(pg_catalog.sum(same.keys), 0)::bigint FROM (SELECT pg_catalog.count(*) AS keys"
      " FROM keypool.provider_keys WHERE fingerprint IS NOT NULL"
      " GROUP BY provider_id, fingerprint, account, attributes"
      " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1) same";
  static const char *const kUnknown =
      "SELECT pg_catalog.count(*) FROM keypool.provider_keys WHERE fingerprint IS NULL AND unopened_since IS NULL"
      " AND key_value OPERATOR(pg_catalog.<>) 'enc:none'";
  int64 shared = count_rows(kShared);
  int64 unknown = count_rows(kUnknown);
  const char *advice = psprintf("keys that were not compared with others: %lld; run SELECT * FROM keypool_heal()",
                                static_cast<long long>(unknown));
  if (shared > 0)
    advice = psprintf(
        "%lld keys share a secret with another of their provider, and each has limits of its own: SELECT "
        "array_agg(id) FROM keypool.provider_keys WHERE fingerprint IS NOT NULL GROUP BY provider_id, fingerprint, "
        "account, attributes HAVING count(*) > 1 finds them; delete all but one of each",
        static_cast<long long>(shared));
  put_check(result, "duplicates", Severity::kWarning, shared > 0 ? shared : unknown, advice);
}

static void check_meters(ReturnSetInfo *result) {
  static const char *const kMissing =
      "SELECT (SELECT pg_catalog.count(*) FROM keypool.provider_keys k WHERE NOT EXISTS (SELECT FROM"
      " keypool.key_meters m WHERE m.key_id OPERATOR(pg_catalog.=) k.id)) OPERATOR(pg_catalog.+)"
      " (SELECT pg_catalog.count(*) FROM keypool.quotas q WHERE NOT EXISTS (SELECT FROM"
      " keypool.quota_meters m WHERE m.quota_id OPERATOR(pg_catalog.=) q.id))";
  int64 missing = count_rows(kMissing);
  put_check(result, "meters", Severity::kError, missing,
            psprintf("keys and quotas that have no meter and are not used: %lld; run SELECT * FROM keypool_heal()",
                     static_cast<long long>(missing)));
  MeterCensus census = meter_store_census(clock_now());
  put_check(result, "clock", Severity::kWarning, census.ahead,
            psprintf("counters that are more than 10 minutes ahead of the server's clock, which was wrong once: %lld; "
                     "their next use moves them to now, and until then they are full or blocked as they were",
                     static_cast<long long>(census.ahead)));
  put_check(result, "breakers", Severity::kWarning, census.resting,
            psprintf("keys and quotas that rest after failures: %lld; see breaker, breaker_until and breaker_reason in "
                     "keypool.keys; keypool_set_secret() gives a key another secret, and keypool_clear_cooldown() lets "
                     "it serve at once",
                     static_cast<long long>(census.resting)));
  put_check(result, "models", Severity::kWarning, census.without_model,
            psprintf("keys of providers that tell models apart for which calls of the last day named no model, and so "
                     "met no quota that is for some models: %lld; give keypool_select() the model",
                     static_cast<long long>(census.without_model)));
}

// Quotas that a restore or replication may have brought, and of which some request would meet one too many: it is
// refused then.
static void check_quotas(ReturnSetInfo *result) {
  char *crowd = find_crowd_anywhere();
  put_check(result, "quotas", Severity::kError, crowd != nullptr,
            psprintf("more than %d of a provider can apply to one request, which is refused: %s; give one of them "
                     "another account or other models",
                     keypool::kMaxQuotas, crowd));
}

// Quotas that limit nothing, and accounts that nothing limits: most likely one is written in two ways.
static void check_accounts(ReturnSetInfo *result) {
  static const char *const kUnused =
      "SELECT pg_catalog.count(*) FROM keypool.quotas q WHERE NOT EXISTS (SELECT FROM keypool.provider_keys k"
      " WHERE k.provider_id OPERATOR(pg_catalog.=) q.provider_id AND (q.account IS NULL"
      " OR pg_catalog.starts_with(k.account OPERATOR(pg_catalog.||) '/', q.account OPERATOR(pg_catalog.||) '/')))";
  static const char *const kUnlimited =
      "SELECT pg_catalog.count(DISTINCT (k.provider_id, k.account)) FROM keypool.provider_keys k"
      " WHERE k.account IS NOT NULL AND NOT EXISTS (SELECT FROM keypool.quotas q"
      " WHERE k.provider_id OPERATOR(pg_catalog.=) q.provider_id AND (q.account IS NULL"
      " OR pg_catalog.starts_with(k.account OPERATOR(pg_catalog.||) '/', q.account OPERATOR(pg_catalog.||) '/')))";
  int64 unused = count_rows(kUnused);
  put_check(result, "unused quotas", Severity::kWarning, unused,
            psprintf("quotas that no key draws on: %lld; compare account in keypool_list_quotas() and in keypool.keys",
                     static_cast<long long>(unused)));
  int64 unlimited = count_rows(kUnlimited);
  put_check(
      result, "accounts", Severity::kWarning, unlimited,
      psprintf("accounts of keys that no quota is for: %lld; make one with keypool_set_quota(), or compare account "
               "in keypool.keys and in keypool_list_quotas()",
               static_cast<long long>(unlimited)));
}

static void check_expiry(ReturnSetInfo *result) {
  static const char *const kExpiring =
      "SELECT pg_catalog.count(*) FROM keypool.provider_keys WHERE is_active AND expires_at"
      " OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.+) '7 days'::pg_catalog.interval)";
  int64 expiring = count_rows(kExpiring);
  put_check(result, "expiry", Severity::kWarning, expiring,
            psprintf("keys that have expired or will within 7 days: %lld; see expires_at in keypool.keys; replace, "
                     "switch off or delete them",
                     static_cast<long long>(expiring)));
}

static void check_secrets(ReturnSetInfo *result, const keypool::Status &problem) {
  SecretCensus census = take_census();
  const char *advice = ", and the keyring is not usable: see the row \"keyring\" first";
  if (problem.ok())
    advice = psprintf("; see keypool.keyring for a missing master key, or give these keys a new key_value:%s%s",
                      census.examples, census.unopened > kExamples ? " ..." : "");
  put_check(result, "secrets open", Severity::kError, census.unopened,
            psprintf("%lld do not%s", static_cast<long long>(census.unopened), advice));
  put_check(result, "secrets given", Severity::kWarning, census.missing,
            psprintf("%lld keys have none yet, and are not used: see state in keypool.keys, and give them one with "
                     "keypool_set_secret()",
                     static_cast<long long>(census.missing)));
  put_check(result, "secrets sealed", Severity::kWarning, census.legacy + census.plain,
            psprintf("%lld in the old form, %lld in plaintext: run SELECT * FROM keypool_heal()",
                     static_cast<long long>(census.legacy), static_cast<long long>(census.plain)));
}

// What logs statements beside log_statement.
static void check_other_logging(ReturnSetInfo *result) {
  put_check(result, "auto_explain", Severity::kWarning, !setting_is_off("auto_explain.log_min_duration", "-1"),
            "logs plans with their constants; keypool hides what it can: pass secrets as bind parameters or OpenPGP "
            "messages");
  put_check(result, "pgaudit", Severity::kWarning,
            !setting_is_off("pgaudit.log", "none") || !setting_is_off("pgaudit.role", ""),
            "logs what people type, and bind if pgaudit.log_parameter is on; keypool hides it in statements that name "
            "keypool_add_key, keypool_set_secret, keypool_update_key, keypool_apply or provider_keys: give secrets to these, not to "
            "functions that call them");
  put_check(result, "debug_print", Severity::kWarning,
            !setting_is_off("debug_print_parse", "off") || !setting_is_off("debug_print_rewritten", "off") ||
                !setting_is_off("debug_print_plan", "off"),
            "logs constants byte by byte; keypool hides what it can: set debug_print_parse, debug_print_rewritten and "
            "debug_print_plan off");
  put_check(result, "log hook", Severity::kWarning, !log_hiding_comes_first(),
            "another library sees entries of the log before keypool hides secrets in them: load it before keypool");
}

// A session keeps the provider that it uses last, however large, but drops it for the next one.
static void check_cache(ReturnSetInfo *result) {
  int64 largest = 0;
  int64 largest_keys = 0;
  int64 too_large = 0;
  SPI_connect();
  uint64 providers = owner_execute_connected(
      "SELECT pg_catalog.count(*), pg_catalog.sum(pg_catalog.octet_length(key_value)),"
      " coalesce(pg_catalog.sum(coalesce(pg_catalog.octet_length(key_label), 0)"
      " OPERATOR(pg_catalog.+) coalesce(pg_catalog.octet_length(account), 0)"
      " OPERATOR(pg_catalog.+) coalesce(pg_catalog.pg_column_size(models), 0)"
      " OPERATOR(pg_catalog.+) coalesce(pg_catalog.pg_column_size(except_models), 0)"
      " OPERATOR(pg_catalog.+) coalesce(pg_catalog.pg_column_size(attributes), 0)), 0)"
      " FROM keypool.provider_keys GROUP BY provider_id",
      {});
  for (uint64 i = 0; i < providers; ++i) {
    auto number = [&](int column) {
      bool is_null;
      return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column, &is_null));
    };
    auto need = static_cast<int64>(pool_cache_need(number(1), number(2) + number(3)));
    too_large += need > int64{keypool_cache_size} * 1024;
    if (need <= largest) continue;
    largest = need;
    largest_keys = number(1);
  }
  SPI_finish();
  put_check(
      result, "cache", Severity::kWarning, too_large,
      psprintf("too large for keypool.cache_size, and so read again after each use of another: %lld of the providers, "
               "with up to %lld keys; set keypool.cache_size = '%lldkB'",
               static_cast<long long>(too_large), static_cast<long long>(largest_keys),
               static_cast<long long>(largest / 1024 + 1)));
}

static void check_logging(ReturnSetInfo *result) {
  put_check(result, "log_statement", Severity::kWarning,
            !setting_is("log_statement", "none") && !setting_is("log_statement", "ddl"),
            "logs what people type; keypool hides what it can: pass secrets as bind parameters or OpenPGP messages");
  put_check(result, "log_min_duration", Severity::kWarning, !setting_is("log_min_duration_statement", "-1"),
            "logs slow statements; keypool hides what it can: pass secrets as bind parameters or OpenPGP messages");
  put_check(result, "log_parameters", Severity::kWarning, !setting_is("log_parameter_max_length_on_error", "0"),
            "logs bind parameters of statements that fail: set log_parameter_max_length_on_error = 0");
  check_other_logging(result);
}

// The triggers that keypool made: whether all of a table's are there, and fire for whoever changes it. After pg_dump
// --disable-triggers replication skips them.
struct TriggersFound {
  bool complete;
  bool always;
};

static TriggersFound find_triggers(Oid table, int expected) {
  Relation relation = table_open(table, AccessShareLock);
  const TriggerDesc *triggers = relation->trigdesc;
  int found = 0, always = 0;
  for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i) {
    const Trigger &trigger = triggers->triggers[i];
    if (get_func_namespace(trigger.tgfoid) != RelationGetNamespace(relation)) continue;
    ++found;
    always += trigger.tgenabled == TRIGGER_FIRES_ALWAYS;
  }
  table_close(relation, AccessShareLock);
  return {found >= expected, always == found};
}

static bool is_owners_alone(Datum acl, bool is_null, Oid owner) {
  if (is_null) return true;
  const Acl *rights = DatumGetAclP(acl);
  bool alone = true;
  for (int i = 0; i < ACL_NUM(rights); ++i) alone = alone && ACL_DAT(rights)[i].ai_grantee == owner;
  return alone;
}

// Whether nobody but its owner was granted anything on a table or on one of its columns.
static bool is_closed(Oid table) {
  HeapTuple row = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
  if (!HeapTupleIsValid(row)) elog(ERROR, "cache lookup failed for relation %u", table);
  auto *relation = reinterpret_cast<Form_pg_class>(GETSTRUCT(row));
  bool is_null;
  Datum acl = SysCacheGetAttr(RELOID, row, Anum_pg_class_relacl, &is_null);
  bool closed = is_owners_alone(acl, is_null, relation->relowner);
  for (int16 i = FirstLowInvalidHeapAttributeNumber + 1; closed && i <= relation->relnatts; ++i) {
    HeapTuple column = SearchSysCache2(ATTNUM, ObjectIdGetDatum(table), Int16GetDatum(i));
    if (!HeapTupleIsValid(column)) continue;  // nothing is column 0, and a view has no system columns
    acl = SysCacheGetAttr(ATTNUM, column, Anum_pg_attribute_attacl, &is_null);
    closed = is_owners_alone(acl, is_null, relation->relowner);
    ReleaseSysCache(column);
  }
  ReleaseSysCache(row);
  return closed;
}

static void check_tables(ReturnSetInfo *result) {
  const KeypoolRelations tables = relations();
  const struct {
    Oid table;
    int triggers;
  } expected[] = {{tables.provider_keys, 3}, {tables.quotas, 3},   {tables.providers, 3},   {tables.key_meters, 4},
                  {tables.quota_meters, 4},  {tables.grants, 3},   {tables.error_rules, 3}, {tables.master_keys, 1},
                  {tables.wakeups, 0},       {tables.refusals, 0}, {tables.event_log, 0}};
  TriggersFound all = {true, true};
  bool closed = true;
  for (const auto &[table, triggers] : expected) {
    TriggersFound found = find_triggers(table, triggers);
    all = {all.complete && found.complete, all.always && found.always};
    closed = closed && is_closed(table);
  }
  // The view gives to whoever may use it what its owner has on the meters.
  closed = closed && is_closed(get_relname_relid("key_state", get_rel_namespace(tables.key_meters)));
  put_check(result, "triggers", Severity::kError, !all.complete || !all.always,
            all.complete
                ? "a trigger of keypool's tables is off, or replication skips it: ALTER TABLE ... ENABLE ALWAYS TRIGGER"
                : "a trigger of keypool's tables was dropped: create it again as the extension's script does");
  put_check(result, "tables closed", Severity::kError, !closed,
            "somebody was granted rights on keypool's tables: revoke them, and use keypool_grant()");
}

// pg_repack and the like copy a table, and then what triggers or logical decoding saw of its changes meanwhile. What
// keypool changes in place they do not see.
static void check_rebuilds(ReturnSetInfo *result) {
  const char *found = nullptr;
  for (const char *name : {"pg_squeeze", "pg_repack"})
    if (OidIsValid(get_extension_oid(name, true))) found = name;
  put_check(
      result, "online rebuilds", Severity::kError, found != nullptr,
      psprintf("%s is installed: it loses what is recorded while it rebuilds keypool's tables, which never bloat; "
               "leave them out: pg_repack --exclude-extension keypool",
               found));
}

// Whether TCP connections, if there are any, stay on this machine.
static bool listens_locally(void) {
  List *addresses;
  if (!SplitGUCList(GetConfigOptionByName("listen_addresses", nullptr, false), ',', &addresses)) return false;
  ListCell *cell;
  foreach (cell, addresses) {
    auto *address = static_cast<const char *>(lfirst(cell));
    bool local =
        strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 || pg_strcasecmp(address, "localhost") == 0;
    if (!local) return false;
  }
  return true;
}

// Whether a standby streams from this server, beside logical subscribers.
static bool has_standby(void) {
  SPI_connect();
  uint64 standbys = owner_execute_connected(
      "SELECT FROM pg_catalog.pg_stat_replication r WHERE r.state OPERATOR(pg_catalog.=) 'streaming' AND NOT EXISTS ("
      "SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid OPERATOR(pg_catalog.=) r.pid"
      " AND s.slot_type OPERATOR(pg_catalog.=) 'logical')",
      {});
  SPI_finish();
  return standbys > 0;
}

static void check_failover(ReturnSetInfo *result) {
  bool safe = RecoveryInProgress() || !setting_is("synchronous_standby_names", "") || !has_standby();
  put_check(result, "failover", Severity::kWarning, !safe,
            "standbys are asynchronous: a failover may lose what was recorded last; see synchronous_standby_names");
  put_check(result, "pg_rewind", Severity::kWarning,
            !setting_is("data_checksums", "on") && !setting_is("wal_log_hints", "on"),
            "cannot bring this server back after a failover: set wal_log_hints = on, or enable checksums");
}

static void check_server(ReturnSetInfo *result) {
  put_check(result, "TLS", Severity::kWarning, !listens_locally() && !setting_is("ssl", "on"),
            "the server listens on TCP without TLS, and secrets cross it: set ssl = on, or listen_addresses = ''");
  put_check(result, "fsync", Severity::kError, !setting_is("fsync", "on"),
            "is off: a crash of the machine may lose everything; set it on");
  put_check(result, "full_page_writes", Severity::kError, !setting_is("full_page_writes", "on"),
            "is off: a crash of the machine may tear pages; set it on");
  put_check(result, "wal_consistency", Severity::kError, !setting_is("wal_consistency_checking", ""),
            "wal_consistency_checking is set, which takes reservations for damage and stops recovery: set it to ''");
  put_check(result, "checksums", Severity::kWarning, !setting_is("data_checksums", "on"),
            "are off: a damaged page goes unnoticed; stop the server and run pg_checksums --enable");
  put_check(result, "version", Severity::kWarning, !kServerIsTested,
            "this PostgreSQL is not tested with this keypool: use 15, 17 or 18");
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_doctor);
Datum keypool_doctor(PG_FUNCTION_ARGS) {
  privileges_require_everywhere(Right::kMonitor);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  keypool::Status problem = master_keys_diagnosis();
  check_keyring(result, problem);
  check_secrets(result, problem);
  check_duplicates(result);
  check_meters(result);
  check_quotas(result);
  check_accounts(result);
  check_expiry(result);
  check_cache(result);
  check_logging(result);
  check_tables(result);
  check_rebuilds(result);
  check_server(result);
  check_failover(result);
  return Datum{0};
}

}  // extern "C"
