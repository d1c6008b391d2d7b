// grant.cpp - keypool_grant and keypool_revoke: rights on functions, and rows of keypool.grants.
#include "pg/postgres_api.h"

#include "pg/arguments.h"
#include "pg/owner_query.h"
#include "pg/relations.h"
#include "pg/report.h"

extern "C" {
#include "utils/acl.h"
}

// What a set of rights lets a role call, as arguments of GRANT.
struct RightsSet {
  const char *name;
  const char *functions;  // %1$s is the schema of the functions
  const char *views;      // null: none
};

#define APP_FUNCTIONS                                                                                          \
  "%1$s.keypool_select(text, bigint), %1$s.keypool_try_select(text, bigint), %1$s.keypool_peek(text, bigint)," \
  " %1$s.keypool_record(uuid, bigint, bigint), %1$s.keypool_release(uuid, bigint),"                            \
  " %1$s.keypool_mark_429(uuid, integer, bigint)"
#define LOOK_FUNCTIONS                                                                       \
  "%1$s.keypool_list_keys(text), %1$s.keypool_usage(uuid, integer), %1$s.keypool_keyring()," \
  " %1$s.keypool_doctor()"
#define OPERATE_FUNCTIONS                                                                                 \
  "%1$s.keypool_clear_cooldown(uuid), %1$s.keypool_add_key(text, text, text, integer, bigint, bigint),"   \
  " %1$s.keypool_toggle_key(uuid, boolean, integer), %1$s.keypool_delete_key(uuid), %1$s.keypool_heal()," \
  " %1$s.keypool_heal_in_batches(integer, bigint, bigint), %1$s.keypool_public_key()"
#define VIEWS "keypool.keys, keypool.key_usage_window, keypool.keyring"

static const RightsSet kRightsSets[] = {
    {"app", APP_FUNCTIONS, nullptr},
    {"monitor", "%1$s.keypool_peek(text, bigint), " LOOK_FUNCTIONS, VIEWS},
    {"operator", APP_FUNCTIONS ", " LOOK_FUNCTIONS ", " OPERATE_FUNCTIONS, VIEWS},
};

struct GrantRequest {
  Oid role;
  const char *role_name;  // quoted
  const RightsSet *set;
  const char *schema;  // quoted, of the functions
  QueryArguments row;
};

static const RightsSet *find_set(const char *name) {
  for (const RightsSet &set : kRightsSets)
    if (strcmp(set.name, name) == 0) return &set;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("rights must be 'app', 'monitor' or 'operator'"));
  pg_unreachable();
}

static GrantRequest read_grant(FunctionCallInfo fcinfo, const char *function) {
  GrantRequest request;
  argument_require(fcinfo, 0, "role");
  argument_require(fcinfo, 1, "rights");
  request.role = PG_GETARG_OID(0);
  char *name = GetUserNameFromId(request.role, true);
  if (name == nullptr) ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role does not exist"));
  request.role_name = quote_identifier(name);
  request.set = find_set(text_to_cstring(PG_GETARG_TEXT_PP(1)));
  if (!PG_ARGISNULL(2)) argument_provider(fcinfo, 2);
  report_if_read_only(function);
  if (!has_privs_of_role(GetUserId(), relations_owner()))
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
            errmsg("only the owner of keypool may call %s()", function));
  request.schema = quote_identifier(get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid)));
  request.row.Add(REGROLEOID, ObjectIdGetDatum(request.role));
  request.row.Add(TEXTOID, CStringGetTextDatum(request.set->name));
  request.row.Add(TEXTOID, PG_ARGISNULL(2) ? Datum{0} : PG_GETARG_DATUM(2), PG_ARGISNULL(2));
  return request;
}

// GRANT or REVOKE of everything that a set of rights needs.
static void change_privileges(const char *verb, const char *preposition, const GrantRequest &request,
                              const RightsSet &set) {
  const char *functions = psprintf(set.functions, request.schema);
  owner_execute(psprintf("%s EXECUTE ON ROUTINE %s %s %s", verb, functions, preposition, request.role_name), {});
  if (set.views == nullptr) return;
  owner_execute(psprintf("%s USAGE ON SCHEMA keypool %s %s", verb, preposition, request.role_name), {});
  owner_execute(psprintf("%s SELECT ON %s %s %s", verb, set.views, preposition, request.role_name), {});
}

static bool has_grant(Oid role, const RightsSet &set) {
  QueryArguments arguments;
  arguments.Add(REGROLEOID, ObjectIdGetDatum(role));
  arguments.Add(TEXTOID, CStringGetTextDatum(set.name));
  return owner_execute(
             "SELECT FROM keypool.grants WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
             " AND rights OPERATOR(pg_catalog.=) $2",
             arguments) > 0;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_grant);
Datum keypool_grant(PG_FUNCTION_ARGS) {
  GrantRequest request = read_grant(fcinfo, "keypool_grant");
  owner_execute("INSERT INTO keypool.grants (role, rights, provider_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                request.row);
  change_privileges("GRANT", "TO", request, *request.set);
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_revoke);
Datum keypool_revoke(PG_FUNCTION_ARGS) {
  GrantRequest request = read_grant(fcinfo, "keypool_revoke");
  uint64 removed = owner_execute(
      "DELETE FROM keypool.grants WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
      " AND rights OPERATOR(pg_catalog.=) $2"
      " AND (provider_id OPERATOR(pg_catalog.=) $3 OR (provider_id IS NULL AND $3 IS NULL))",
      request.row);
  if (removed == 0) ereport(WARNING, errmsg("keypool: there was no such grant"));
  // Sets overlap: take all away, and give back what the remaining rows need.
  for (const RightsSet &set : kRightsSets) change_privileges("REVOKE", "FROM", request, set);
  for (const RightsSet &set : kRightsSets)
    if (has_grant(request.role, set)) change_privileges("GRANT", "TO", request, set);
  PG_RETURN_VOID();
}

}  // extern "C"
