// account_test.cpp - accounts are paths of whole segments.
#include "core/quota/account.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

TEST(Account, IsAPathOfSegments) {
  for (const char *account : {"a", "org-1", "org-1/proj-a", "a/b/c/d", "two words/and more", "\xc3\xa4/\xc3\xb6"})
    EXPECT_TRUE(CheckAccount(account).ok()) << account;
  EXPECT_TRUE(CheckAccount(std::string(kMaxAccountBytes, 'x')).ok());
}

TEST(Account, RefusesWhatIsNone) {
  for (const char *account : {"", "/", "/a", "a/", "a//b", " a", "a ", "a/ b", "a /b", "a\tb", "a\nb", "a\x7f"})
    EXPECT_EQ(CheckAccount(account).code, Code::kInvalidArgument) << account;
  EXPECT_FALSE(CheckAccount(std::string(kMaxAccountBytes + 1, 'x')).ok());
  EXPECT_FALSE(CheckAccount(std::string_view("a\0b", 3)).ok());
}

TEST(Account, CoversItselfAndWhatIsBelowItBySegments) {
  EXPECT_TRUE(Covers("org-1", "org-1"));
  EXPECT_TRUE(Covers("org-1", "org-1/proj-a"));
  EXPECT_TRUE(Covers("org-1/proj-a", "org-1/proj-a/x"));
  EXPECT_FALSE(Covers("org-1", "org-10"));
  EXPECT_FALSE(Covers("org-1", "org-10/proj-a"));
  EXPECT_FALSE(Covers("org-1/proj-a", "org-1"));
  EXPECT_FALSE(Covers("org-1/proj", "org-1/proj-a"));
  EXPECT_FALSE(Covers("proj-a", "org-1/proj-a"));
}

}  // namespace
}  // namespace keypool
