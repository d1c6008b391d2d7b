// known_values.h - the values that a session was just given, and taking them out of any text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace keypool {

// Remembers the beginnings of a few values, the newest, and hides them in texts of any format. What some format escapes
// (quotes, backslashes, angle brackets, line ends) parts a value into pieces, and each piece is looked for by itself,
// so that no format has to be known. Pieces of fewer than 8 bytes are not looked for: they could be any word.
class KnownValues {
 public:
  void Remember(std::string_view value) noexcept;

  // Replaces each occurrence by three asterisks, in place, and returns the new size, which is never greater. What goes
  // on after an occurrence as a word hides with it. Looks at each byte at most kPieces times kPieceBytes.
  size_t Hide(char *text, size_t size) const noexcept;

  void Wipe() noexcept;
  bool empty() const { return count_ == 0; }

  static constexpr size_t kPieces = 64;
  static constexpr size_t kPieceBytes = 32;
  static constexpr size_t kMinPieceBytes = 8;

 private:
  bool FoundAt(std::string_view text) const;

  size_t count_ = 0;  // of all pieces there were; the newest kPieces are kept
  uint8_t sizes_[kPieces] = {};
  char pieces_[kPieces][kPieceBytes] = {};
};

}  // namespace keypool
