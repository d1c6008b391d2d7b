// answers.cpp - keypool_report, keypool_explain_answer and keypool_set_error_rule: what providers answer.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/json.h"
}

#include "core/quota/model_pattern.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/pool/report_call.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/sql/error_rule_admin.h"
#include "pg/sql/selection_row.h"
#include "pg/sql/trigger_rows.h"
#include "pg/state/event_log.h"

using keypool::AnswerClass;
using keypool::AnswerEffect;
using keypool::TimeUs;

static constexpr int64 kMaxAge = INT64CONST(7) * 3600 * 1000;  // milliseconds: as long as a lease lives

// Any status will do: what is none is no answer.
static int32 argument_status(FunctionCallInfo fcinfo, int number) {
  int64 status = argument_given(fcinfo, number) ? PG_GETARG_INT64(number) : 0;
  return status >= 100 && status <= 999 ? static_cast<int32>(status) : 0;
}

static GivenAmount given_amount(FunctionCallInfo fcinfo, int number) {
  if (!argument_given(fcinfo, number)) return {};
  return {true, PG_GETARG_INT64(number)};
}

static TimeUs argument_written(FunctionCallInfo fcinfo, int number) {
  int64 age = argument_given(fcinfo, number) ? PG_GETARG_INT64(number) : 0;
  return clock_now() - Min(Max(age, 0), kMaxAge) * 1000;
}

static Datum retry_after(TimeUs retry_at, bool *is_null) {
  TimeUs now = clock_now();
  *is_null = retry_at <= now;
  return Int32GetDatum(*is_null ? 0 : static_cast<int32>(milliseconds_until(retry_at, now)));
}

static TupleDesc make_report_columns(void) {
  TupleDesc columns = CreateTemplateTupleDesc(4);
  TupleDescInitEntry(columns, 1, "class", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 2, "action", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 3, "retry_after_ms", INT4OID, -1, 0);
  TupleDescInitEntry(columns, 4, "settled", BOOLOID, -1, 0);
  return BlessTupleDesc(columns);
}

static HeapTuple make_report_row(TupleDesc columns, const Reported &reported) {
  Datum values[4];
  bool nulls[4] = {};
  values[0] = CStringGetTextDatum(keypool::AnswerClassName(reported.answer_class));
  values[1] = CStringGetTextDatum(keypool::NextStepName(keypool::NextStepOf(reported.answer_class)));
  values[2] = retry_after(reported.retry_at, &nulls[2]);
  values[3] = BoolGetDatum(reported.settled.kind == Settled::kCounted);
  return heap_form_tuple(columns, values, nulls);
}

// What keypool_report returns. Its columns, and the few rows without a moment, are made once: that takes as long as
// reading three headers.
static HeapTuple report_row(const Reported &reported) {
  static struct {
    TupleDesc columns;
    HeapTuple rows[static_cast<int>(AnswerClass::kCount)][2];
  } made;
  bool counted = reported.settled.kind == Settled::kCounted;
  HeapTuple *row = &made.rows[static_cast<int>(reported.answer_class)][counted ? 1 : 0];
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  if (made.columns == nullptr) made.columns = make_report_columns();
  if (reported.retry_at == 0 && *row == nullptr) *row = make_report_row(made.columns, reported);
  MemoryContextSwitchTo(before);
  return reported.retry_at == 0 ? *row : make_report_row(made.columns, reported);
}

static TupleDesc result_columns(FunctionCallInfo fcinfo) {
  TupleDesc columns;
  if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
    elog(ERROR, "return type must be a row type");
  return BlessTupleDesc(columns);
}

//
// What a rule says, and does
//

static char *describe_own_rule(const OwnErrorRules &own, int rule) {
  const keypool::ErrorRule &its = own.rules[rule];
  StringInfoData text;
  initStringInfo(&text);
  appendStringInfo(&text, "error_rules: provider %s", pnstrdup(own.providers[rule].data(), own.providers[rule].size()));
  if (its.status != 0) appendStringInfo(&text, ", http_status %d", its.status);
  if (!its.code.empty()) appendStringInfo(&text, ", error_code %s", pnstrdup(its.code.data(), its.code.size()));
  return text.data;
}

static char *describe_rule(const OwnErrorRules &own, const keypool::Classified &classified) {
  if (classified.rule < 0) return pstrdup("built in: the status");
  if (classified.rule < own.count) return describe_own_rule(own, classified.rule);
  const keypool::ErrorRule &rule = keypool::BuiltInRule(classified.rule - own.count);
  if (rule.code.empty()) return psprintf("built in: status %d", rule.status);
  return psprintf("built in: code %.*s", static_cast<int>(rule.code.size()), rule.code.data());
}

