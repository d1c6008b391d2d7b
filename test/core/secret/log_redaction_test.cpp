// log_redaction_test.cpp - no constant is left in an entry of the log, whoever wrote it and in which format.
#include "core/secret/log_redaction.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

std::string Known(std::string text, std::string_view statement = {}) {
  size_t size = text.size();
  if (!RedactKnownShape(text.data(), &size, statement)) return "unknown";
  text.resize(size);
  return text;
}

std::string Doubtful(std::string text) {
  text.resize(RedactDoubtful(text.data(), text.size()));
  return text;
}

std::string QuotedInput(std::string text) {
  text.resize(RedactQuotedInput(text.data(), text.size()));
  return text;
}

TEST(LogRedaction, FindsTheRunningStatementAtTheEnd) {
  EXPECT_EQ(Known("duration: 1.2 ms  execute it's/it''s: SELECT 'secret'", "SELECT 'secret'"),
            "duration: 1.2 ms  execute it's/it''s: SELECT '***'");
  EXPECT_EQ(Known("statement: SELECT 'secret'", "SELECT 'other'"), "unknown");
}

TEST(LogRedaction, HidesParameters) {
  EXPECT_EQ(Known("parameters: $1 = 'it''s', $2 = NULL, $3 = '7'"), "parameters: $1 = '***', $2 = NULL, $3 = '*'");
  EXPECT_EQ(Known("Parameters: $1 = 'back\\', $2 = 'secret'"), "Parameters: $1 = '***");
}

// What is longer than an entry may be is cut off anywhere.
TEST(LogRedaction, HidesInWhatIsCutOff) {
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('a', \"\"it's\"\", 'secret', "),
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('*', \"\"it's\"\", '***', ");
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ,SELECT,,,\""), "AUDIT: SESSION,1,1,READ,SELECT,,,\"");
  EXPECT_EQ(Known("duration: 1 ms  plan:\nQuery Text: \"SELECT \\\"it's\\\", 'secret', "),
            "duration: 1 ms  plan:\nQuery Text: \"SELECT \\\"it's\\\", '***', ");
  EXPECT_EQ(Known("duration: 1 ms  plan:\n{\n \"Query Text\": \"SELECT \\\"it's\\\", 'secret', "),
            "duration: 1 ms  plan:\n{\n \"Query Text\": \"SELECT \\\"it's\\\", '***', ");
  EXPECT_EQ(Known("duration: 1 ms  plan:\n<explain><Query-Text>SELECT 'secret', "),
            "duration: 1 ms  plan:\n<explain><Query-Text>SELECT '***', ");
}

constexpr const char *kHeader = "duration: 0.012 ms  plan:\n";

TEST(LogRedaction, ReadsPlansAsText) {
  EXPECT_EQ(Known(std::string(kHeader) + "Query Text: SELECT f('secret') -- it's\nResult  (cost=0.00..0.01 rows=1 "
                                         "width=4)\n  Output: f('secret'::text)\nit's 'more'::text)"),
            std::string(kHeader) +
                "Query Text: SELECT f('***') -- it's\nResult  (cost=0.00..0.01 rows=1 width=4)\n"
                "  Output: f('***'::text)");
  EXPECT_EQ(Known(std::string(kHeader) + "Query Text: \"it's\" || 'secret'\nResult  (cost=0.00..0.01 rows=1)"),
            std::string(kHeader) + "Query Text: \"it's\" || '***'\nResult  (cost=0.00..0.01 rows=1)");
  EXPECT_EQ(Known(std::string(kHeader) + "Query Text: SELECT '\nx  (cost=1', 'secret'\nQuery Parameters: $1 = 'x'"),
            std::string(kHeader) + "Query Text: SELECT '***', '***'\nQuery Parameters: $1 = '*'");
}

