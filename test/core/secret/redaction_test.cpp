// redaction_test.cpp - no constant is left in the text of a statement, and all else is.
#include "core/secret/redaction.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

std::string Redacted(std::string text) {
  text.resize(RedactConstants(text.data(), text.size()).written);
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
  EXPECT_EQ(Redacted("f(E'quo\\'te', 'secret')"), "f(E'***', '***')");
  EXPECT_EQ(Redacted("f(e'quo\\'te', 'secret')"), "f(e'***', '***')");
  EXPECT_EQ(Redacted("f(date'back', 'secret')"), "f(date'***', '***')");
  EXPECT_EQ(Redacted("f('never ends, secret"), "f('***");
  EXPECT_EQ(Redacted("f(E'never ends\\"), "f(E'***");
  EXPECT_EQ(Redacted("'"), "'");
}

// Where standard_conforming_strings decides what is a constant, a text does not tell what was set.
TEST(Redaction, HidesToTheEndWhereABackslashMayEscapeAQuote) {
  EXPECT_EQ(Redacted("f('back\\', 'secret')"), "f('***");
  EXPECT_EQ(Redacted("f('quo\\'te', 'secret')"), "f('***");
  EXPECT_EQ(Redacted("f('two\\\\', 'secret')"), "f('***', '***')");
  EXPECT_EQ(Redacted("f('C:\\dir', 'secret')"), "f('***', '***')");
  EXPECT_EQ(Redacted("f(E'a'\n'\\'secret')"), "f(E'*'\n'***");
  EXPECT_EQ(Redacted("DO $$ f('a\\', 'secret') $$, x"), "DO $$ f('***$$, x");
}

TEST(Redaction, IsNotMisledByQuotesThatBeginNoConstant) {
  EXPECT_EQ(Redacted("SELECT \"it's\", 'secret'"), "SELECT \"it's\", '***'");
  EXPECT_EQ(Redacted("-- it's\nf('secret')"), "-- it's\nf('***')");
  EXPECT_EQ(Redacted("/* it's /* nested */ it's */ f('secret')"), "/* it's /* nested */ it's */ f('***')");
  EXPECT_EQ(Redacted("/* never ends 'x'"), "/* never ends 'x'");
}

TEST(Redaction, HidesWhatFollowsAnIdentifierWithoutAnEnd) {
  EXPECT_EQ(Redacted("f(\"p, 'a', 'secret')"), "f(\"***");
  EXPECT_EQ(Redacted("DO $$ f(\"p, 'a', 'secret') $$, 'x'"), "DO $$ f(\"***$$, '*'");
  EXPECT_EQ(Redacted("\""), "\"");
}

TEST(Redaction, HidesDollarQuotesButReadsBodies) {
  EXPECT_EQ(Redacted("f($$sk's secret$$, 'x')"), "f($$***$$, '*')");
  EXPECT_EQ(Redacted("f($tag$a $$ b$tag$, 'x')"), "f($tag$***$tag$, '*')");
  EXPECT_EQ(Redacted("f($1, a$b$c, 'secret')"), "f($1, a$b$c, '***')");
  EXPECT_EQ(Redacted("f(1$tag$secret$tag$, $1$$secret$$)"), "f(1$tag$***$tag$, $1$$***$$)");
  EXPECT_EQ(Redacted("f($$never ends"), "f($$***");
  EXPECT_EQ(Redacted("DO $$BEGIN PERFORM f('secret', $x$secret$x$); END$$; SELECT 'x'"),
            "DO $$BEGIN PERFORM f('***', $x$***$x$); END$$; SELECT '*'");
  EXPECT_EQ(Redacted("do language plpgsql $$BEGIN f('secret'); END$$"), "do language plpgsql $$BEGIN f('***'); END$$");
  EXPECT_EQ(Redacted("CREATE FUNCTION f() RETURNS void AS $f$ BEGIN PERFORM g('secret'); END $f$ LANGUAGE plpgsql"),
            "CREATE FUNCTION f() RETURNS void AS $f$ BEGIN PERFORM g('***'); END $f$ LANGUAGE plpgsql");
  EXPECT_EQ(Redacted("f('secret') AS x, $$secret$$"), "f('***') AS x, $$***$$");
}

TEST(Redaction, ReadsNoBodyWithinABody) {
  EXPECT_EQ(Redacted("DO $a$ f('secret'); DO $b$ SELECT 1 $b$ $a$"), "DO $a$ f('***'); DO $b$***$b$ $a$");
}

