// settlement.cpp - keypool_record, keypool_release and keypool_mark_429: what became of a call; keypool_clear_cooldown,
// keypool_drop_open_calls: what is left of calls.
#include "pg/server/postgres_api.h"

#include "pg/catalog/relations.h"
#include "pg/pool/clear_blocks.h"
#include "pg/pool/drop_calls.h"
#include "pg/pool/key_access.h"
#include "pg/pool/settle_call.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"

using keypool::Ending;
using keypool::KeyId;

// The lease of the SQL forms of 0.1.0 is a number. They are there until the extension is updated, which relations()
// asks for, and in statements that had begun before.
static void require_text_lease(FunctionCallInfo fcinfo, int number) {
  relations();
  if (get_fn_expr_argtype(fcinfo->flinfo, number) == INT8OID)
    ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
            errmsg("the extension keypool was updated while the statement ran"), errhint("Run the statement again."));
}

// A settlement of the key and the lease that a call names.
static Settlement read_settlement(FunctionCallInfo fcinfo, Ending ending, int lease) {
  Settlement call = {};
  call.key = argument_key(fcinfo, 0);
  call.ending = ending;
  require_text_lease(fcinfo, lease);
  call.has_lease = argument_given(fcinfo, lease);
  call.lease = argument_text(fcinfo, lease);
  return call;
}

static GivenAmount given_amount(FunctionCallInfo fcinfo, int number) {
  if (!argument_given(fcinfo, number)) return {};
  return {true, PG_GETARG_INT64(number)};
}

// Whether the call counted. Raises KP404 for a key that is not there, 22023 for a lease that is not its.
static bool settle(const Settlement &call) {
  Settled settled = settle_call(call, Right::kApp);
  if (settled.kind == Settled::kNoSuchKey) report_unknown_key();
  if (settled.kind == Settled::kBadLease) report_status(settled.problem);
  return settled.kind == Settled::kCounted;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_record);
Datum keypool_record(PG_FUNCTION_ARGS) {
  Settlement call = read_settlement(fcinfo, Ending::kRecorded, 2);
  call.tokens = given_amount(fcinfo, 1);
  call.output = given_amount(fcinfo, 3);
  call.cached = given_amount(fcinfo, 4);
  call.cost = given_amount(fcinfo, 5);
  call.model = argument_model(fcinfo, 6);
  call.health = keypool::Health::kServed;
  report_if_read_only("keypool_record");
  PG_RETURN_BOOL(settle(call));
}

PG_FUNCTION_INFO_V1(keypool_release);
Datum keypool_release(PG_FUNCTION_ARGS) {
  Settlement call = read_settlement(fcinfo, Ending::kReleased, 1);
  argument_require(fcinfo, 1, "lease");
  report_if_read_only("keypool_release");
  PG_RETURN_BOOL(settle(call));
}

// Any time and any lease will do: what a provider or a gateway gets wrong must not keep a 429 from cooling the key.
PG_FUNCTION_INFO_V1(keypool_mark_429);
Datum keypool_mark_429(PG_FUNCTION_ARGS) {
  Settlement call = read_settlement(fcinfo, Ending::kLimited, 2);
  call.has_cooldown = argument_given(fcinfo, 1);
  if (call.has_cooldown) call.cooldown = PG_GETARG_FLOAT8(1);
  call.scope = argument_scope(fcinfo, 3);
  call.model = argument_model(fcinfo, 4);
  report_if_read_only("keypool_mark_429");
  Settled settled = settle_call(call, Right::kApp);
  if (settled.kind == Settled::kNoSuchKey) report_unknown_key();
  if (settled.kind == Settled::kBadLease)
    ereport(NOTICE, errmsg("keypool: %s; the 429 cools all the same", settled.problem.message));
  PG_RETURN_TIMESTAMPTZ(clock_to_timestamptz(settled.blocked_until));
}

PG_FUNCTION_INFO_V1(keypool_clear_cooldown);
Datum keypool_clear_cooldown(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  report_if_read_only("keypool_clear_cooldown");
  key_access_check(id, Right::kOperator);
  clear_blocks_of_key(id);
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_clear_cooldown_of_quotas);
Datum keypool_clear_cooldown_of_quotas(PG_FUNCTION_ARGS) {
  std::string_view provider = argument_provider(fcinfo, 0);
  report_if_read_only("keypool_clear_cooldown");
  privileges_require(Right::kOperator, provider);
  clear_blocks_of_quotas(provider, argument_text(fcinfo, 1), !argument_given(fcinfo, 1));
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_drop_open_calls);
Datum keypool_drop_open_calls(PG_FUNCTION_ARGS) {
  std::string_view provider = argument_provider(fcinfo, 0);
  report_if_read_only("keypool_drop_open_calls");
  privileges_require(Right::kOperator, provider);
  if (argument_given(fcinfo, 1))
    drop_calls_of_key(provider, argument_key(fcinfo, 1));
  else
    drop_calls_of_provider(provider);
  PG_RETURN_VOID();
}

}  // extern "C"
