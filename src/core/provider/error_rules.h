// error_rules.h - what kind of error an answer is, and what follows from it.
#pragma once

#include "core/provider/answer.h"

namespace keypool {

// Whether an HTTP status is 2xx.
inline bool IsSuccess(int32_t status) { return status >= 200 && status < 300; }

enum class AnswerClass : uint8_t {
  kOk,
  kRate,        // a limit of a minute, or one that is not told: over soon
  kExhausted,   // a limit of a day or a month
  kBilling,     // no credit
  kAuth,        // the key is not accepted
  kForbidden,   // the key may not do this
  kOverloaded,  // the provider has too much to do, whoever asks
  kServer,      // the provider failed, or did not answer
  kClient,      // the request is wrong, or was given up by the caller
  kUnsent,      // the request never reached the provider
  kCount,
};

const char *AnswerClassName(AnswerClass answer_class) noexcept;
bool ReadAnswerClass(std::string_view name, AnswerClass *answer_class) noexcept;

// What to do next.
enum class NextStep : uint8_t {
  kDone,
  kOtherKey,  // select again at once
  kLater,     // ask again after the time that is told, with any key
  kGiveUp,    // another key would get the same answer
};
const char *NextStepName(NextStep step) noexcept;
NextStep NextStepOf(AnswerClass answer_class) noexcept;

// What a class does to the meters of the call, beside that the call is settled.
struct AnswerEffect {
  enum Blames : uint8_t { kNobody, kLimited, kAccount, kKey } blames;  // kLimited: as a 429's scope says
  bool blocks;                                                         // kLimited: until it is told, else for a default
  uint16_t threshold;  // else a breaker opens after so many failures in a row; 0: never
  uint32_t seconds;    // for so long, doubling
  bool spares_pool;    // at most half of a provider's keys are taken out at once: the fault may be elsewhere
};
// `server_threshold` is the setting breaker_threshold.
AnswerEffect EffectOf(AnswerClass answer_class, uint16_t server_threshold) noexcept;

// How long to leave a provider alone that has too much to do, after so many such answers in a row.
TimeUs OverloadDelay(uint32_t in_a_row) noexcept;

// An answer is of the class of the first rule that fits.
struct ErrorRule {
  int32_t status;  // HTTP; 0: any, also none
  std::string_view
      code;  // a shell pattern (model_pattern.h) in lower case, of any code of the answer; empty: any, also none
  AnswerClass answer_class;
};

// The rules that are built in, the first ones first. Their sources are in the documentation of answers.
inline constexpr int kBuiltInRules = 83;
const ErrorRule &BuiltInRule(int i) noexcept;

struct Classified {
  AnswerClass answer_class;
  int rule;  // of `own` if it is below `own_count`; of the built-in ones behind them; -1: none fits, it is by its
             // status
};

// Own rules come before the built-in ones, and those of codes before the status. `status` 0: there was no answer. A
// rate limit is exhausted if the answer says so, or that it takes an hour or more; unless an own rule says that it is
// not.
Classified Classify(const ErrorRule *own, int own_count, int32_t status, const Answer &answer, TimeUs now) noexcept;

}  // namespace keypool
