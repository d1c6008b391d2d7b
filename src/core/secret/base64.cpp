// base64.cpp - strict base64 over OpenSSL's.
#include "core/secret/base64.h"

#include <openssl/evp.h>

#include <algorithm>

namespace keypool {

namespace {

bool IsBase64Digit(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

}  // namespace

size_t EncodeBase64(const uint8_t *bytes, size_t size, char *out) noexcept {
  return static_cast<size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char *>(out), bytes, static_cast<int>(size)));
}

bool DecodeBase64(std::string_view text, uint8_t *out, size_t *size) noexcept {
  // EVP_DecodeBlock trims white space and takes '=' anywhere, so the shape is checked here.
  if (text.empty() || text.size() % 4 != 0) return false;
  size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string_view digits = text.substr(0, text.size() - padding);
  if (!std::all_of(digits.begin(), digits.end(), IsBase64Digit)) return false;
  int decoded =
      EVP_DecodeBlock(out, reinterpret_cast<const unsigned char *>(text.data()), static_cast<int>(text.size()));
  if (decoded < 0) return false;
  *size = static_cast<size_t>(decoded) - padding;
  return true;
}

}  // namespace keypool
