// grant.cpp - keypool_grant and keypool_revoke: rights on functions, and rows of keypool.grants.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"
#include "pg/server/report.h"

extern "C" {
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "utils/acl.h"
#include "utils/catcache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
}

// The sets of rights, as bits.
enum RightsSets : int { kApp = 1, kMonitor = 2, kOperator = 4 };

static const struct {
  const char *name;
  int set;
} kSetNames[] = {{"app", kApp}, {"monitor", kMonitor}, {"operator", kOperator}};

// What they let a role call.
static const struct {
  const char *name;
  int sets;
} kFunctions[] = {
    {"keypool_select", kApp | kOperator},
    {"keypool_try_select", kApp | kOperator},
    {"keypool_select_first", kApp | kOperator},
    {"keypool_select_many", kApp | kOperator},
    {"keypool_record", kApp | kOperator},
    {"keypool_record_many", kApp | kOperator},
    {"keypool_release", kApp | kOperator},
    {"keypool_mark_429", kApp | kOperator},
    {"keypool_report", kApp | kOperator},
    {"keypool_explain_answer", kApp | kMonitor | kOperator},
    {"keypool_peek", kApp | kMonitor | kOperator},
    {"keypool_explain_select", kApp | kMonitor | kOperator},
    {"keypool_key", kMonitor | kOperator},
    {"keypool_list_keys", kMonitor | kOperator},
    {"keypool_list_quotas", kMonitor | kOperator},
    {"keypool_status", kMonitor | kOperator},
    {"keypool_metrics", kMonitor | kOperator},
    {"keypool_open_calls", kMonitor | kOperator},
    {"keypool_provider_usage", kMonitor | kOperator},
    {"keypool_usage", kMonitor | kOperator},
    {"keypool_events", kMonitor | kOperator},
    {"keypool_keyring", kMonitor | kOperator},
    {"keypool_doctor", kMonitor | kOperator},
    {"keypool_clear_cooldown", kOperator},
    {"keypool_drop_open_calls", kOperator},
    {"keypool_list_rights", kOperator},
    {"keypool_add_key", kOperator},
    {"keypool_update_key", kOperator},
    {"keypool_set_secret", kOperator},
    {"keypool_toggle_key", kOperator},
    {"keypool_delete_key", kOperator},
    {"keypool_set_quota", kOperator},
    {"keypool_delete_quota", kOperator},
    {"keypool_set_provider", kOperator},
    {"keypool_set_error_rule", kOperator},
    {"keypool_apply", kOperator},
    {"keypool_export", kOperator},
    {"keypool_heal", kOperator},
    {"keypool_heal_in_batches", kOperator},
    {"keypool_public_key", kOperator},
};

// And what they let it read.
static const char *const kViews =
    "keypool.status, keypool.keys, keypool.metrics, keypool.open_calls, keypool.events, keypool.key_usage_window, "
    "keypool.keyring, keypool.doctor";
static constexpr int kViewSets = kMonitor | kOperator;

struct GrantRequest {
  Oid role;
  const char *role_name;  // quoted; null if the role was dropped
  int set;
  Oid function;  // the one that was called
  QueryArguments row;
};

static int find_set(const char *wanted) {
  for (const auto &[name, set] : kSetNames)
    if (strcmp(name, wanted) == 0) return set;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("rights must be 'app', 'monitor' or 'operator'"));
  pg_unreachable();
}

// Reads the arguments, and lets no other call in until the transaction's end: two changes of one function's privileges
// would fail.
static GrantRequest read_grant(FunctionCallInfo fcinfo, const char *function) {
  GrantRequest request;
  argument_require(fcinfo, 0, "role");
  argument_require(fcinfo, 1, "rights");
  request.role = PG_GETARG_OID(0);
  char *name = GetUserNameFromId(request.role, true);
  request.role_name = name == nullptr ? nullptr : quote_identifier(name);
  request.set = find_set(text_to_cstring(PG_GETARG_TEXT_PP(1)));
  if (!PG_ARGISNULL(2)) argument_provider(fcinfo, 2);
  report_if_read_only(function);
  if (!has_privs_of_role(GetUserId(), relations_owner()))
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
            errmsg("only the owner of keypool may call %s()", function));
  request.function = fcinfo->flinfo->fn_oid;
  request.row.Add(REGROLEOID, ObjectIdGetDatum(request.role));
  request.row.Add(TEXTOID, PG_GETARG_DATUM(1));
  request.row.Add(TEXTOID, PG_ARGISNULL(2) ? Datum{0} : PG_GETARG_DATUM(2), PG_ARGISNULL(2));
  LockRelationOid(relations().grants, ShareRowExclusiveLock);
  return request;
}

