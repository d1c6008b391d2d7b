// envelope_test.cpp - sealed secrets open where they belong, and nowhere else.
#include "core/secret/envelope.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace keypool {
namespace {

constexpr KeyId kId = {
    {0x7d, 0x31, 0x94, 0xf7, 0x70, 0x3b, 0x8e, 0x09, 0xb0, 0x4b, 0xed, 0x29, 0xfb, 0xad, 0x93, 0x3a}};
constexpr uint8_t kNonce[kNonceBytes] = {100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111};
const SecretOwner kOwner = {kId, "openai"};

// Made with another implementation (Node's crypto): key 00..1f, nonce 100..111, secret sk-test-vector.
constexpr std::string_view kVector = "enc:v1:k1:ZGVmZ2hpamtsbW5vO3DzEhyaIrNIBzyctRe750ndbRsbYvn7aHgnjBp1";
constexpr std::string_view kLegacyVector = "enc:ZGVmZ2hpamtsbW5vO3DzEhyaIrNIBzyctReJYb7Wx6rPh1hrJ6NsREey";

class EnvelopeTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(ParseKeyring("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
                             "k2:ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
                             &keyring_)
                    .ok());
  }
  void TearDown() override { WipeKeyring(&keyring_); }

  std::string SealText(std::string_view secret, const SecretOwner &owner = kOwner) {
    std::vector<char> out(kMaxSealedText + 1);
    size_t size = 0;
    EXPECT_TRUE(Seal(keyring_.keys[0], kNonce, owner, secret, out.data(), &size).ok());
    return {out.data(), size};
  }

  Status OpenText(std::string_view stored, const SecretOwner &owner, std::string *secret) {
    std::vector<uint8_t> buffer(stored.size() + 1);
    StoredSecret parsed;
    ParseStored(stored, buffer.data(), &parsed);
    std::vector<char> out(kMaxSecretBytes);
    size_t size = 0;
    Status status = Open(&keyring_, parsed, owner, out.data(), &size);
    secret->assign(out.data(), size);
    return status;
  }

  Code CodeOf(std::string_view stored, const SecretOwner &owner = kOwner) {
    std::string secret;
    return OpenText(stored, owner, &secret).code;
  }

  Keyring keyring_ = {};
};

TEST_F(EnvelopeTest, SealsAsAnotherImplementationDoes) { EXPECT_EQ(SealText("sk-test-vector"), kVector); }

TEST_F(EnvelopeTest, TellsFromItsBeginningWhatAValueIsSealedUnder) {
  const std::string longest(kMaxMasterKeyId, 'x');
  EXPECT_EQ(SealedUnder(kVector), "k1");
  EXPECT_EQ(SealedUnder(("enc:v1:" + longest + ":AAAA").substr(0, kSealedPrefixMax)), longest);
  for (std::string_view other :
       {"", "enc:v1:", "enc:v1::AAAA", "enc:v1:k 1:AAAA", "enc:v1:k1", "enc:v2:k1:AAAA", "sk-1"})
    EXPECT_EQ(SealedUnder(other), "") << other;
  EXPECT_EQ(SealedUnder("enc:v1:" + longest + "x:AAAA"), "");
  EXPECT_EQ(SealedUnder(kLegacyVector), "");
}

TEST_F(EnvelopeTest, OpensWithContextsThatWereMadeBefore) {
  ASSERT_TRUE(PrepareOpeners(&keyring_).ok());
  EXPECT_NE(keyring_.keys[1].opener, nullptr);
  std::string secret;
  EXPECT_TRUE(OpenText(kVector, kOwner, &secret).ok());
  EXPECT_EQ(secret, "sk-test-vector");
}

TEST_F(EnvelopeTest, OpensWhatAnotherImplementationSealed) {
  std::string secret;
  EXPECT_TRUE(OpenText(kVector, kOwner, &secret).ok());
  EXPECT_EQ(secret, "sk-test-vector");
  EXPECT_TRUE(OpenText(kLegacyVector, kOwner, &secret).ok());
  EXPECT_EQ(secret, "sk-test-vector");
}

