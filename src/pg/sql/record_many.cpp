// record_many.cpp - keypool_record_many: settling many calls in one statement.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/array.h"
}

#include "pg/pool/settle_call.h"
#include "pg/server/arguments.h"
#include "pg/server/report.h"

// An optional array beside that of the keys.
struct Given {
  bool given;
  Datum *values;
  bool *nulls;

  bool Has(int i) const { return given && !nulls[i]; }
  GivenAmount Amount(int i) const {
    if (!Has(i)) return {};
    return {true, DatumGetInt64(values[i])};
  }
};

static Given argument_array(FunctionCallInfo fcinfo, int number, const char *name, Oid type, int keys) {
  if (!argument_given(fcinfo, number)) return {};
  Given given = {true, nullptr, nullptr};
  int count;
  int16 size;
  bool by_value;
  char align;
  get_typlenbyvalalign(type, &size, &by_value, &align);
  deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), type, size, by_value, align, &given.values, &given.nulls, &count);
  if (count != keys)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must have as many elements as keys", name));
  return given;
}

// The arguments: one array for each part of a call.
struct Calls {
  KeyIds keys;
  Given tokens, leases, output, cached, cost;
};

static Calls read_calls(FunctionCallInfo fcinfo) {
  argument_require(fcinfo, 0, "keys");
  Calls calls;
  calls.keys = argument_keys(fcinfo, 0, "keys");
  auto array = [&](int number, const char *name, Oid type) {
    return argument_array(fcinfo, number, name, type, calls.keys.count);
  };
  calls.tokens = array(1, "tokens", INT8OID);
  calls.leases = array(2, "leases", TEXTOID);
  calls.output = array(3, "output_tokens", INT8OID);
  calls.cached = array(4, "cached_tokens", INT8OID);
  calls.cost = array(5, "cost", INT8OID);
  return calls;
}

static Settlement settlement_of(const Calls &calls, int i) {
  Settlement call = {};
  call.key = calls.keys.ids[i];
  call.ending = keypool::Ending::kRecorded;
  call.health = keypool::Health::kServed;
  call.has_lease = calls.leases.Has(i);
  if (call.has_lease) call.lease = text_view(DatumGetTextPP(calls.leases.values[i]));
  call.tokens = calls.tokens.Amount(i);
  call.output = calls.output.Amount(i);
  call.cached = calls.cached.Amount(i);
  call.cost = calls.cost.Amount(i);
  return call;
}

static void warn_of_skipped(const Settled &settled, int i) {
  bool unknown = settled.kind == Settled::kNoSuchKey;
  ereport(
      WARNING, errcode(unknown ? ERRCODE_KEYPOOL_NOT_FOUND : ERRCODE_INVALID_PARAMETER_VALUE),
      errmsg("keypool: element %d is skipped: %s", i + 1, unknown ? "key does not exist" : settled.problem.message));
}

// Settles one of the calls. True if it counts now.
static bool record(const Calls &calls, int i) {
  Settled settled = settle_call(settlement_of(calls, i), Right::kApp);
  if (settled.kind == Settled::kNoSuchKey || settled.kind == Settled::kBadLease) warn_of_skipped(settled, i);
  return settled.kind == Settled::kCounted;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_record_many);
Datum keypool_record_many(PG_FUNCTION_ARGS) {
  Calls calls = read_calls(fcinfo);
  report_if_read_only("keypool_record_many");
  MemoryContext each = AllocSetContextCreate(CurrentMemoryContext, "keypool record_many", ALLOCSET_SMALL_SIZES);
  MemoryContext before = MemoryContextSwitchTo(each);
  int64 counted = 0;
  for (int i = 0; i < calls.keys.count; ++i) {
    CHECK_FOR_INTERRUPTS();
    counted += record(calls, i);
    MemoryContextReset(each);
  }
  MemoryContextSwitchTo(before);
  MemoryContextDelete(each);
  PG_RETURN_INT64(counted);
}

}  // extern "C"