// Adds keypool's own functions of a name, whatever their arguments; others may have made more of that name. Types are
// qualified, too: a session may have tables with their names.
static void list_functions(StringInfo list, const char *name, Oid schema, Oid extension) {
  CatCList *found = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
  for (int i = 0; i < found->n_members; ++i) {
    auto *row = reinterpret_cast<Form_pg_proc>(GETSTRUCT(&found->members[i]->tuple));
    if (row->pronamespace != schema || getExtensionOfObject(ProcedureRelationId, row->oid) != extension) continue;
    appendStringInfo(list, "%s%s", list->len == 0 ? "" : ", ", format_procedure_qualified(row->oid));
  }
  ReleaseSysCacheList(found);
}

// Runs a GRANT or REVOKE. In the script of ALTER EXTENSION, too, it is the user's: what such a script itself gives is
// in no dump.
static void change_privileges(const char *sql) {
  bool in_script = creating_extension;
  creating_extension = false;  // an error ends the script, which resets it
  owner_execute(sql, {});
  creating_extension = in_script;
}

// GRANT of what a set of rights needs, or REVOKE of what none of `sets` needs, with what was granted further.
static void change_all_privileges(const GrantRequest &request, bool grant, int sets) {
  const char *verb = grant ? "GRANT" : "REVOKE";
  const char *to = psprintf(grant ? "TO %s" : "FROM %s CASCADE", request.role_name);
  Oid schema = get_func_namespace(request.function);
  Oid extension = getExtensionOfObject(ProcedureRelationId, request.function);
  StringInfoData functions;
  initStringInfo(&functions);
  for (const auto &function : kFunctions)
    if (((function.sets & sets) != 0) == grant) list_functions(&functions, function.name, schema, extension);
  if (functions.len > 0) change_privileges(psprintf("%s EXECUTE ON ROUTINE %s %s", verb, functions.data, to));
  if (((kViewSets & sets) != 0) != grant) return;
  change_privileges(psprintf("%s USAGE ON SCHEMA keypool %s", verb, to));
  change_privileges(psprintf("%s SELECT ON %s %s", verb, kViews, to));
}

// The sets that a role has for any provider.
static int sets_of(Oid role) {
  int sets = 0;
  for (const auto &[name, set] : kSetNames) {
    QueryArguments arguments;
    arguments.Add(REGROLEOID, ObjectIdGetDatum(role));
    arguments.Add(TEXTOID, CStringGetTextDatum(name));
    uint64 rows = owner_execute(
        "SELECT FROM keypool.grants WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
        " AND rights OPERATOR(pg_catalog.=) $2",
        arguments);
    if (rows > 0) sets |= set;
  }
  return sets;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_grant);
Datum keypool_grant(PG_FUNCTION_ARGS) {
  GrantRequest request = read_grant(fcinfo, "keypool_grant");
  if (request.role_name == nullptr) ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role does not exist"));
  owner_execute("INSERT INTO keypool.grants (role, rights, provider_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                request.row);
  change_all_privileges(request, true, request.set);
  PG_RETURN_VOID();
}

// A role that was dropped may be given by its number, which its rows show: what is left of it are those.
PG_FUNCTION_INFO_V1(keypool_revoke);
Datum keypool_revoke(PG_FUNCTION_ARGS) {
  GrantRequest request = read_grant(fcinfo, "keypool_revoke");
  uint64 removed = owner_execute(
      "DELETE FROM keypool.grants WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
      " AND rights OPERATOR(pg_catalog.=) $2"
      " AND (provider_id OPERATOR(pg_catalog.=) $3 OR (provider_id IS NULL AND $3 IS NULL))",
      request.row);
  if (removed == 0) ereport(WARNING, errmsg("keypool: there was no such grant"));
  if (request.role_name != nullptr) change_all_privileges(request, false, sets_of(request.role));
  PG_RETURN_VOID();
}

}  // extern "C"
