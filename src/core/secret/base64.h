// base64.h - strict base64 (RFC 4648, section 4) over OpenSSL's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace keypool {

inline constexpr size_t Base64Size(size_t bytes) { return (bytes + 2) / 3 * 4; }

// Writes Base64Size(size) characters and a NUL; returns Base64Size(size).
size_t EncodeBase64(const uint8_t *bytes, size_t size, char *out) noexcept;

// Decodes into `out`, which holds at least text.size() / 4 * 3 bytes. False if the text is empty or anything but padded
// base64 without white space.
bool DecodeBase64(std::string_view text, uint8_t *out, size_t *size) noexcept;

}  // namespace keypool
