// answer.h - what a provider's answer says, as far as it matters to whoever shares its keys.
//
// Read are the error's codes, when to come back, whether a day's or a month's limit is used up, and what the provider
// says is left of its limits. In headers and in the body, whose members may lie anywhere in it:
//
//   code, type, status, reason, error, error_type, __type, x-amzn-errortype   codes
//   retry-after (seconds, or an HTTP date), retry-after-ms, x-ms-retry-after-ms,
//   retryDelay, retry_after, retry_after_seconds, retry_after_ms              when to come back
//   x-ratelimit-*, anthropic-ratelimit-*, ratelimit-*: limit, remaining or reset, and a unit and a period,
//   in any order                                                              what is left, and when that changes
//   message                              `try again in 7.66s`, `retry after 20 seconds`, where nothing else says when;
//                                        `credit balance is too low` is a code
//   quotaId, quota_limit, message        `PerDay`, `per day`, `monthly`: such a limit is used up
//
// Anything else is left out, and so is what is not of its form: garbage says nothing. Nothing here fails.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/quota/time.h"

namespace keypool {

inline constexpr int kMaxCodes = 8;
inline constexpr size_t kMaxCodeBytes = 63;  // longer ones are left out
inline constexpr int kMaxAllowances = 12;

enum class AllowanceUnit : uint8_t { kRequests, kTokens, kInputTokens, kOutputTokens };
enum class AllowancePeriod : uint8_t { kUnknown, kMinute, kHour, kDay, kMonth };

// What a provider says of one of its limits.
struct Allowance {
  AllowanceUnit unit;
  AllowancePeriod period;
  int64_t limit;      // -1: not told
  int64_t remaining;  // likewise
  TimeUs reset;       // when more is left; 0: not told
};

struct Answer {
  int code_count = 0;
  int allowance_count = 0;
  TimeUs retry_at = 0;                                  // when to come back; may be over; 0: not told
  AllowancePeriod used_up = AllowancePeriod::kUnknown;  // kDay or kMonth: the answer says that such a limit is used up
  bool has_error = false;                               // the body tells of one
  bool caller_says = false;                             // the first code is what the caller says
  uint8_t code_size[kMaxCodes];
  char code[kMaxCodes][kMaxCodeBytes];  // in lower case
  Allowance allowance[kMaxAllowances];

  std::string_view code_at(int i) const { return {code[i], code_size[i]}; }
};

struct AnswerTexts {
  std::string_view error_code;  // what the caller says of it
  std::string_view headers;     // header_reader.h
  std::string_view body;        // JSON, or anything
  // The status was 2xx: only errors are read of the body, as streams tell them, for what a model has written may look
  // like one. These are a member `error` of the outermost object or of one in it, a text or an object, and an outermost
  // object whose `type` is `error`.
  bool succeeded;
};

// `written` is when the provider wrote it, by this server's clock: times that it counts from then.
Answer ReadAnswer(const AnswerTexts &texts, TimeUs written) noexcept;

}  // namespace keypool
