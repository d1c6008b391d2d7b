// header_reader_test.cpp - the fields of a header, from a JSON object or from lines.
#include "core/provider/header_reader.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

std::string Read(std::string_view headers) {
  std::string fields;
  HeaderReader reader(headers);
  for (HeaderField field; reader.Next(&field);)
    fields += (fields.empty() ? "" : ", ") + std::string(field.name) + "=" + std::string(field.value);
  return fields;
}

TEST(HeaderReader, ReadsAJsonObject) {
  EXPECT_EQ(Read(R"({"Retry-After": "20", "X-RateLimit-Limit-Requests": 60})"),
            "retry-after=20, x-ratelimit-limit-requests=60");
  EXPECT_EQ(Read(R"( {"a": ["1", "2"], "b": []})"), "a=1, a=2") << "as Java and Go give them";
  EXPECT_EQ(Read(R"({"a": " 1 ", "b": null, "c": true, "d": {"e": {"f": "deep"}}, "g": "2"})"), "a=1, g=2");
  EXPECT_EQ(Read("{}"), "");
}

TEST(HeaderReader, ReadsLines) {
  EXPECT_EQ(Read("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 20\r\nDate:Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"),
            "retry-after=20, date=Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(Read("a:1\nb : 2"), "a=1, b=2");
  EXPECT_EQ(Read(": 1\n:\na:"), "a=");
  EXPECT_EQ(Read(""), "");
}

TEST(HeaderReader, LeavesOutWhatNobodyReads) {
  std::string name(kMaxHeaderName + 1, 'n');
  EXPECT_EQ(Read("{\"" + name + "\": 1, \"b\": 2}"), "b=2");
  EXPECT_EQ(Read(name + ": 1\nb: 2"), "b=2");
  EXPECT_EQ(Read("[[\"retry-after\", \"20\"]]"), "") << "neither form";
  EXPECT_EQ(Read("{\"a\": 1, garbage\xff: 2, \"c\": 3}"), "a=1");
}

}  // namespace
}  // namespace keypool