TEST_F(EnvelopeTest, TakesAnythingElseForPlaintext) {
  std::string secret;
  EXPECT_TRUE(OpenText("sk-plain", kOwner, &secret).ok());
  EXPECT_EQ(secret, "sk-plain");
  EXPECT_FALSE(ClaimsEncryption("sk-plain"));
  EXPECT_TRUE(ClaimsEncryption("enc:"));
}

TEST_F(EnvelopeTest, OpensSecretsOfEveryLength) {
  for (size_t size : {size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{1000}, kMaxSecretBytes}) {
    std::string given(size, 'x'), secret;
    EXPECT_TRUE(OpenText(SealText(given), kOwner, &secret).ok()) << size;
    EXPECT_EQ(secret, given);
  }
}

TEST_F(EnvelopeTest, RefusesToSealNothingOrTooMuch) {
  std::vector<char> out(kMaxSealedText + 1);
  size_t size = 0;
  EXPECT_EQ(Seal(keyring_.keys[0], kNonce, kOwner, "", out.data(), &size).code, Code::kInvalidArgument);
  std::string long_secret(kMaxSecretBytes + 1, 'x');
  EXPECT_EQ(Seal(keyring_.keys[0], kNonce, kOwner, long_secret, out.data(), &size).code, Code::kInvalidArgument);
}

TEST_F(EnvelopeTest, DoesNotOpenInAnotherRowOrProvider) {
  KeyId other = kId;
  other.bytes[15] ^= 1;
  EXPECT_EQ(CodeOf(kVector, {other, "openai"}), Code::kNotAuthentic);
  EXPECT_EQ(CodeOf(kVector, {kId, "openal"}), Code::kNotAuthentic);
  EXPECT_EQ(CodeOf(kVector, {kId, "open"}), Code::kNotAuthentic);
}

TEST_F(EnvelopeTest, DoesNotOpenUnderAnotherMasterKeysName) {
  std::string moved(kVector);
  moved.replace(7, 2, "k2");
  EXPECT_EQ(CodeOf(moved), Code::kNotAuthentic);
}

TEST_F(EnvelopeTest, DoesNotOpenIfAnyCharacterIsAltered) {
  for (size_t i = 10; i < kVector.size(); ++i) {
    std::string altered(kVector);
    altered[i] = altered[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(CodeOf(altered), Code::kNotAuthentic) << i;
  }
}

TEST_F(EnvelopeTest, DoesNotOpenIfTruncated) {
  for (size_t size = 4; size < kVector.size(); ++size) EXPECT_NE(CodeOf(kVector.substr(0, size)), Code::kOk) << size;
}

TEST_F(EnvelopeTest, NamesTheMasterKeyThatIsMissing) {
  std::string lost(kVector), secret;
  lost.replace(7, 2, "lost");
  Status status = OpenText(lost, kOwner, &secret);
  EXPECT_EQ(status.code, Code::kMissingMasterKey);
  EXPECT_STREQ(status.message, "master key \"lost\" is not in the keyring");
}

TEST_F(EnvelopeTest, LeavesNothingBehindWhenItFails) {
  std::vector<uint8_t> buffer(kVector.size());
  StoredSecret parsed;
  ParseStored(kVector, buffer.data(), &parsed);
  char out[kMaxSecretBytes];
  memset(out, 'z', sizeof(out));
  size_t size = 0;
  EXPECT_FALSE(Open(&keyring_, parsed, {kId, "other"}, out, &size).ok());
  EXPECT_EQ(std::string_view(out, kMaxSecretBytes).find("sk-test"), std::string_view::npos);
  EXPECT_EQ(out[0], '\0');
}

TEST_F(EnvelopeTest, RefusesMalformedOnes) {
  for (const char *stored : {"enc:", "enc:v1:", "enc:v1:k1", "enc:v1:k1:", "enc:v1::AAAA", "enc:v1:k 1:AAAA",
                             "enc:v1:k1:!!!!", "enc:AAAA", "enc:v1:k1:AAAA", "enc:AAA", "enc: AAAA"})
    EXPECT_EQ(CodeOf(stored), Code::kNotAuthentic) << stored;
}

}  // namespace
}  // namespace keypool
