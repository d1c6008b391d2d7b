// state_edit.h - changing a key's state in place, and noting which of its bytes that changes.
//
// What is recorded is changed through an edit only, so that the log gets all of it. To find the bytes by comparing two
// states would take longer than all else that is done to record a request.
#pragma once

#include <bit>
#include <iterator>
#include <type_traits>

#include "core/key_state.h"

namespace keypool {

// What an edit changed of a page, in the form of PostgreSQL's generic WAL: pieces of two bytes of offset in the page,
// two bytes of length, and the bytes that are there now.
struct PageDelta {
  static constexpr int kHeaderSize = 4;
  static constexpr int kMergedGap = kHeaderSize;  // bytes that did not change: more of them part two pieces

  uint16_t size;
  char bytes[sizeof(KeyState) + kHeaderSize];  // a gap is longer than the header that it costs
};

// One edit. The state outlives it.
class StateEdit {
 public:
  explicit StateEdit(KeyState *state) noexcept;
  StateEdit(const StateEdit &) = delete;
  StateEdit &operator=(const StateEdit &) = delete;

  // As it is after the changes up to now.
  const KeyState &state() const { return *state_; }

  // Changes a field of state().
  template <typename Field>
  void Set(const Field &field, std::type_identity_t<Field> value) noexcept {
    static_assert(std::is_integral_v<Field>);  // what is not equal has a byte that is not
    if (field == value) return;
    using Bits = std::make_unsigned_t<Field>;
    uint64_t difference = static_cast<Bits>(static_cast<Bits>(field) ^ static_cast<Bits>(value));
    if constexpr (std::endian::native == std::endian::big)
      difference = __builtin_bswap64(difference) >> (64 - 8 * sizeof(Field));
    Note(reinterpret_cast<const char *>(&field) - reinterpret_cast<const char *>(state_), difference);
    const_cast<Field &>(field) = value;  // it lies in *state_
  }

  // Whether anything was changed, even if it was changed back.
  bool changed() const { return changed_; }

  // What differs from the state before, byte for byte as PostgreSQL would find it by comparing the page before and
  // after. The state begins at `offset` of its page.
  void WriteDelta(uint16_t offset, PageDelta *delta) const noexcept;

 private:
  static constexpr size_t kWords = sizeof(KeyState) / sizeof(uint64_t);
  static_assert(sizeof(KeyState) % sizeof(uint64_t) == 0);

  // Notes which bits of a field change. No field lies in two words.
  void Note(size_t offset, uint64_t difference) noexcept {
    size_t word = offset / 8;
    uint64_t bit = uint64_t{1} << (word % 64);
    if ((noted_[word / 64] & bit) != 0) {
      difference_[word] ^= difference << (offset % 8 * 8);
    } else {
      difference_[word] = difference << (offset % 8 * 8);
      noted_[word / 64] |= bit;
    }
    changed_ = true;
  }

  KeyState *state_;
  bool changed_ = false;
  uint64_t noted_[(kWords + 63) / 64] = {};  // a bit a word: whether it has a difference
  uint64_t difference_[kWords];              // the byte of the lowest address is that of the lowest bits
};

}  // namespace keypool
