// model_pattern_test.cpp - shell patterns over models' names, and whether two of them have a model in common.
#include "core/quota/model_pattern.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <string>

namespace keypool {
namespace {

// By all ways in which the star can take.
bool PlainMatches(std::string_view pattern, std::string_view model) {
  if (pattern.empty()) return model.empty();
  if (pattern[0] == '*')
    return PlainMatches(pattern.substr(1), model) || (!model.empty() && PlainMatches(pattern, model.substr(1)));
  return !model.empty() && (pattern[0] == '?' || pattern[0] == model[0]) &&
         PlainMatches(pattern.substr(1), model.substr(1));
}

std::string RandomText(std::mt19937 *random, const char *alphabet, size_t max) {
  std::string text;
  size_t size = 1 + (*random)() % max;
  for (size_t i = 0; i < size; ++i) text += alphabet[(*random)() % strlen(alphabet)];
  return text;
}

TEST(ModelPattern, IsAShellPatternOverTheWholeName) {
  EXPECT_TRUE(Matches("gpt-4o*", "gpt-4o"));
  EXPECT_TRUE(Matches("gpt-4o*", "gpt-4o-mini"));
  EXPECT_FALSE(Matches("gpt-4o", "gpt-4o-mini"));
  EXPECT_FALSE(Matches("gpt-4o*", "chatgpt-4o"));
  EXPECT_TRUE(Matches("*opus*", "claude-opus-4"));
  EXPECT_TRUE(Matches("claude-?-4", "claude-x-4"));
  EXPECT_FALSE(Matches("claude-?-4", "claude-xy-4"));
  EXPECT_TRUE(Matches("*", "anything"));
  EXPECT_TRUE(Matches("a[b]c\\", "a[b]c\\")) << "all else stands for itself";
  EXPECT_FALSE(Matches("GPT", "gpt"));
}

TEST(ModelPattern, QuestionMarkTakesOneCharacterOfUtf8) {
  EXPECT_TRUE(Matches("a?c",
                      "a\xc3\xa4"
                      "c"));
  EXPECT_TRUE(Matches("?", "\xf0\x9f\x98\x80"));
  EXPECT_FALSE(Matches("??", "\xc3\xa4"));
  EXPECT_TRUE(Matches("*\xc3\xa4", "x\xc3\xa4"));
  EXPECT_FALSE(Matches("\xc3", "\xc3\xa4"));
  EXPECT_TRUE(Matches("?\xffz", "\x80\xffz")) << "bytes that are no UTF-8";
}

TEST(ModelPattern, AgreesWithAPlainOne) {
  std::mt19937 random(21);
  int matched = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string pattern = RandomText(&random, "ab*?", 8), model = RandomText(&random, "ab", 8);
    ASSERT_EQ(Matches(pattern, model), PlainMatches(pattern, model)) << pattern << " " << model;
    matched += Matches(pattern, model);
  }
  EXPECT_GT(matched, 10000);
}

TEST(ModelPattern, IsQuickOnWhatTakesOthersForEver) {
  std::string pattern, model(kMaxModelBytes, 'a');
  for (int i = 0; i < 127; ++i) pattern += "*a";
  EXPECT_TRUE(Matches(pattern, model));
  EXPECT_FALSE(Matches(pattern + "b", model));
  EXPECT_TRUE(Overlap(pattern, pattern));
}

TEST(Overlap, IsWhetherSomeModelMatchesBoth) {
  EXPECT_TRUE(Overlap("gpt-*", "*-mini"));
  EXPECT_TRUE(Overlap("gpt-4o", "gpt-4?"));
  EXPECT_FALSE(Overlap("gpt-4o", "gpt-4"));
  EXPECT_FALSE(Overlap("gpt-*", "claude-*"));
  EXPECT_FALSE(Overlap("a?", "?"));
  EXPECT_TRUE(Overlap("?", "\xc3\xa4"));
  EXPECT_FALSE(Overlap("??", "\xc3\xa4"));
  EXPECT_TRUE(Overlap("*", "*"));
}

TEST(Overlap, IsNotWhereTheModelWouldBeTooLong) {
  std::string a(200, 'a'), b(200, 'b');
  EXPECT_FALSE(Overlap(a + "*", "*" + b));
  EXPECT_TRUE(Overlap(a + "*", "*" + b.substr(0, 55)));
  EXPECT_FALSE(Overlap(a + "*", "*" + b.substr(0, 56)));
}

TEST(Overlap, AgreesWithTryingAllModels) {
  std::set<std::string> models = {""};
  for (int size = 0; size < 6; ++size)
    for (const std::string &model : std::set<std::string>(models))
      for (char c : {'a', 'b'}) models.insert(model + c);
  models.erase("");
  std::mt19937 random(22);
  int overlaps = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string a = RandomText(&random, "ab*?", 4), b = RandomText(&random, "ab*?", 4);
    bool some = false;
    for (const std::string &model : models) some = some || (PlainMatches(a, model) && PlainMatches(b, model));
    ASSERT_EQ(Overlap(a, b), some) << a << " " << b;
    ASSERT_EQ(Overlap(b, a), some);
    overlaps += some;
  }
  EXPECT_GT(overlaps, 500);
  EXPECT_LT(overlaps, 4500);
}

TEST(ModelPattern, IsCheckedAndSoIsAModel) {
  for (auto check : {CheckPattern, CheckModel}) {
    EXPECT_TRUE(check("gpt-4o").ok());
    EXPECT_TRUE(check(std::string(255, 'x')).ok());
    EXPECT_EQ(check("").code, Code::kInvalidArgument);
    EXPECT_EQ(check(std::string(256, 'x')).code, Code::kInvalidArgument);
    EXPECT_EQ(check("a\nb").code, Code::kInvalidArgument);
    EXPECT_EQ(check(std::string_view("a\0b", 3)).code, Code::kInvalidArgument);
  }
}

TEST(ModelHash, TellsModelsApartAndIsNeverNone) {
  std::set<uint32_t> hashes;
  for (int i = 0; i < 20000; ++i) hashes.insert(ModelHash("model-" + std::to_string(i)));
  EXPECT_GE(hashes.size(), 19998u);
  EXPECT_EQ(hashes.count(0), 0u);
}

}  // namespace
}  // namespace keypool
