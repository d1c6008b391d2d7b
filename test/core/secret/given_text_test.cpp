// given_text_test.cpp - what is cut from a secret, and what neither a secret nor a name may hold.
#include "core/secret/given_text.h"

#include <gtest/gtest.h>

#include <string>

#include "core/provider_name.h"
#include "core/secret/envelope.h"

namespace keypool {
namespace {

std::string Utf8(uint32_t code) {
  auto byte = [](uint32_t bits) { return static_cast<char>(bits); };
  auto tail = [&](int shift) { return byte(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xc0 | code >> 6), tail(0)};
  if (code < 0x10000) return {byte(0xe0 | code >> 12), tail(6), tail(0)};
  return {byte(0xf0 | code >> 18), tail(12), tail(6), tail(0)};
}

// The message, or "ok".
std::string Secret(std::string_view secret) {
  Status status = CheckGivenSecret(secret);
  return status.ok() ? "ok" : status.message;
}
std::string Name(std::string_view name) {
  Status status = CheckGivenName(name, "name");
  return status.ok() ? "ok" : status.message;
}

// Unicode's White_Space.
constexpr uint32_t kWhiteSpace[] = {0x09,   0x0a,   0x0b,   0x0c,   0x0d,   0x20,   0x85,   0xa0,   0x1680,
                                    0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                    0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
constexpr uint32_t kInvisible[] = {0xad,   0x61c,  0x180e, 0x200b, 0x200c, 0x200d, 0x200e,
                                   0x202a, 0x2060, 0x2066, 0x3164, 0xfeff, 0xe0001};
constexpr uint32_t kMasks[] = {0xb7, 0x2022, 0x2026, 0x2219, 0x25aa, 0x25cf, 0x26ab, 0x2b24, 0xff0a};

TEST(GivenText, CutsEveryWhiteSpaceAtBothEnds) {
  for (uint32_t code : kWhiteSpace) {
    std::string space = Utf8(code);
    EXPECT_EQ(CutWhiteSpace(space + "sk-1" + space + "\r\n"), "sk-1") << std::hex << code;
    EXPECT_EQ(CutWhiteSpace("a" + space + "b"), "a" + space + "b") << std::hex << code;
    EXPECT_EQ(CutWhiteSpace(space + space), "") << std::hex << code;
  }
}

TEST(GivenText, CutsNothingElse) {
  for (uint32_t code : kInvisible)
    EXPECT_EQ(CutWhiteSpace(Utf8(code) + "a" + Utf8(code)).size(), 1 + 2 * Utf8(code).size());
  for (std::string_view text :
       {"\x80", "\xff", "a\x85", "\xa0", "\xc2", "\xe2\x80", "\xc0\xa0", "\xed\xa0\x80", "\xf8\x88\x80\x80"})
    EXPECT_EQ(CutWhiteSpace(text), text);  // no UTF-8, or not the shortest
}

TEST(GivenText, TakesSecretsAsProvidersMakeThem) {
  for (std::string_view secret :
       {"s", "0", "sk-proj-AbC_1-2", "AIzaSy.x", "gsk_1", "ey.J0.s1", "id:secret word", "a/b+c==", "a*b", "a..b",
        "p\xc3\xb6", "\xe7\xa7\x98\xe5\xaf\x86", "Bearerly", "authorization", "=a", "\xff\xfe"})
    EXPECT_EQ(Secret(secret), "ok") << secret;
  EXPECT_EQ(Secret(std::string(kMaxSecretBytes, 'x')), "ok");
}

TEST(GivenText, RefusesHeaders) {
  for (std::string_view secret : {"Bearer sk-1", "bearer\tsk-1", "BEARER  sk-1", "Bearer", "Bearer: sk-1",
                                  "Authorization: sk-1", "authorization:Bearer sk-1", "Bearer\xc2\xa0sk-1"})
    EXPECT_EQ(Secret(secret),
              "key_value must be the secret alone, without \"Bearer\" or what else precedes it in a header");
}

TEST(GivenText, RefusesMasks) {
  const std::string masked = "key_value is masked: asterisks, dots or bullets stand where the secret was";
  for (std::string_view secret : {"*", "****", "...", "-", "sk-****", "sk-...abcd", "_-_", "%"})
    EXPECT_EQ(Secret(secret), masked);
  for (uint32_t code : kMasks) {
    EXPECT_EQ(Secret(Utf8(code)), masked) << std::hex << code;
    EXPECT_EQ(Secret("sk-" + Utf8(code) + "abcd"), masked) << std::hex << code;
  }
}

TEST(GivenText, RefusesNothingAndTooMuch) {
  EXPECT_EQ(Secret(""), "key_value must not be empty");
  EXPECT_EQ(Secret(std::string(kMaxSecretBytes + 1, 'x')), "key_value must not be longer than 8192 bytes");
}

TEST(GivenText, TakesLinesOnlyInJsonAndPem) {
  for (std::string_view end : {"\n", "\r\n", "\r"}) {
    std::string two = "sk-1" + std::string(end) + "sk-2";
    EXPECT_EQ(Secret(two), "key_value must not hold more than one line");
    EXPECT_EQ(Secret("{" + two + "}"), "ok");
    EXPECT_EQ(Secret("-----BEGIN PRIVATE KEY-----" + two + "-----END PRIVATE KEY-----"), "ok");
  }
  EXPECT_EQ(Secret("{\n\t\"a\": \"...\"\n}"), "ok");
  EXPECT_EQ(Secret("{\x01}"), "key_value must not contain control characters (U+0001)");
  EXPECT_EQ(Secret("{\n"), "key_value must not hold more than one line");
  EXPECT_EQ(Secret("a\xe2\x80\xa8z"), "key_value must not hold more than one line");
}

TEST(GivenText, RefusesWhatNobodySeesInASecret) {
  EXPECT_EQ(Secret("sk\t1"), "key_value must not contain control characters (U+0009)");
  EXPECT_EQ(Secret("sk\x7f"), "key_value must not contain control characters (U+007F)");
  EXPECT_EQ(Secret("sk\xc2\xa0"
                   "1"),
            "key_value must not contain no-break spaces (U+00A0)");
  EXPECT_EQ(Secret("\xef\xbb\xbfsk-1"), "key_value must not contain invisible characters (U+FEFF)");
  for (uint32_t code : kInvisible)
    for (const std::string &secret : {Utf8(code) + "sk", "s" + Utf8(code) + "k", "sk" + Utf8(code)})
      EXPECT_TRUE(Secret(secret).starts_with("key_value must not contain invisible characters (U+"))
          << std::hex << code;
}

TEST(GivenText, TakesNamesInEveryScript) {
  for (std::string_view name :
       {"", "groq", "team a", "m\xc3\xbcnchen-azure",
        "\xe3\x83\x81\xe3\x83\xbc\xe3\x83\xa0\xe3\x80\x80"
        "A",
        "\xe2\x9d\xa4\xef\xb8\x8f", "\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xae", "a\xe2\x80\xa2z", "****", "\xff"})
    EXPECT_EQ(Name(name), "ok") << name;
}

TEST(GivenText, RefusesNamesThatLookLikeAnother) {
  for (uint32_t code : kWhiteSpace)
    for (const std::string &name : {Utf8(code) + "groq", "groq" + Utf8(code), Utf8(code)})
      EXPECT_NE(Name(name), "ok") << std::hex << code;
  for (uint32_t code : kInvisible)
    for (const std::string &name : {Utf8(code) + "groq", "groq" + Utf8(code), Utf8(code)})
      EXPECT_NE(Name(name), "ok") << std::hex << code;
  for (uint32_t code : {0xa0, 0x202f, 0x200b, 0xfeff, 0x0a, 0x2028, 0x85, 0x01})
    EXPECT_NE(Name("gr" + Utf8(code) + "oq"), "ok") << std::hex << code;
  // Joiners and variation selectors, which change nothing after a Latin letter.
  for (uint32_t code : {0x200c, 0x200d, 0xfe0e, 0xfe0f, 0x180b, 0xe0041, 0xe0100})
    for (const std::string &name : {"gr" + Utf8(code) + "oq", "groq" + Utf8(code), Utf8(code) + "groq"})
      EXPECT_TRUE(Name(name).starts_with("name must not contain invisible characters (U+")) << std::hex << code;
  EXPECT_EQ(Name("groq "), "name must not begin or end with a blank");
}

TEST(GivenText, LimitsLabels) {
  EXPECT_TRUE(CheckGivenLabel(std::string(kMaxLabelBytes, 'x')).ok());
  EXPECT_STREQ(CheckGivenLabel(std::string(kMaxLabelBytes + 1, 'x')).message,
               "key_label must not be longer than 1024 bytes");
  EXPECT_STREQ(CheckGivenLabel("a ").message, "key_label must not begin or end with a blank");
}

TEST(GivenText, AsksMoreOfNewProviders) {
  EXPECT_TRUE(CheckProviderName("groq ").ok());
  EXPECT_FALSE(CheckNewProviderName("groq ").ok());
  EXPECT_FALSE(CheckNewProviderName("").ok());
  EXPECT_FALSE(CheckNewProviderName(std::string(kMaxProviderBytes + 1, 'x')).ok());
  EXPECT_TRUE(CheckNewProviderName(std::string(kMaxProviderBytes, 'x')).ok());
}

}  // namespace
}  // namespace keypool
