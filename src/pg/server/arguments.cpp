// arguments.cpp - reading and checking the arguments of SQL functions.
#include "pg/server/arguments.h"

extern "C" {
#include "utils/array.h"
}

#include "core/provider_name.h"
#include "core/quota/model_pattern.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"

using keypool::KeyId;

void argument_require(FunctionCallInfo fcinfo, int number, const char *name) {
  if (PG_ARGISNULL(number))
    ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name));
}

std::string_view argument_provider(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "provider");
  std::string_view provider = text_view(PG_GETARG_TEXT_PP(number));
  report_status(call_core([&] { return keypool::CheckProviderName(provider); }));
  return provider;
}

KeyId argument_key(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "key");
  return key_id_from_datum(PG_GETARG_DATUM(number));
}

std::string_view argument_text(FunctionCallInfo fcinfo, int number) {
  return argument_given(fcinfo, number) ? text_view(PG_GETARG_TEXT_PP(number)) : std::string_view();
}

std::string_view argument_model(FunctionCallInfo fcinfo, int number) {
  if (!argument_given(fcinfo, number)) return {};
  std::string_view model = text_view(PG_GETARG_TEXT_PP(number));
  report_status(call_core([&] { return keypool::CheckModel(model); }));
  return model;
}

static void require_range(int64 value, const char *name, int64 min, int64 max) {
  if (value < min || value > max)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s must be between %lld and %lld", name, static_cast<long long>(min), static_cast<long long>(max)));
}

int64 argument_amount(FunctionCallInfo fcinfo, int number, const char *name, int64 max) {
  if (!argument_given(fcinfo, number)) return 0;
  int64 amount = PG_GETARG_INT64(number);
  require_range(amount, name, 0, max);
  return amount;
}

keypool::TimeUs argument_wait(FunctionCallInfo fcinfo, int number, const char *name, keypool::TimeUs max) {
  if (!argument_given(fcinfo, number)) return 0;
  const Interval *wait = PG_GETARG_INTERVAL_P(number);
  if (wait->month != 0 || wait->day != 0 || wait->time < 0 || wait->time > max)
    ereport(
        ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
        errmsg("%s must be between 0 and %lld seconds", name, static_cast<long long>(max / keypool::kMicrosPerSecond)));
  return wait->time;
}

int64 argument_count(FunctionCallInfo fcinfo, int number, const char *name, int64 max) {
  argument_require(fcinfo, number, name);
  int64 count = PG_GETARG_INT64(number);
  require_range(count, name, 1, max);
  return count;
}

int64 argument_limit(FunctionCallInfo fcinfo, int number, const char *name) {
  int64 limit = PG_ARGISNULL(number) ? 0 : PG_GETARG_INT64(number);
  if (limit < 0) ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be negative", name));
  return limit;
}

KeyIds argument_keys(FunctionCallInfo fcinfo, int number, const char *name) {
  static_assert(sizeof(KeyId) == UUID_LEN && alignof(KeyId) == 1);  // without NULLs, they lie one after the other
  ArrayType *array = PG_GETARG_ARRAYTYPE_P(number);
  if (array_contains_nulls(array))
    ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not contain nulls", name));
  return {reinterpret_cast<const KeyId *>(ARR_DATA_PTR(array)), ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array))};
}

void check_scope(std::string_view scope) {
  static constexpr std::string_view kOfQuota = "quota:";
  bool names_quota = scope.size() > kOfQuota.size() && scope.substr(0, kOfQuota.size()) == kOfQuota;
  if (!names_quota && scope != "quota" && scope != "key" && scope != "model" && scope != "account")
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("scope must be quota, key, model, account, or quota: and the name of a quota"));
}

std::string_view argument_scope(FunctionCallInfo fcinfo, int number) {
  if (!argument_given(fcinfo, number)) return {};
  check_scope(argument_text(fcinfo, number));
  return argument_text(fcinfo, number);
}

static void refuse_array(const char *message) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message));
}

// A NULL in it is a null.
static Texts read_texts(ArrayType *array) {
  Datum *values;
  bool *nulls;
  Texts read = {};
  deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &read.count);
  read.texts = static_cast<text **>(palloc(Max(read.count, 1) * sizeof(text *)));
  for (int i = 0; i < read.count; ++i) read.texts[i] = nulls[i] ? nullptr : DatumGetTextPP(values[i]);
  return read;
}

Texts argument_providers(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "providers");
  ArrayType *array = PG_GETARG_ARRAYTYPE_P(number);
  if (ARR_NDIM(array) != 1 || array_contains_nulls(array))
    refuse_array("providers must be an array of one dimension without NULLs");
  Texts providers = read_texts(array);
  if (providers.count > kMaxProviders) refuse_array("providers must not have more than 100 elements");
  for (int i = 0; i < providers.count; ++i)
    report_status(call_core([&] { return keypool::CheckProviderName(text_view(providers.texts[i])); }));
  return providers;
}

Texts argument_models(FunctionCallInfo fcinfo, int number, int count) {
  if (!argument_given(fcinfo, number)) return {};
  ArrayType *array = PG_GETARG_ARRAYTYPE_P(number);
  if (ARR_NDIM(array) != 1 || ArrayGetNItems(1, ARR_DIMS(array)) != count)
    refuse_array("models must have one element for each of providers");
  Texts models = read_texts(array);
  for (int i = 0; i < models.count; ++i) {
    if (models.texts[i] == nullptr) continue;
    report_status(call_core([&] { return keypool::CheckModel(text_view(models.texts[i])); }));
  }
  return models;
}
