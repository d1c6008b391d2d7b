// answer_fuzzer.cpp - any bytes as a provider's answer: its times are in range, its codes are clean, and a 429 stays
// one.
#include <cstdlib>
#include <cstring>

#include "core/provider/error_rules.h"
#include "core/provider/moments.h"

using namespace keypool;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  constexpr TimeUs kNow = TimeUs{1795708800} * kMicrosPerSecond;
  if (size == 0) return 0;
  bool succeeded = data[0] % 2 != 0;
  std::string_view text(reinterpret_cast<const char *>(data) + 1, size - 1);
  // Headers, the body and the code, divided by bytes that none of them has.
  size_t headers = text.find('\x01'), body = headers == text.npos ? text.npos : text.find('\x01', headers + 1);
  AnswerTexts texts = {};
  texts.headers = text.substr(0, headers);
  if (headers != text.npos) texts.body = text.substr(headers + 1, body == text.npos ? body : body - headers - 1);
  if (body != text.npos) texts.error_code = text.substr(body + 1);
  texts.succeeded = succeeded;
  Answer answer = ReadAnswer(texts, kNow);
  if (answer.retry_at < 0 || answer.code_count > kMaxCodes || answer.allowance_count > kMaxAllowances) abort();
  for (int i = 0; i < answer.code_count; ++i)
    for (char c : answer.code_at(i))
      if (c >= 'A' && c <= 'Z') abort();
  for (int i = 0; i < answer.allowance_count; ++i) {
    const Allowance &one = answer.allowance[i];
    if (one.limit < -1 || one.remaining < -1 || one.reset < 0) abort();
  }
  AnswerClass of_429 = Classify(nullptr, 0, 429, answer, kNow).answer_class;
  if (of_429 == AnswerClass::kOk) abort();
  return 0;
}
