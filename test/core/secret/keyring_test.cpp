// keyring_test.cpp - what a keyring may hold, and that nothing of it is told or left.
#include "core/secret/keyring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "core/key_id.h"
#include "core/provider_name.h"
#include "core/secret/base64.h"

namespace keypool {
namespace {

constexpr char kKeyText[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

std::string Line(const std::string &id) { return id + ":" + kKeyText + "\n"; }

Status Parse(const std::string &text, Keyring *keyring) {
  memset(keyring, 0, sizeof(*keyring));
  return ParseKeyring(text, keyring);
}

TEST(Keyring, TheFirstIsThePrimaryAndAllAreFound) {
  Keyring keyring;
  ASSERT_TRUE(Parse("# a comment\n\n  " + Line("new") + Line("old.key_1-x"), &keyring).ok());
  EXPECT_EQ(keyring.count, 2);
  EXPECT_STREQ(keyring.keys[0].id, "new");
  EXPECT_EQ(FindMasterKey(keyring, "old.key_1-x"), &keyring.keys[1]);
  EXPECT_EQ(FindMasterKey(keyring, "ol"), nullptr);
  EXPECT_EQ(keyring.keys[0].bytes[31], 31);
}

TEST(Keyring, TakesLineEndsOfAnySystem) {
  Keyring keyring;
  EXPECT_TRUE(Parse("a:" + std::string(kKeyText) + "\r\nb:" + kKeyText, &keyring).ok());
  EXPECT_EQ(keyring.count, 2);
}

TEST(Keyring, RefusesWhatIsWrongAndNamesTheLineOnly) {
  struct {
    std::string text;
    const char *message;
  } cases[] = {
      {"", "the keyring holds no master key"},
      {"# nothing\n", "the keyring holds no master key"},
      {std::string("# one\n") + kKeyText + "\n", "line 2 of the keyring is not of the form id:base64"},
      {Line("a") + Line("a"), "line 2 of the keyring repeats an id"},
      {"a:c2hvcnQ=\n", "line 1 of the keyring does not hold 32 bytes in base64"},
      {"a:" + std::string(44, '!') + "\n", "line 1 of the keyring does not hold 32 bytes in base64"},
      {"a: " + std::string(kKeyText) + "\n", "line 1 of the keyring does not hold 32 bytes in base64"},
      {Line(""), "line 1 of the keyring has an id that is not 1 to 64 letters, digits, '.', '_', '-'"},
      {Line("a b"), "line 1 of the keyring has an id that is not 1 to 64 letters, digits, '.', '_', '-'"},
      {Line(std::string(65, 'a')),
       "line 1 of the keyring has an id that is not 1 to 64 letters, digits, '.', '_', '-'"},
  };
  for (const auto &wrong : cases) {
    Keyring keyring;
    Status status = Parse(wrong.text, &keyring);
    EXPECT_EQ(status.code, Code::kKeyring);
    EXPECT_STREQ(status.message, wrong.message);
    EXPECT_EQ(keyring.count, 0);
  }
}

TEST(Keyring, HoldsSoManyAndNoMore) {
  std::string text;
  Keyring keyring;
  for (int i = 0; i < kMaxMasterKeys; ++i) text += Line("k" + std::to_string(i));
  EXPECT_TRUE(Parse(text, &keyring).ok());
  EXPECT_EQ(Parse(text + Line("more"), &keyring).code, Code::kKeyring);
}

TEST(Keyring, IsWipedWhole) {
  Keyring keyring, empty = {};
  ASSERT_TRUE(Parse(Line("a"), &keyring).ok());
  WipeKeyring(&keyring);
  EXPECT_EQ(memcmp(&keyring, &empty, sizeof(empty)), 0);
}

TEST(Keyring, MovesAndLeavesNothing) {
  Keyring from, to, empty = {};
  ASSERT_TRUE(Parse(Line("new"), &from).ok());
  ASSERT_TRUE(Parse(Line("old"), &to).ok());
  MoveKeyring(&from, &to);
  EXPECT_STREQ(to.keys[0].id, "new");
  EXPECT_EQ(memcmp(&from, &empty, sizeof(empty)), 0);
}

TEST(Base64, IsStrict) {
  uint8_t out[64];
  size_t size = 0;
  EXPECT_TRUE(DecodeBase64("c2VjcmV0", out, &size));
  EXPECT_EQ(std::string_view(reinterpret_cast<char *>(out), size), "secret");
  EXPECT_TRUE(DecodeBase64("c2VjcmU=", out, &size));
  EXPECT_EQ(size, 5u);
  EXPECT_TRUE(DecodeBase64("cw==", out, &size));
  EXPECT_EQ(size, 1u);
  for (const char *wrong : {"", "c2Vj\n", " c2V", "c2V", "c2Vjc", "====", "c===", "c2=j", "c2V-", "c2VjcmU=c2Vj"})
    EXPECT_FALSE(DecodeBase64(wrong, out, &size)) << wrong;
}

TEST(KeyId, StartsWithTheHashOfTheProviderAndIsVersion8) {
  const uint8_t random[kKeyIdRandomBytes] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  KeyId id;
  ASSERT_TRUE(MakeKeyId("openai", random, &id).ok());
  const uint8_t expected[16] = {0x7d, 0x31, 0x94, 0xf7, 0xff, 0xff, 0x8f, 0xff,
                                0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  EXPECT_EQ(memcmp(id.bytes, expected, 16), 0);
}

TEST(ProviderName, IsOneTo255BytesWithoutControlCharacters) {
  EXPECT_TRUE(CheckProviderName("openai").ok());
  EXPECT_TRUE(CheckProviderName("Ünïcode \xe2\x82\xac").ok());
  EXPECT_TRUE(CheckProviderName(std::string(255, 'x')).ok());
  for (const std::string &wrong :
       {std::string(), std::string(256, 'x'), std::string("a\nb"), std::string("a\x7f"), std::string(1, '\0')})
    EXPECT_EQ(CheckProviderName(wrong).code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace keypool
