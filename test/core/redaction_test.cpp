// redaction_test.cpp - no constant is left in the text of a statement, and all else is.
#include "core/redaction.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

std::string Redacted(std::string text, bool backslashes = false) {
  text.resize(RedactConstants(text.data(), text.size(), backslashes));
  return text;
}

TEST(Redaction, HidesConstantsAndKeepsTheRest) {
  EXPECT_EQ(Redacted("SELECT keypool_add_key('p', 'a', 'sk-secret', max_rpm => 10)"),
            "SELECT keypool_add_key('*', '*', '***', max_rpm => 10)");
  EXPECT_EQ(Redacted("SELECT ''"), "SELECT ''");
  EXPECT_EQ(Redacted("duration: 1.2 ms  statement: INSERT INTO t VALUES ('sk', $1)"),
            "duration: 1.2 ms  statement: INSERT INTO t VALUES ('**', $1)");
  EXPECT_EQ(Redacted("parameters: $1 = 'it''s', $2 = NULL, $3 = '7'"), "parameters: $1 = '***', $2 = NULL, $3 = '*'");
  EXPECT_EQ(Redacted("no constant at all"), "no constant at all");
  EXPECT_EQ(Redacted(""), "");
}

TEST(Redaction, FindsTheEndOfAConstantAsPostgresqlDoes) {
  EXPECT_EQ(Redacted("f('it''s', 'secret')"), "f('***', '***')");
  EXPECT_EQ(Redacted("f('back\\', 'secret')"), "f('***', '***')");
  EXPECT_EQ(Redacted("f(E'quo\\'te', 'secret')"), "f(E'***', '***')");
  EXPECT_EQ(Redacted("f(e'quo\\'te', 'secret')"), "f(e'***', '***')");
  EXPECT_EQ(Redacted("f(date'back\\', 'secret')"), "f(date'***', '***')");
  EXPECT_EQ(Redacted("f('quo\\'te', 'secret')", true), "f('***', '***')");
  EXPECT_EQ(Redacted("f('never ends, secret"), "f('***");
  EXPECT_EQ(Redacted("f(E'never ends\\"), "f(E'***");
  EXPECT_EQ(Redacted("'"), "'");
}

TEST(Redaction, IsNotMisledByQuotesThatBeginNoConstant) {
  EXPECT_EQ(Redacted("SELECT \"it's\", 'secret'"), "SELECT \"it's\", '***'");
  EXPECT_EQ(Redacted("-- it's\nf('secret')"), "-- it's\nf('***')");
  EXPECT_EQ(Redacted("/* it's /* nested */ it's */ f('secret')"), "/* it's /* nested */ it's */ f('***')");
  EXPECT_EQ(Redacted("/* never ends 'x'"), "/* never ends 'x'");
}

TEST(Redaction, HidesDollarQuotesButReadsBodies) {
  EXPECT_EQ(Redacted("f($$sk's secret$$, 'x')"), "f($$***$$, '*')");
  EXPECT_EQ(Redacted("f($tag$a $$ b$tag$, 'x')"), "f($tag$***$tag$, '*')");
  EXPECT_EQ(Redacted("f($1, a$b$c, 'secret')"), "f($1, a$b$c, '***')");
  EXPECT_EQ(Redacted("f($$never ends"), "f($$***");
  EXPECT_EQ(Redacted("DO $$BEGIN PERFORM f('secret', $x$secret$x$); END$$; SELECT 'x'"),
            "DO $$BEGIN PERFORM f('***', $x$***$x$); END$$; SELECT '*'");
  EXPECT_EQ(Redacted("do language plpgsql $$BEGIN f('secret'); END$$"), "do language plpgsql $$BEGIN f('***'); END$$");
  EXPECT_EQ(Redacted("CREATE FUNCTION f() RETURNS void AS $f$ BEGIN PERFORM g('secret'); END $f$ LANGUAGE plpgsql"),
            "CREATE FUNCTION f() RETURNS void AS $f$ BEGIN PERFORM g('***'); END $f$ LANGUAGE plpgsql");
  EXPECT_EQ(Redacted("f('secret') AS x, $$secret$$"), "f('***') AS x, $$***$$");
}

TEST(Redaction, OfWhatIsRedactedChangesNothing) {
  for (const char *text : {"f('secret', E'a\\'b', $$c$$)", "DO $$ 'a' ' $$ '", "$a$ $b$ $a$ ' \" -- /* "}) {
    std::string once = Redacted(text);
    EXPECT_EQ(Redacted(once), once) << text;
  }
}

}  // namespace
}  // namespace keypool