TEST(LogRedaction, ReadsPlansAsJson) {
  EXPECT_EQ(Known(std::string(kHeader) + R"json({
  "Query Text": "SELECT \"it's\", f('sec\"ret', E'\\'')\n-- it's",
  "Query Parameters": "$1 = 'secret', $2 = 'secret'",
  "Plan": {
    "Node Type": "Result",
    "Output": ["f('secret'::text)", "x"],
    "Filter": "(y = 'it''s \"secret\" \\ '::text)"
}
})json"),
            std::string(kHeader) + R"json({
  "Query Text": "SELECT \"it's\", f('***', E'**')\n-- it's",
  "Query Parameters": "$1 = '***'",
  "Plan": {
    "Node Type": "Result",
    "Output": ["f('***'::text)", "x"],
    "Filter": "(y = '***'::text)"
}
})json");
}

TEST(LogRedaction, ReadsPlansAsYaml) {
  EXPECT_EQ(Known(std::string(kHeader) + "Query Text: \"SELECT \\\"it's\\\", f('secret')\"\nPlan: \n"
                                         "  Node Type: \"Result\"\n  Output: \n    - \"f('secret'::text)\""),
            std::string(kHeader) +
                "Query Text: \"SELECT \\\"it's\\\", f('***')\"\nPlan: \n"
                "  Node Type: \"Result\"\n  Output: \n    - \"f('***'::text)\"");
}

TEST(LogRedaction, ReadsPlansAsXml) {
  EXPECT_EQ(Known(std::string(kHeader) + "<explain xmlns=\"x\">\n  <Query-Text>SELECT \"it's\" &lt; '&lt;secret&gt;'"
                                         "</Query-Text>\n<Item>f('secret'::text)</Item></explain>"),
            std::string(kHeader) +
                "<explain xmlns=\"x\">\n  <Query-Text>SELECT \"it's\" &lt; '***'</Query-Text>\n"
                "<Item>f('***'::text)</Item></explain>");
}

TEST(LogRedaction, ReadsPgaudit) {
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('a', \"\"it's\"\", 'secret')\",\"a,\"\"s,ecret\"\"\""),
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('*', \"\"it's\"\", '***')\",***");
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ,SELECT,TABLE,a.b,SELECT f('secret'),sk-secret,7"),
            "AUDIT: SESSION,1,1,READ,SELECT,TABLE,a.b,SELECT f('***'),***,7");
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ,SELECT,,,SELECT f('secret'),<not logged>"),
            "AUDIT: SESSION,1,1,READ,SELECT,,,SELECT f('***'),<not logged>");
  EXPECT_EQ(Known("AUDIT: SESSION,1,1,READ"), "AUDIT: SESSION,1,1,READ");
}

TEST(LogRedaction, HidesInDoubtEverythingFromTheFirstQuoteOn) {
  EXPECT_EQ(Doubtful("Process 1: INSERT INTO t VALUES ('secret', $1); 'more"), "Process 1: INSERT INTO t VALUES ('***");
  EXPECT_EQ(Doubtful("SELECT $1, $tag$secret$tag$"), "SELECT $1, $***");
  EXPECT_EQ(Doubtful("   {QUERY \n   :constvalue 8 [ 115 107 ]}"), "***");
  EXPECT_EQ(Doubtful("(\n   {RAWSTMT :val \"secret\"})"), "***");
  EXPECT_EQ(Doubtful("permission denied for table provider_keys"), "permission denied for table provider_keys");
}

TEST(LogRedaction, HidesInputThatAnErrorQuotes) {
  EXPECT_EQ(QuotedInput("invalid input syntax for type integer: \"sk-secret\""),
            "invalid input syntax for type integer: ***");
  EXPECT_EQ(QuotedInput("ung\xc3\xbcltige Eingabe \xc2\xbbsk-secret\xc2\xab"), "ung***");
  EXPECT_EQ(QuotedInput("key_value must not be empty"), "key_value must not be empty");
}

}  // namespace
}  // namespace keypool
