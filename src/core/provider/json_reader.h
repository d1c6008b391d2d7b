// json_reader.h - reads JSON (RFC 8259) piece by piece, as far as it is any: what is none ends it.
//
// For what other servers sent: it takes any bytes, needs no memory beside its own, does not recurse, and takes time in
// proportion to the text.
#pragma once

#include <cstdint>
#include <string_view>

namespace keypool {

inline constexpr size_t kMaxJsonValue = 512;  // bytes of a name or a value that are kept; the rest is left out

class JsonReader {
 public:
  enum class Piece : uint8_t {
    kEnd,   // of the text, or of what is JSON in it
    kOpen,  // of an object or an array
    kClose,
    kName,  // of the member whose value comes next
    kText,
    kNumber,  // as it is written
    kOther,   // true, false, null
  };

  explicit JsonReader(std::string_view text) noexcept : rest_(text) {}

  Piece Next() noexcept;

  // How many objects and arrays are open: after kOpen with the new one, after kClose without the one that it closes.
  int depth() const { return depth_; }

  // Of a name, a text or a number, until Next: escapes are resolved, and every character beyond ASCII that is written
  // as one is a question mark. Other bytes are as they were.
  std::string_view value() const { return value_; }

 private:
  Piece ReadText() noexcept;
  Piece ReadWord() noexcept;
  void ReadEscapedText() noexcept;
  char ReadEscape() noexcept;
  void SkipBlanks() noexcept;
  char Take() noexcept;  // there must be one

  std::string_view rest_;
  int depth_ = 0;
  std::string_view value_;         // in the text, or
  char unescaped_[kMaxJsonValue];  // if it has escapes
};

}  // namespace keypool