static char *describe_failure(const AnswerEffect &effect) {
  const char *who =
      effect.blames == AnswerEffect::kAccount ? "the quotas of the key's account, else the key," : "the key";
  if (effect.threshold == 0) return pstrdup("settles the call; nobody is blamed");
  if (effect.threshold == 1) return psprintf("settles the call; %s rests for %u s, doubling", who, effect.seconds);
  return psprintf("settles the call; after %d in a row %s rests for %u s, doubling", effect.threshold, who,
                  effect.seconds);
}

static char *describe_effect(const Understood &understood, const AnswerEffect &effect) {
  AnswerClass answer_class = understood.classified.answer_class;
  if (answer_class == AnswerClass::kOk) return pstrdup("settles the call, and closes breakers");
  if (answer_class == AnswerClass::kUnsent) return pstrdup("gives the reservation back");
  if (effect.blocks) {
    std::string_view scope = understood.scope.empty() ? std::string_view("quota") : understood.scope;
    return psprintf("settles the call, and blocks by the scope %.*s", static_cast<int>(scope.size()), scope.data());
  }
  if (effect.blames == AnswerEffect::kNobody) return pstrdup("settles the call; nobody is blamed");
  return describe_failure(effect);
}

static Report read_answer(FunctionCallInfo fcinfo, int status, int headers, int code, int body) {
  Report report = {};
  report.status = argument_status(fcinfo, status);
  report.headers = argument_text(fcinfo, headers);
  report.error_code = argument_text(fcinfo, code);
  report.body = argument_text(fcinfo, body);
  return report;
}

static int threshold_of(std::string_view provider) {
  MeterTables tables;
  Pool *pool = pool_cache_open_rules(provider, AccessShareLock, &tables);
  int threshold = pool->rules->breaker_threshold;
  meter_tables_close(tables);
  return threshold;
}

//
// Rules
//

static const char *const kRemoveRule =
    "DELETE FROM keypool.error_rules WHERE provider OPERATOR(pg_catalog.=) $1"
    " AND (http_status OPERATOR(pg_catalog.=) $2 OR (http_status IS NULL AND $2 IS NULL))"
    " AND (error_code OPERATOR(pg_catalog.=) $3 OR (error_code IS NULL AND $3 IS NULL))";
static const char *const kSetRule =
    "INSERT INTO keypool.error_rules (provider, http_status, error_code, class, scope) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT ON CONSTRAINT error_rules_key DO UPDATE SET (class, scope) = ROW($4, $5)";

[[noreturn]] static void refuse(const char *message) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message));
  pg_unreachable();
}

static void check_pattern(const text *given, const char *message, size_t most) {
  if (given == nullptr) return;
  std::string_view pattern = text_view(given);
  if (!keypool::CheckPattern(pattern).ok() || pattern.size() > most) refuse(message);
}

void check_error_rule(const ErrorRuleRow &rule) {
  AnswerClass ignored;
  check_pattern(rule.provider, "provider must be a pattern of 1 to 255 bytes without control characters", 255);
  check_pattern(rule.code, "error_code must be a pattern of 1 to 63 bytes without control characters", 63);
  if (rule.status != 0 && (rule.status < 100 || rule.status > 999)) refuse("http_status must be between 100 and 999");
  if (rule.status == 0 && rule.code == nullptr) refuse("http_status or error_code must be given");
  if (rule.answer_class != nullptr && !keypool::ReadAnswerClass(text_view(rule.answer_class), &ignored))
    refuse("class must be ok, rate, exhausted, billing, auth, forbidden, overloaded, server, client or unsent");
  if (rule.scope != nullptr) check_scope(text_view(rule.scope));
}

static QueryArguments answers_of(const ErrorRuleRow &rule) {
  QueryArguments arguments;
  arguments.Add(TEXTOID, PointerGetDatum(rule.provider));
  arguments.Add(INT4OID, Int32GetDatum(rule.status), rule.status == 0);
  arguments.Add(TEXTOID, PointerGetDatum(rule.code), rule.code == nullptr);
  return arguments;
}

void set_error_rule(const ErrorRuleRow &rule) {
  QueryArguments arguments = answers_of(rule);
  arguments.Add(TEXTOID, PointerGetDatum(rule.answer_class));
  arguments.Add(TEXTOID, PointerGetDatum(rule.scope), rule.scope == nullptr);
  owner_execute(kSetRule, arguments);
}

void remove_error_rule(const ErrorRuleRow &rule) { owner_execute(kRemoveRule, answers_of(rule)); }

static text *text_argument(FunctionCallInfo fcinfo, int number) {
  return argument_given(fcinfo, number) ? PG_GETARG_TEXT_PP(number) : nullptr;
}