TEST(Redaction, HidesBodiesInOtherLanguages) {
  EXPECT_EQ(Redacted("DO LANGUAGE plpython3u $$f(\"secret\")$$; DO $$BEGIN f(); END$$"),
            "DO LANGUAGE plpython3u $$***$$; DO $$BEGIN f(); END$$");
  EXPECT_EQ(Redacted("DO $$f(\"secret\")$$ LANGUAGE plpython3u"), "DO $$***$$ LANGUAGE plpython3u");
  EXPECT_EQ(Redacted("CREATE FUNCTION f() RETURNS int AS $f$\"secret\"$f$ LANGUAGE \"plperl\" STABLE"),
            "CREATE FUNCTION f() RETURNS int AS $f$***$f$ LANGUAGE \"plperl\" STABLE");
  EXPECT_EQ(Redacted("DO $$f(\"secret\")$$ LANGUAGE 'plpython3u'"), "DO $$***$$ LANGUAGE '***'");
  EXPECT_EQ(Redacted("DO $$BEGIN f('secret'); END$$ LANGUAGE plpgsql"), "DO $$BEGIN f('***'); END$$ LANGUAGE plpgsql");
}

TEST(Redaction, KnowsWhatSecretsAreGivenTo) {
  EXPECT_TRUE(NamesSecret("SELECT keypool_add_key('p')"));
  EXPECT_TRUE(NamesSecret("SELECT keypool_set_secret($1, $2)"));
  EXPECT_TRUE(NamesSecret("SELECT keypool_update_key($1, $2)"));
  EXPECT_TRUE(NamesSecret("SELECT * FROM keypool_report($1, $2, 401)"));
  EXPECT_TRUE(NamesSecret("SELECT * FROM keypool_explain_answer('p', 401)"));
  EXPECT_TRUE(NamesSecret("insert into KEYPOOL.Provider_Keys"));
  EXPECT_TRUE(NamesSecret("_provider_keys_"));
  EXPECT_FALSE(NamesSecret("SELECT keypool_select($1), provider_key"));
  EXPECT_FALSE(NamesSecret("keypool_add_ke"));
  EXPECT_FALSE(NamesSecret(""));
}

TEST(Redaction, FindsExecuteAnywhere) {
  for (const char *text : {"EXECUTE add('secret')", "explain (analyze) execute add('secret')",
                           "SELECT 1;execute\"a\"(1)", "CREATE TABLE t AS Execute", "/* a */EXECUTE/* b */add"})
    EXPECT_TRUE(NamesExecute(text)) << text;
  for (const char *text : {"", "SELECT executed, execute_, $execute FROM t", "execut", "re_execute"})
    EXPECT_FALSE(NamesExecute(text)) << text;
}

TEST(Redaction, StopsWhereTheStatementEnds) {
  std::string text = "SELECT '\nend', $$\nend$$ -- it's\nend 'of it'";
  Redaction done = RedactUntil(text.data(), text.size(), [](std::string_view rest) { return rest.starts_with("end"); });
  EXPECT_EQ(text.substr(0, done.written), "SELECT '***', $$***$$ -- it's\n");
  EXPECT_EQ(text.substr(done.read), "end 'of it'");
}

TEST(Redaction, TellsEveryConstant) {
  std::string all;
  auto add = [](void *list, std::string_view constant) {
    *static_cast<std::string *>(list) += std::string(constant) + "|";
  };
  ForEachConstant("f('a''b', $$c$$); DO $x$ f('d') $x$; f('never", add, &all);
  EXPECT_EQ(all, "a''b|c|d|never|");
}

// A million bytes of what has cost more than its length: nesting, tags without an end, tags that are alike.
TEST(Redaction, LooksAtEachByteAFewTimesAtMost) {
  for (const char *part :
       {"do $a1$ ", "do $a$ $b$ ", "$", "$a", "$a ", "$$", "$a$b", "do $$;", "/*", "*/", "'", "\\'", "\"", "'$$",
        "do $$ $$ language x ", "do$$a$$language x\n", "as 'x' language y ", "\n", "--"}) {
    std::string text;
    while (text.size() < 1'000'000) text += part;
    Redaction done = RedactUntil(text.data(), text.size(), [](std::string_view) { return false; });
    EXPECT_EQ(done.read, text.size()) << part;
    EXPECT_LE(done.looked_at, kMaxLooks * text.size()) << part;
  }
  std::string nested;
  for (int i = 0; i < 60'000; ++i) nested += "do $a" + std::to_string(i) + "$ ";
  EXPECT_LE(RedactConstants(nested.data(), nested.size()).looked_at, kMaxLooks * nested.size());
}

TEST(Redaction, OfWhatIsRedactedChangesNothing) {
  for (const char *text :
       {"f('secret', E'a\\'b', $$c$$)", "DO $$ 'a' ' $$ '", "'a' \"b 'c'", "$a$ $b$ $a$ ' \" -- /* "}) {
    std::string once = Redacted(text);
    EXPECT_EQ(Redacted(once), once) << text;
  }
}

}  // namespace
}  // namespace keypool
