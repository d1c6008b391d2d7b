// error_rules.cpp - what kind of error an answer is.
#include "core/provider/error_rules.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "core/quota/model_pattern.h"

namespace keypool {

namespace {

using enum AnswerClass;

constexpr TimeUs kLongWait = 3600 * kMicrosPerSecond;
constexpr int kRulesOfCaller = 4;

// Codes that say what is wrong whatever the status is; then those that a 429 has, too; then statuses.
constexpr std::array<ErrorRule, kBuiltInRules> kRules = {{
    // What the caller says itself.
    {0, "connect", kUnsent},
    {0, "timeout", kServer},
    {0, "broken", kServer},
    {0, "cancelled", kClient},
    // No credit.
    {0, "insufficient_quota", kBilling},
    {0, "billing_*", kBilling},
    {0, "insufficient_balance", kBilling},
    {0, "exceeded_current_quota*", kBilling},
    {0, "insufficient_credits", kBilling},
    {0, "credits_exhausted", kBilling},
    {0, "payment_required", kBilling},
    {0, "account_overdue*", kBilling},
    {0, "arrearage", kBilling},
    // The key is not accepted.
    {0, "invalid_api_key", kAuth},
    {0, "api_key_invalid", kAuth},
    {0, "api_key_expired", kAuth},
    {0, "invalid_authentication*", kAuth},
    {0, "authentication_error", kAuth},
    {0, "unauthenticated", kAuth},
    {0, "unauthorized", kAuth},
    {0, "invalid_x_api_key", kAuth},
    {0, "account_deactivated", kAuth},
    {0, "token_expired", kAuth},
    {0, "unrecognizedclientexception", kAuth},
    {0, "expiredtoken*", kAuth},
    {0, "invalidsignatureexception", kAuth},
    {0, "incompletesignature*", kAuth},
    {0, "missingauthenticationtoken*", kAuth},
    {0, "access_terminated*", kAuth},
    // It may not do this.
    {0, "permission_error", kForbidden},
    {0, "permission_denied", kForbidden},
    {0, "consumer_suspended", kForbidden},
    {0, "api_key_*_blocked", kForbidden},
    {0, "accessdenied*", kForbidden},
    {0, "unsupported_country_region_territory", kForbidden},
    {0, "service_disabled", kForbidden},
    // Too much to do.
    {0, "overloaded*", kOverloaded},
    {0, "engine_overloaded*", kOverloaded},
    {0, "model_overloaded", kOverloaded},
    {0, "modelnotreadyexception", kOverloaded},
    {0, "serviceunavailable*", kOverloaded},
    {0, "service_unavailable*", kOverloaded},
    // Limits.
    {0, "rate_limit*", kRate},
    {0, "ratelimit*", kRate},
    {0, "resource_exhausted", kRate},
    {0, "throttling*", kRate},
    {0, "throttled*", kRate},
    {0, "too_many_requests*", kRate},
    {0, "toomanyrequests*", kRate},
    {0, "limit_requests", kRate},
    {0, "limit_burst_rate", kRate},
    {0, "servicequotaexceeded*", kExhausted},
    {0, "quota_exceeded", kExhausted},
    {429, "", kRate},
    // The provider failed.
    {0, "server_error", kServer},
    {0, "internal_server_error", kServer},
    {0, "internal_error", kServer},
    {0, "internal", kServer},
    {0, "internalserverexception", kServer},
    {0, "internalfailure", kServer},
    {0, "api_error", kServer},
    {0, "timeout_error", kServer},
    {0, "deadline_exceeded", kServer},
    {0, "modeltimeoutexception", kServer},
    {0, "modelerrorexception", kServer},
    {0, "modelstreamerrorexception", kServer},
    {503, "unavailable", kOverloaded},
    // The request is wrong.
    {0, "context_length_exceeded", kClient},
    {0, "content_filter*", kClient},
    {0, "content_policy*", kClient},
    {0, "model_not_found", kClient},
    {0, "validationexception", kClient},
    {413, "", kClient},
    // By the status alone.
    {401, "", kAuth},
    {402, "", kBilling},
    {403, "", kForbidden},
    {407, "", kServer},
    {408, "", kServer},
    {425, "", kServer},
    {499, "", kClient},
    {503, "", kOverloaded},
    {529, "", kOverloaded},
    {530, "", kServer},
}};

bool HasCode(const Answer &answer, std::string_view pattern) {
  for (int i = 0; i < answer.code_count; ++i)
    if (Matches(pattern, answer.code_at(i))) return true;
  return false;
}

bool Fits(const ErrorRule &rule, int32_t status, const Answer &answer) {
  return (rule.status == 0 || rule.status == status) && (rule.code.empty() || HasCode(answer, rule.code));
}

// The first rules are of words of the caller's, and of answers that did not come, or not to their end.
bool FitsBuiltIn(int i, int32_t status, const Answer &answer) {
  const ErrorRule &rule = kRules[static_cast<size_t>(i)];
  if (i >= kRulesOfCaller) return Fits(rule, status, answer);
  bool broke_off = IsSuccess(status) && rule.answer_class != kUnsent;
  return answer.caller_says && answer.code_at(0) == rule.code && (status == 0 || broke_off);
}

// An error that is not known, with a status of success, is of a stream that broke.
AnswerClass ClassWithoutRule(int32_t status, const Answer &answer) {
  if (IsSuccess(status)) return answer.code_count == 0 && !answer.has_error ? kOk : kServer;
  return status >= 300 && status < 500 ? kClient : kServer;
}

}  // namespace

const ErrorRule &BuiltInRule(int i) noexcept {
  assert(i >= 0 && i < kBuiltInRules);
  return kRules[static_cast<size_t>(i)];
}

Classified Classify(const ErrorRule *own, int own_count, int32_t status, const Answer &answer, TimeUs now) noexcept {
  for (int i = 0; i < own_count; ++i)
    if (Fits(own[i], status, answer)) return {own[i].answer_class, i};
  Classified classified = {ClassWithoutRule(status, answer), -1};
  if (classified.answer_class == kOk) return classified;  // no built-in rule is of a success without an error
  for (int i = 0; i < kBuiltInRules && classified.rule < 0; ++i)
    if (FitsBuiltIn(i, status, answer)) classified = {BuiltInRule(i).answer_class, own_count + i};
  bool long_wait = answer.used_up != AllowancePeriod::kUnknown || answer.retry_at - now >= kLongWait;
  if (classified.answer_class == kRate && long_wait) classified.answer_class = kExhausted;
  return classified;
}

namespace {

constexpr std::array<const char *, static_cast<size_t>(kCount)> kClassNames = {
    "ok", "rate", "exhausted", "billing", "auth", "forbidden", "overloaded", "server", "client", "unsent"};

}  // namespace

const char *AnswerClassName(AnswerClass answer_class) noexcept {
  assert(answer_class < kCount);
  return kClassNames[static_cast<size_t>(answer_class)];
}

bool ReadAnswerClass(std::string_view name, AnswerClass *answer_class) noexcept {
  for (size_t i = 0; i < kClassNames.size(); ++i)
    if (name == kClassNames[i]) {
      *answer_class = static_cast<AnswerClass>(i);
      return true;
    }
  return false;
}

NextStep NextStepOf(AnswerClass answer_class) noexcept {
  switch (answer_class) {
    case kOk:
      return NextStep::kDone;
    case kOverloaded:
      return NextStep::kLater;
    case kClient:
      return NextStep::kGiveUp;
    default:
      return NextStep::kOtherKey;
  }
}

AnswerEffect EffectOf(AnswerClass answer_class, uint16_t server_threshold) noexcept {
  switch (answer_class) {
    case kRate:
    case kExhausted:
      return {AnswerEffect::kLimited, true, 0, 0, false};
    case kBilling:
      return {AnswerEffect::kAccount, false, 1, 3600, false};
    case kAuth:
      return {AnswerEffect::kKey, false, 1, 600, true};
    case kForbidden:
      return {AnswerEffect::kKey, false, 3, 600, true};
    case kServer:
      return {AnswerEffect::kKey, false, server_threshold, 10, true};
    case kOverloaded:
      return {AnswerEffect::kKey, false, 0, 1, false};  // it counts them
    default:
      return {AnswerEffect::kNobody, false, 0, 0, false};
  }
}

TimeUs OverloadDelay(uint32_t in_a_row) noexcept {
  constexpr TimeUs kFirst = 5 * kMicrosPerSecond, kLongest = 120 * kMicrosPerSecond;
  return in_a_row > 5 ? kLongest : std::min(kFirst << (in_a_row == 0 ? 0 : in_a_row - 1), kLongest);
}

const char *NextStepName(NextStep step) noexcept {
  constexpr std::array<const char *, 4> kNames = {"done", "other_key", "later", "give_up"};
  return kNames[static_cast<size_t>(step)];
}

}  // namespace keypool
