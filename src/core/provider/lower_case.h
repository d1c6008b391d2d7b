// lower_case.h - text whose capitals of ASCII are small letters.
#pragma once

#include <string_view>

namespace keypool {

// The first bytes of a text, as many as matter of it.
template <size_t Size>
class Lowered {
 public:
  Lowered() = default;
  explicit Lowered(std::string_view text) noexcept { Set(text); }

  void Set(std::string_view text) noexcept {
    size_ = text.copy(text_, Size);
    for (size_t block = 0; block < size_; block += kBlock)
      for (size_t i = block; i < block + kBlock; ++i) text_[i] = Lower(text_[i]);
  }

  std::string_view text() const { return {text_, size_}; }

 private:
  static constexpr size_t kBlock = 16;  // bytes that a compiler takes at once

  static char Lower(char c) {
    bool capital = c >= 'A' && c <= 'Z';
    return static_cast<char>(capital ? c | 0x20 : c);
  }

  char text_[(Size + kBlock - 1) / kBlock * kBlock] = {};
  size_t size_ = 0;
};

}  // namespace keypool
