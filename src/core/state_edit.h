// state_edit.h - changing a key's state in place, and noting which of its bytes that changes.
//
// What is recorded is changed through an edit only, so that the log gets all of it. To find the bytes by comparing two
// states would take longer than all else that is done to record a request.
#pragma once

#include <type_traits>

#include "core/key_state.h"

namespace keypool {

// Bytes of a state, from `offset` on.
struct ChangedBytes {
  uint16_t offset;
  uint16_t length;
};

inline constexpr int kMaxChanges = 32;  // more than any function of window.h makes

// One edit. The state outlives it.
class StateEdit {
 public:
  explicit StateEdit(KeyState *state) noexcept : state_(state) {}
  StateEdit(const StateEdit &) = delete;
  StateEdit &operator=(const StateEdit &) = delete;

  // As it is after the changes up to now.
  const KeyState &state() const { return *state_; }

  // Changes a field of state().
  template <typename Field>
  void Set(const Field &field, std::type_identity_t<Field> value) noexcept {
    static_assert(std::is_integral_v<Field>);  // what is not equal has a byte that is not
    if (field == value) return;
    Note(reinterpret_cast<const unsigned char *>(&field), reinterpret_cast<const unsigned char *>(&value),
         sizeof(Field));
    const_cast<Field &>(field) = value;  // it lies in *state_
  }

  // What was changed: so many pieces, in the order of the changes. One that was changed twice may be there twice. After
  // more than kMaxChanges there is one piece, which is the whole state.
  int count() const { return count_; }
  const ChangedBytes &change(int number) const { return changes_[number]; }

 private:
  // Notes the bytes of a field from the first that changes to the last.
  void Note(const unsigned char *was, const unsigned char *is, uint16_t size) noexcept {
    uint16_t first = 0;
    while (was[first] == is[first]) ++first;
    while (was[size - 1] == is[size - 1]) --size;
    auto offset = static_cast<uint16_t>(was - reinterpret_cast<const unsigned char *>(state_));
    if (count_ == kMaxChanges) whole_ = true;
    if (whole_) {
      changes_[0] = {0, sizeof(KeyState)};
      count_ = 1;
    } else {
      changes_[count_++] = {static_cast<uint16_t>(offset + first), static_cast<uint16_t>(size - first)};
    }
  }

  KeyState *state_;
  int count_ = 0;
  bool whole_ = false;
  ChangedBytes changes_[kMaxChanges];
};

}  // namespace keypool
