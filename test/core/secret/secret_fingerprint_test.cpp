// secret_fingerprint_test.cpp - a fingerprint tells one secret of one provider, under one master key.
#include "core/secret/secret_fingerprint.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/secret/envelope.h"

namespace keypool {
namespace {

class SecretFingerprintTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(ParseKeyring("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
                             "k2:ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
                             &keyring_)
                    .ok());
  }
  void TearDown() override { WipeKeyring(&keyring_); }

  std::string Of(int key, std::string_view provider, std::string_view secret) {
    uint8_t out[kSecretFingerprintBytes];
    EXPECT_TRUE(FingerprintSecret(keyring_.keys[key], provider, secret, out).ok());
    std::string text;
    for (uint8_t byte : out) {
      char digits[3];
      snprintf(digits, sizeof(digits), "%02x", byte);
      text += digits;
    }
    return text;
  }

  Keyring keyring_ = {};
};

// Made with another implementation (Python's hmac).
TEST_F(SecretFingerprintTest, IsAsAnotherImplementationMakesIt) {
  EXPECT_EQ(Of(0, "openai", "sk-test-vector"), "5db39445a01ea11d8e256a0c4446f5ecce71e1f7e025d51b12e7c8e5f3ba113c");
}

TEST_F(SecretFingerprintTest, DiffersBySecretProviderAndMasterKey) {
  std::set<std::string> all = {Of(0, "openai", "sk-1"),  Of(0, "openai", "sk-2"), Of(0, "openais", "k-1"),
                               Of(0, "openai2", "sk-1"), Of(1, "openai", "sk-1"), Of(0, "", "openaisk-1")};
  EXPECT_EQ(all.size(), 6u);
  EXPECT_TRUE(all.contains(Of(0, "openai", "sk-1")));
}

TEST_F(SecretFingerprintTest, TakesTheLongestAndNoLonger) {
  uint8_t out[kSecretFingerprintBytes];
  std::string provider(2 * kMaxProviderBytes, 'p'), secret(kMaxSecretBytes, 's');
  EXPECT_TRUE(FingerprintSecret(keyring_.keys[0], provider, secret, out).ok());
  EXPECT_EQ(FingerprintSecret(keyring_.keys[0], provider, secret + "s", out).code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace keypool
