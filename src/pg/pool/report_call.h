// report_call.h - ending a call by what the provider answered: keypool_report.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/provider/error_rules.h"
#include "pg/catalog/error_rules.h"
#include "pg/pool/settle_call.h"

// What is known of an answer.
struct Report {
  keypool::KeyId key;
  bool has_lease;
  std::string_view lease;
  int32 status;  // HTTP; 0: there was no answer
  std::string_view error_code;
  std::string_view headers;
  std::string_view body;
  GivenAmount tokens;
  GivenAmount output;
  GivenAmount cached;
  GivenAmount cost;
  keypool::TimeUs written;  // when the provider wrote it, if the caller knows; else now
  bool age_known;           // the caller does
};

// What it comes to.
struct Reported {
  keypool::AnswerClass answer_class;
  keypool::TimeUs retry_at;  // what is blocked is so until then, or the provider is to be left alone; 0: nothing is
  Settled settled;
};

// What an answer is, by the built-in rules and those for a provider.
struct Understood {
  keypool::Answer answer;
  keypool::Classified classified;
  std::string_view scope;  // of the rule that fits; empty: the usual one
};
Understood understand(const Report &report, const OwnErrorRules &own);

// What a failure of a class needs to open a breaker, for a provider's breaker_threshold (-1:
// keypool.breaker_threshold).
keypool::AnswerEffect effect_of(keypool::AnswerClass answer_class, int breaker_threshold);

// Ends the call. Nothing that the provider answered makes it fail, nor a lease that is none: then a limit blocks all
// the same. Raises 42501 without the right, KP404 if there is no such key.
Reported report_call(const Report &report);
