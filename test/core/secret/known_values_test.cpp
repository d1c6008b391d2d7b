// known_values_test.cpp - a value that is known is found in any text, however it is escaped there.
#include "core/secret/known_values.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

std::string Hidden(const KnownValues &values, std::string text) {
  text.resize(values.Hide(text.data(), text.size()));
  return text;
}

TEST(KnownValues, HidesWhereverAValueOccurs) {
  KnownValues values;
  values.Remember("sk-secret-1");
  EXPECT_EQ(Hidden(values, "got sk-secret-1, \"sk-secret-1\" and <sk-secret-1/>"), "got ***, \"***\" and <***>");
  EXPECT_EQ(Hidden(values, "nothing of sk-secret"), "nothing of sk-secret");
  EXPECT_EQ(Hidden(values, "sk-secret-1"), "***");
}

TEST(KnownValues, NeedsNoFormatToBeKnown) {
  KnownValues values;
  values.Remember("half-a-secret'\"\\<&>\nand-its-other-half");
  for (const char *text :
       {"half-a-secret''\"\\<&>\nand-its-other-half", "half-a-secret'\\\"\\\\<&>\\nand-its-other-half",
        "half-a-secret'\"\"\\<&>\nand-its-other-half", "half-a-secret'\"\\&lt;&amp;&gt;\nand-its-other-half"}) {
    std::string hidden = Hidden(values, text);
    EXPECT_EQ(hidden.find("half"), std::string::npos) << hidden;
  }
}

TEST(KnownValues, HidesAllOfALongOneThoughItKeepsLittle) {
  KnownValues values;
  values.Remember("sk-" + std::string(8000, 'a') + "-end");
  EXPECT_EQ(Hidden(values, "'sk-" + std::string(8000, 'a') + "-end'"), "'***'");
  EXPECT_EQ(Hidden(values, "cut off: 'sk-" + std::string(40, 'a') + "..."), "cut off: '***");
}

TEST(KnownValues, LooksForNoShortWord) {
  KnownValues values;
  values.Remember("a DROP TABLE");
  EXPECT_TRUE(values.empty());
}

TEST(KnownValues, KeepsTheNewest) {
  KnownValues values;
  for (int i = 100; i < 200; ++i) values.Remember("sk-secret-" + std::to_string(i));
  EXPECT_EQ(Hidden(values, "sk-secret-199 sk-secret-136 sk-secret-135"), "*** *** sk-secret-135");
}

TEST(KnownValues, KeepsNothingThatWasWiped) {
  KnownValues values;
  values.Remember("sk-secret-1");
  values.Wipe();
  EXPECT_TRUE(values.empty());
  EXPECT_EQ(Hidden(values, "sk-secret-1"), "sk-secret-1");
  std::string bytes(reinterpret_cast<const char *>(&values), sizeof(values));
  EXPECT_EQ(bytes.find("secret"), std::string::npos);
}

}  // namespace
}  // namespace keypool