static ErrorRuleRow argument_rule(FunctionCallInfo fcinfo) {
  bool has_status = argument_given(fcinfo, 1);
  if (has_status && (PG_GETARG_INT64(1) < 100 || PG_GETARG_INT64(1) > 999))
    refuse("http_status must be between 100 and 999");
  return {text_argument(fcinfo, 0), has_status ? static_cast<int32>(PG_GETARG_INT64(1)) : 0, text_argument(fcinfo, 2),
          text_argument(fcinfo, 3), text_argument(fcinfo, 4)};
}

static void append_text(StringInfo json, const char *name, Datum value, bool is_null) {
  if (is_null) return;
  appendStringInfo(json, "%s\"%s\": ", json->len == 1 ? "" : ", ", name);
  escape_json(json, TextDatumGetCString(value));
}

static void log_rule_change(const TriggerData *trigger) {
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  auto row = read_trigger_row<kErrorRulesColumns>(new_tuple(trigger), columns, read_error_rules_row);
  StringInfoData json;
  initStringInfo(&json);
  appendStringInfoChar(&json, '{');
  if (!row.is_null(kErrorRulesStatus))
    appendStringInfo(&json, "\"http_status\": %d", DatumGetInt32(row.value(kErrorRulesStatus)));
  for (AttrNumber column : {kErrorRulesCode, kErrorRulesClass, kErrorRulesScope})
    append_text(&json, row.name(column), row.value(column), row.is_null(column));
  appendStringInfoChar(&json, '}');
  bool deleted = TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
  event_log_add(
      {deleted ? "error_rule_removed" : "error_rule_set", {}, nullptr, row.text_of(kErrorRulesProvider), json.data});
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_report);
Datum keypool_report(PG_FUNCTION_ARGS) {
  Report report = read_answer(fcinfo, 2, 3, 4, 5);
  report.key = argument_key(fcinfo, 0);
  report.has_lease = argument_given(fcinfo, 1);
  report.lease = argument_text(fcinfo, 1);
  report.tokens = given_amount(fcinfo, 6);
  report.output = given_amount(fcinfo, 7);
  report.cached = given_amount(fcinfo, 8);
  report.cost = given_amount(fcinfo, 9);
  report.written = argument_written(fcinfo, 10);
  report.age_known = argument_given(fcinfo, 10);
  report_if_read_only("keypool_report");
  Reported reported = report_call(report);
  PG_RETURN_DATUM(HeapTupleGetDatum(report_row(reported)));
}

PG_FUNCTION_INFO_V1(keypool_explain_answer);
Datum keypool_explain_answer(PG_FUNCTION_ARGS) {
  std::string_view provider = argument_provider(fcinfo, 0);
  Report report = read_answer(fcinfo, 1, 2, 3, 4);
  report.written = clock_now();
  privileges_require(Right::kPeek, provider);
  OwnErrorRules own = error_rules_for(provider);
  Understood understood = understand(report, own);
  AnswerClass answer_class = understood.classified.answer_class;
  keypool::NextStep step = keypool::NextStepOf(answer_class);
  Datum values[5];
  bool nulls[5] = {};
  values[0] = CStringGetTextDatum(keypool::AnswerClassName(answer_class));
  values[1] = CStringGetTextDatum(keypool::NextStepName(step));
  values[2] = CStringGetTextDatum(describe_rule(own, understood.classified));
  values[3] = CStringGetTextDatum(describe_effect(understood, effect_of(answer_class, threshold_of(provider))));
  bool tells = step == keypool::NextStep::kOtherKey || step == keypool::NextStep::kLater;
  values[4] = retry_after(tells ? understood.answer.retry_at : 0, &nulls[4]);
  PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_columns(fcinfo), values, nulls)));
}

PG_FUNCTION_INFO_V1(keypool_set_error_rule);
Datum keypool_set_error_rule(PG_FUNCTION_ARGS) {
  argument_require(fcinfo, 0, "provider");
  ErrorRuleRow rule = argument_rule(fcinfo);
  check_error_rule(rule);
  report_if_read_only("keypool_set_error_rule");
  privileges_require_everywhere(Right::kOperator);
  if (rule.answer_class == nullptr)
    remove_error_rule(rule);
  else
    set_error_rule(rule);
  PG_RETURN_VOID();
}

// BEFORE INSERT OR UPDATE OR DELETE ON keypool.error_rules FOR EACH STATEMENT, AFTER that FOR EACH ROW, AFTER TRUNCATE
// FOR EACH STATEMENT. Announced before as well, as changes of keys are.
PG_FUNCTION_INFO_V1(keypool_tell_rules_change);
Datum keypool_tell_rules_change(PG_FUNCTION_ARGS) {
  TriggerData *trigger = trigger_data(fcinfo, "keypool.tell_rules_change", {relations().error_rules}, 0);
  CacheInvalidateRelcache(trigger->tg_relation);
  if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event)) log_rule_change(trigger);
  return PointerGetDatum(nullptr);
}

}  // extern "C"
