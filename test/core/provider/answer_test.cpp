// answer_test.cpp - what is read of an answer, and what is not.
#include "core/provider/answer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "core/provider/error_rules.h"

namespace keypool {
namespace {

constexpr TimeUs kNow = TimeUs{1795708800} * kMicrosPerSecond;  // 2026-11-26 16:00:00

Answer Headers(std::string_view headers) { return ReadAnswer({{}, headers, {}, false}, kNow); }
Answer Body(std::string_view body, bool succeeded = false) { return ReadAnswer({{}, {}, body, succeeded}, kNow); }

std::string Codes(const Answer &answer) {
  std::string codes;
  for (int i = 0; i < answer.code_count; ++i) codes += (i == 0 ? "" : " ") + std::string(answer.code_at(i));
  return codes;
}

void ExpectAllowance(const Answer &answer, int i, AllowanceUnit unit, AllowancePeriod period, int64_t limit,
                     int64_t remaining, TimeUs reset) {
  ASSERT_LT(i, answer.allowance_count);
  const Allowance &one = answer.allowance[i];
  EXPECT_EQ(one.unit, unit);
  EXPECT_EQ(one.period, period);
  EXPECT_EQ(one.limit, limit);
  EXPECT_EQ(one.remaining, remaining);
  EXPECT_EQ(one.reset, reset);
}

TEST(Answer, SaysWhatIsLeftOfEachLimit) {
  Answer openai = Headers(R"({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
      "x-ratelimit-reset-requests": "1s", "x-ratelimit-limit-tokens": 150000, "x-ratelimit-remaining-tokens": 149984,
      "x-ratelimit-reset-tokens": "6m0s"})");
  EXPECT_EQ(openai.allowance_count, 2);
  ExpectAllowance(openai, 0, AllowanceUnit::kRequests, AllowancePeriod::kUnknown, 60, 59, kNow + 1000000);
  ExpectAllowance(openai, 1, AllowanceUnit::kTokens, AllowancePeriod::kUnknown, 150000, 149984, kNow + 360000000);
  Answer anthropic = Headers(
      "anthropic-ratelimit-input-tokens-limit: 40000\nanthropic-ratelimit-input-tokens-remaining: 0\n"
      "anthropic-ratelimit-input-tokens-reset: 2026-11-26T16:00:42Z\n"
      "anthropic-ratelimit-output-tokens-limit: 8000");
  EXPECT_EQ(anthropic.allowance_count, 2);
  ExpectAllowance(anthropic, 0, AllowanceUnit::kInputTokens, AllowancePeriod::kUnknown, 40000, 0, kNow + 42000000);
  ExpectAllowance(anthropic, 1, AllowanceUnit::kOutputTokens, AllowancePeriod::kUnknown, 8000, -1, 0);
  Answer cerebras = Headers(
      "x-ratelimit-limit-requests-day: 1000\nx-ratelimit-remaining-tokens-minute: 5\n"
      "x-ratelimit-reset-requests-day: 33011.382867");
  ExpectAllowance(cerebras, 0, AllowanceUnit::kRequests, AllowancePeriod::kDay, 1000, -1, kNow + 33011382867);
  ExpectAllowance(cerebras, 1, AllowanceUnit::kTokens, AllowancePeriod::kMinute, -1, 5, 0);
  Answer fireworks = Headers("x-ratelimit-limit-tokens-generated: 12000\nx-ratelimit-remaining-tokens-prompt: 7");
  ExpectAllowance(fireworks, 0, AllowanceUnit::kOutputTokens, AllowancePeriod::kUnknown, 12000, -1, 0);
  ExpectAllowance(fireworks, 1, AllowanceUnit::kInputTokens, AllowancePeriod::kUnknown, -1, 7, 0);
}

TEST(Answer, LeavesOutAllowancesOfOtherForms) {
  for (auto text :
       {"x-ratelimit-limit-requests: -1", "x-ratelimit-limit-requests: 1.5", "x-ratelimit-limit-requests: 10, 10;w=60",
        "x-ratelimit-limit-requests: 99999999999999999999", "x-ratelimit-limit-requests: "}) {
    Answer answer = Headers(text);
    ExpectAllowance(answer, 0, AllowanceUnit::kRequests, AllowancePeriod::kUnknown, -1, -1, 0);
  }
  for (auto text : {"x-ratelimit-over-limit: yes", "anthropic-ratelimit-unified-5h-reset: 1", "x-ratelimit-requests: 1",
                    "ratelimit-: 1", "x-limit-requests: 1", "ratelimit: 1"})
    EXPECT_EQ(Headers(text).allowance_count, 0) << text;
  std::string many;
  for (auto period : {"", "-minute", "-hour", "-day", "-month"})
    for (auto unit : {"-requests", "-tokens", "-input-tokens", "-output-tokens"})
      many += std::string("x-ratelimit-limit") + unit + period + ": 1\n";
  EXPECT_EQ(Headers(many).allowance_count, kMaxAllowances);
}

TEST(Answer, HasTheCodesOfItsError) {
  EXPECT_EQ(
      Codes(Body(R"({"error": {"message": "x", "type": "Tokens", "param": null, "code": "rate_limit_exceeded"}})")),
      "tokens rate_limit_exceeded");
  EXPECT_EQ(Codes(Body(R"({"__type": "com.amazon.coral#ThrottlingException"})")), "throttlingexception");
  EXPECT_EQ(Codes(Headers("x-amzn-ErrorType: ThrottlingException:http://internal/")), "throttlingexception");
  EXPECT_EQ(Codes(ReadAnswer({"TIMEOUT", {}, R"({"code": 7})", false}, kNow)), "timeout 7");
  EXPECT_EQ(Codes(Body("{\"code\": \"" + std::string(kMaxCodeBytes + 1, 'c') + "\", \"type\": \"\"}")), "");
  EXPECT_EQ(
      Body(R"([{"code":1},{"code":2},{"code":3},{"code":4},{"code":5},{"code":6},{"code":7},{"code":8},{"code":9}])")
          .code_count,
      kMaxCodes);
}

TEST(Answer, OfASuccessIsReadWhereItTellsAnError) {
  EXPECT_EQ(
      Codes(Body(R"({"type": "message", "status": "done", "content": [{"input": {"error": {"code": "x"}}}]})", true)),
      "");
  EXPECT_EQ(Codes(Body(R"({"type": "error", "code": "x"})", true)), "error x");
  EXPECT_EQ(Codes(Body(R"({"id": 1, "error": {"code": "x", "deep": {"type": "y"}}, "status": "z"})", true)), "x y");
  EXPECT_EQ(Codes(Body(R"({"response": {"status": "failed", "error": {"code": "x"}}, "status": "z"})", true)), "x");
  EXPECT_EQ(Codes(Body(R"({"error": null, "status": "z"})", true)), "");
  EXPECT_EQ(Codes(Body(R"({"code": "x", "message": "y", "type": "error"})", true)), "x error") << "in any order";
  EXPECT_EQ(Codes(Body(R"({"a": {"type": "error"}, "code": "x"})", true)), "");
  EXPECT_EQ(Codes(Body(R"({"id": 1, "error": "overloaded", "status": "z"})", true)), "overloaded");
}

TEST(Answer, OfASuccessMayHaveAnErrorWithoutACode) {
  auto classify = [](std::string_view body) { return Classify(nullptr, 0, 200, Body(body, true), kNow).answer_class; };
  EXPECT_EQ(classify(R"({"error": {"message": "Internal failure", "code": null}})"), AnswerClass::kServer);
  EXPECT_EQ(classify(R"({"error": "an error that takes more words than a code may have: sixty-four or so"})"),
            AnswerClass::kServer);
  for (const char *none : {R"({"error": null})", R"({"error": ""})", R"({"error": {"code": 0, "message": ""}})",
                           R"({"message": "error"})", R"({"errors": "x"})"})
    EXPECT_NE(classify(none), AnswerClass::kRate) << none;
  for (const char *none : {R"({"error": null})", R"({"error": ""})", R"({"message": "error"})", R"({"errors": "x"})"})
    EXPECT_EQ(classify(none), AnswerClass::kOk) << none;
}

TEST(ErrorRules, OfTheCallersWordsAreNotForTheProvider) {
  auto classify = [](int status, std::string_view code, std::string_view body) {
    return Classify(nullptr, 0, status, ReadAnswer({code, {}, body, status == 200}, kNow), kNow).answer_class;
  };
  for (const char *word : {"connect", "timeout", "broken", "cancelled"}) {
    std::string body = R"({"error": {"code": ")" + std::string(word) + "\"}}";
    EXPECT_EQ(classify(429, {}, body), AnswerClass::kRate) << word;
    EXPECT_EQ(classify(429, word, {}), AnswerClass::kRate) << word << ": there was an answer";
    EXPECT_EQ(classify(401, word, {}), AnswerClass::kAuth) << word;
  }
  EXPECT_EQ(classify(0, "connect", {}), AnswerClass::kUnsent);
  EXPECT_EQ(classify(200, "connect", {}), AnswerClass::kServer) << "it was sent";
  EXPECT_EQ(classify(200, "timeout", {}), AnswerClass::kServer);
  EXPECT_EQ(classify(200, "cancelled", {}), AnswerClass::kClient);
  EXPECT_EQ(classify(0, "cancelled", {}), AnswerClass::kClient);
}

TEST(Answer, TellsTheLatestTimeThatItNames) {
  EXPECT_EQ(Headers("retry-after: 7\nretry-after-ms: 6500").retry_at, kNow + 7000000);
  EXPECT_EQ(Headers("retry-after: 7\nx-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 60").retry_at,
            kNow + 7000000)
      << "that time is told";
  EXPECT_EQ(
      Headers("x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 60\nx-ratelimit-remaining-tokens: 0\n"
              "x-ratelimit-reset-tokens: 20")
          .retry_at,
      kNow + 60000000)
      << "not the smallest reset";
  EXPECT_EQ(Headers("retry-after: Thu, 26 Nov 2026 15:00:00 GMT").retry_at, kNow - 3600000000);
  EXPECT_EQ(Headers("retry-after: 0").retry_at, kNow);
  EXPECT_EQ(Body(R"({"message": "Try again in 5s. Please retry after 3 minutes, or later."})").retry_at,
            kNow + 180000000);
  EXPECT_EQ(Body(R"({"message": "try again in a while"})").retry_at, 0);
  EXPECT_EQ(Body(R"({"retry_after": 2.5})").retry_at, kNow + 2500000);
  EXPECT_EQ(Body(R"({"retryDelay": "2.5"})").retry_at, 0);
}

TEST(ErrorRules, OfOnesOwnComeFirst) {
  ErrorRule own[] = {
      {529, "", AnswerClass::kRate}, {0, "my_*", AnswerClass::kBilling}, {429, "slow*", AnswerClass::kClient}};
  auto classify = [&](int status, std::string_view code) {
    return Classify(own, 3, status, ReadAnswer({code, {}, {}, false}, kNow), kNow);
  };
  EXPECT_EQ(classify(529, "").answer_class, AnswerClass::kRate);
  EXPECT_EQ(classify(529, "").rule, 0);
  EXPECT_EQ(classify(200, "My_Code").answer_class, AnswerClass::kBilling);
  EXPECT_EQ(classify(429, "slow_down").answer_class, AnswerClass::kClient);
  EXPECT_EQ(classify(429, "").answer_class, AnswerClass::kRate);
  EXPECT_GE(classify(429, "").rule, 3);
  EXPECT_EQ(classify(204, "").rule, -1);
}

TEST(ErrorRules, NameEveryClass) {
  for (int i = 0; i < static_cast<int>(AnswerClass::kCount); ++i) {
    AnswerClass read, answer_class = static_cast<AnswerClass>(i);
    ASSERT_TRUE(ReadAnswerClass(AnswerClassName(answer_class), &read));
    EXPECT_EQ(read, answer_class);
    EXPECT_NE(NextStepName(NextStepOf(answer_class)), nullptr);
  }
  AnswerClass read;
  EXPECT_FALSE(ReadAnswerClass("teapot", &read));
}

// Each is the first that fits something.
TEST(ErrorRules, ThatAreBuiltInAreAllReached) {
  for (int i = 0; i < kBuiltInRules; ++i) {
    std::string code(BuiltInRule(i).code);
    for (size_t star = code.find('*'); star != code.npos; star = code.find('*')) code.replace(star, 1, "x");
    int status = BuiltInRule(i).status;
    Answer answer = ReadAnswer({code, {}, {}, false}, kNow);
    EXPECT_EQ(Classify(nullptr, 0, status, answer, kNow).rule, i) << code << ' ' << status;
    for (char c : BuiltInRule(i).code) EXPECT_FALSE(c >= 'A' && c <= 'Z') << code;
  }
}

// A 429 is a limit, or of what the provider says beside it: never a success.
TEST(Answer, OfGarbageNeverMakesA429ASuccess) {
  std::mt19937 random(7);
  constexpr std::string_view kPieces[] = {
      "{",     "}",          "[",    "]", "\"", ":",   ",",  "retry-after", "x-ratelimit-reset-tokens",
      "\\u00", "error",      "code", "7", "-",  "1e9", "\n", "message",     "try again in ",
      "\xff",  "99999999999"};
  for (int i = 0; i < 20000; ++i) {
    std::string texts[3];
    for (std::string &text : texts)
      for (unsigned pieces = random() % 30; pieces > 0; --pieces) text += kPieces[random() % std::size(kPieces)];
    Answer answer = ReadAnswer({texts[0], texts[1], texts[2], false}, kNow);
    AnswerClass answer_class = Classify(nullptr, 0, 429, answer, kNow).answer_class;
    ASSERT_TRUE(answer_class == AnswerClass::kRate || answer_class == AnswerClass::kExhausted)
        << texts[0] << texts[1] << texts[2];
    ASSERT_GE(answer.retry_at, 0);
  }
}

}  // namespace
}  // namespace keypool
