// report_call.cpp - ending a call by what the provider answered.
#include "pg/pool/report_call.h"

#include "pg/pool/key_lookup.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"

using keypool::Answer;
using keypool::AnswerClass;
using keypool::AnswerEffect;
using keypool::Ending;
using keypool::Health;
using keypool::TimeUs;

Understood understand(const Report &report, const OwnErrorRules &own) {
  keypool::AnswerTexts texts = {report.error_code, report.headers, report.body, keypool::IsSuccess(report.status)};
  Understood understood = {keypool::ReadAnswer(texts, report.written), {}, {}};
  understood.classified = keypool::Classify(own.rules, own.count, report.status, understood.answer, report.written);
  bool by_own = understood.classified.rule >= 0 && understood.classified.rule < own.count;
  understood.scope = by_own ? own.scopes[understood.classified.rule] : std::string_view();
  return understood;
}

AnswerEffect effect_of(AnswerClass answer_class, int breaker_threshold) {
  int threshold = breaker_threshold >= 0 ? breaker_threshold : keypool_breaker_threshold;
  return keypool::EffectOf(answer_class, static_cast<uint16>(threshold));
}

// Whether the provider has not served the call: what the caller does not say was used was not. A call that broke, or
// that the caller gave up, may have used what was estimated.
static bool was_refused(const Report &report, AnswerClass answer_class) {
  bool answered = report.status >= 300 && report.status != 499;
  return answered && report.error_code != "timeout" && report.error_code != "broken" &&
         report.error_code != "cancelled" && answer_class != AnswerClass::kOk;
}

static Health health_of(AnswerClass answer_class, const AnswerEffect &effect) {
  if (answer_class == AnswerClass::kOk) return Health::kServed;
  bool fails = !effect.blocks && effect.blames != AnswerEffect::kNobody;
  return fails ? Health::kFailed : Health::kUnknown;
}

static double seconds_until(TimeUs moment) {
  return static_cast<double>(Max(moment - clock_now(), 0)) / keypool::kMicrosPerSecond;
}

// The settlement that the answer comes to.
static Settlement settlement_of(const Report &report, const Understood &understood, int breaker_threshold) {
  AnswerClass answer_class = understood.classified.answer_class;
  AnswerEffect effect = effect_of(answer_class, breaker_threshold);
  Settlement call = {};
  call.key = report.key;
  call.ending = effect.blocks                                              ? Ending::kLimited
                : answer_class == AnswerClass::kUnsent && report.has_lease ? Ending::kReleased
                                                                           : Ending::kRecorded;
  call.has_lease = report.has_lease;
  call.lease = report.lease;
  call.refused = was_refused(report, answer_class);
  call.tokens = report.tokens;
  call.output = report.output;
  call.cached = report.cached;
  call.cost = report.cost;
  call.scope = understood.scope;
  call.has_cooldown = effect.blocks && understood.answer.retry_at != 0;
  if (call.has_cooldown) call.cooldown = seconds_until(understood.answer.retry_at);
  if (answer_class == AnswerClass::kExhausted) {
    bool month = understood.answer.used_up == keypool::AllowancePeriod::kMonth;
    call.used_up = month ? keypool::AllowancePeriod::kMonth : keypool::AllowancePeriod::kDay;
  }
  call.health = health_of(answer_class, effect);
  call.failure = {static_cast<uint8>(answer_class), effect.threshold, Max(effect.seconds, 1)};
  call.fails_account = effect.blames == AnswerEffect::kAccount;
  call.spares_pool = effect.spares_pool;
  call.answer = &understood.answer;
  call.written = report.written;
  call.age_known = report.age_known;
  return call;
}

// The provider's own threshold, and rules, only where there may be any: that takes a look at the key.
struct OwnSettings {
  OwnErrorRules rules;
  int breaker_threshold;
};

static OwnSettings own_settings(const keypool::KeyId &id) {
  OwnSettings own = {{}, -1};
  KeyReference key;
  MeterTables tables;
  if (!pool_cache_open_key(id, RowExclusiveLock, &key, &tables)) return own;
  if (error_rules_exist()) own.rules = error_rules_for(key.pool->provider);
  own.breaker_threshold = key.pool->rules->breaker_threshold;
  meter_tables_close(tables);
  return own;
}

// When the caller may come back, with any key.
static TimeUs later_at(const Understood &understood, const Settled &settled) {
  TimeUs now = clock_now();
  TimeUs told = understood.answer.retry_at;
  return told > now ? told : now + keypool::OverloadDelay(settled.failures);
}

static TimeUs retry_at_of(const Understood &understood, const Settled &settled) {
  switch (keypool::NextStepOf(understood.classified.answer_class)) {
    case keypool::NextStep::kLater:
      return later_at(understood, settled);
    case keypool::NextStep::kOtherKey:
      return settled.blocked_until;
    default:
      return 0;
  }
}

Reported report_call(const Report &report) {
  bool is_plain = keypool::IsSuccess(report.status) && report.error_code.empty() && report.body.empty();
  OwnSettings own = {{}, -1};
  if (!is_plain || error_rules_exist()) own = own_settings(report.key);
  Understood understood = understand(report, own.rules);
  Settlement call = settlement_of(report, understood, own.breaker_threshold);
  Settled settled = settle_call(call, Right::kApp);
  if (settled.kind == Settled::kNoSuchKey) report_unknown_key();
  if (settled.kind == Settled::kBadLease)
    ereport(NOTICE, errmsg("keypool: %s; the call is not settled", settled.problem.message));
  return {understood.classified.answer_class, retry_at_of(understood, settled), settled};
}
