// known_values.cpp - the values that a session was just given, and taking them out of any text.
#include "core/secret/known_values.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

namespace keypool {

namespace {

// What every format writes as it is.
bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80) != 0 ||
         (c != '\0' && strchr("-_.+/=~:@#%*!?^", c) != nullptr);
}

size_t PlainSize(std::string_view text) {
  return static_cast<size_t>(std::find_if_not(text.begin(), text.end(), IsPlain) - text.begin());
}

}  // namespace

void KnownValues::Remember(std::string_view value) noexcept {
  while (!value.empty()) {
    size_t size = PlainSize(value);
    std::string_view piece = value.substr(0, std::min(size, kPieceBytes));
    if (piece.size() >= kMinPieceBytes && !FoundAt(piece)) {
      size_t place = count_++ % kPieces;
      sizes_[place] = static_cast<uint8_t>(piece.size());
      piece.copy(pieces_[place], piece.size());
    }
    value.remove_prefix(std::min(size + 1, value.size()));
  }
}

bool KnownValues::FoundAt(std::string_view text) const {
  for (size_t i = 0; i < std::min(count_, kPieces); ++i)
    if (text.starts_with(std::string_view(pieces_[i], sizes_[i]))) return true;
  return false;
}

size_t KnownValues::Hide(char *text, size_t size) const noexcept {
  if (empty()) return size;
  bool first[256] = {};
  for (size_t i = 0; i < std::min(count_, kPieces); ++i) first[static_cast<uint8_t>(pieces_[i][0])] = true;
  std::string_view source(text, size);
  char *out = text;
  for (size_t at = 0; at < size;) {
    if (!first[static_cast<uint8_t>(source[at])] || !FoundAt(source.substr(at))) {
      *out++ = source[at++];
      continue;
    }
    at += PlainSize(source.substr(at));
    memset(out, '*', 3);
    out += 3;
  }
  return static_cast<size_t>(out - text);
}

void KnownValues::Wipe() noexcept {
  if (empty()) return;
  OPENSSL_cleanse(pieces_, sizeof(pieces_));
  count_ = 0;
}

}  // namespace keypool
