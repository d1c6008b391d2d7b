// meter_edit.h - changing a meter in place, and noting which of its bytes that changes.
//
// What is recorded is changed through an edit only, so that the log gets all of it. To find the bytes by comparing two
// meters would take longer than all else that is done to record a request.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "core/quota/meter.h"

namespace keypool {

// Bytes of a meter, from `offset` on.
struct ChangedBytes {
  uint16_t offset;
  uint16_t length;
};

inline constexpr int kMaxChanges = 32;  // more than a settlement makes

// A piece of the log has a header of 4 bytes, and is copied: nearer ones are cheaper as one.
inline constexpr uint16_t kMergeGap = 6;

// One edit. The meter outlives it.
class MeterEdit {
 public:
  MeterEdit() = default;
  explicit MeterEdit(Meter *meter) noexcept { Begin(meter, nullptr); }
  MeterEdit(const MeterEdit &) = delete;
  MeterEdit &operator=(const MeterEdit &) = delete;

  // `copied_from`: the meter is a copy, which the server compares with that one to find what to log. Hints, which are
  // not logged, are then changed in both.
  void Begin(Meter *meter, Meter *copied_from) noexcept {
    assert(meter->layout == kLayout);
    meter_ = meter;
    copied_from_ = copied_from;
    count_ = 0;
  }

  // As it is after the changes up to now.
  const Meter &meter() const { return *meter_; }

  // Changes a field or a struct of meter(), and notes the bytes that differ.
  template <typename Field>
  void Set(const Field &field, const std::type_identity_t<Field> &value) noexcept {
    static_assert(std::has_unique_object_representations_v<Field>);  // what is not equal has a byte that is not
    for (size_t at = 0; at < sizeof(Field); at += sizeof(uint64_t))
      NoteWord(&field, &value, at, std::min(sizeof(uint64_t), sizeof(Field) - at));
    Store(field, value);
  }

  // The same, but notes one piece, from the first byte that differs to the last.
  template <typename Struct>
  void SetAsOne(const Struct &part, const Struct &value) noexcept {
    int before = count_;
    Set(part, value);
    if (count_ <= before + 1) return;
    ChangedBytes last = changes_[count_ - 1];
    count_ = before + 1;
    changes_[before].length = static_cast<uint16_t>(last.offset + last.length - changes_[before].offset);
  }

  // The same, but notes all of it: a hint that was not logged may lie in the rest.
  template <typename Struct>
  void SetWhole(const Struct &part, const std::type_identity_t<Struct> &value) noexcept {
    NoteWhole(part);
    Store(part, value);
  }

  // Notes all of a part of meter(), changed or not.
  template <typename Struct>
  void NoteWhole(const Struct &part) noexcept {
    Note(OffsetOf(&part), sizeof(Struct));
  }

  // Changes a hint, which the log does not get.
  template <typename Field>
  void SetHint(const Field &field, std::type_identity_t<Field> value) noexcept {
    size_t offset = OffsetOf(&field);
    assert(offset >= offsetof(Meter, reserved));
    Store(field, value);
    if (copied_from_ != nullptr) memcpy(reinterpret_cast<char *>(copied_from_) + offset, &value, sizeof(Field));
  }

  // What was changed, by offset, without overlaps; pieces less than kMergeGap apart are one. After more than
  // kMaxChanges there is one piece, which is the whole meter. Ends the edit.
  int Finish(const ChangedBytes **changes) noexcept;

 private:
  uint16_t OffsetOf(const void *part) const {
    auto offset = static_cast<const unsigned char *>(part) - reinterpret_cast<const unsigned char *>(meter_);
    assert(offset >= 0 && offset < static_cast<ptrdiff_t>(sizeof(Meter)));
    return static_cast<uint16_t>(offset);
  }

  template <typename Field>
  static void Store(const Field &field, const Field &value) {
    memcpy(const_cast<Field *>(&field), &value, sizeof(Field));  // it lies in *meter_, and may be an array
  }

  static int FirstByte(uint64_t difference) {
    return (std::endian::native == std::endian::little ? std::countr_zero(difference) : std::countl_zero(difference)) /
           8;
  }
  static int LastByte(uint64_t difference) {
    return 7 -
           (std::endian::native == std::endian::little ? std::countl_zero(difference) : std::countr_zero(difference)) /
               8;
  }

  // Notes the bytes from the first that differs to the last, of up to eight.
  void NoteWord(const void *was, const void *is, size_t at, size_t size) noexcept {
    uint64_t old_bytes = 0, new_bytes = 0;
    memcpy(&old_bytes, static_cast<const unsigned char *>(was) + at, size);
    memcpy(&new_bytes, static_cast<const unsigned char *>(is) + at, size);
    uint64_t difference = old_bytes ^ new_bytes;
    if (difference == 0) return;
    int first = FirstByte(difference);
    Note(static_cast<uint16_t>(OffsetOf(was) + at + first), static_cast<uint16_t>(LastByte(difference) - first + 1));
  }

  // What comes close behind the change before becomes one with it.
  void Note(uint16_t offset, uint16_t length) noexcept {
    if (count_ > 0) {
      ChangedBytes &before = changes_[count_ - 1];
      if (offset >= before.offset && offset < before.offset + before.length + kMergeGap) {
        uint16_t end = std::max<uint16_t>(before.offset + before.length, offset + length);
        before.length = static_cast<uint16_t>(end - before.offset);
        return;
      }
    }
    if (count_ == kMaxChanges) return SetAllChanged();
    changes_[count_++] = {offset, length};
  }

  // The one change that takes all others in.
  void SetAllChanged() noexcept {
    changes_[0] = {0, sizeof(Meter)};
    count_ = 1;
  }

  Meter *meter_ = nullptr;
  Meter *copied_from_ = nullptr;
  int count_ = 0;
  ChangedBytes changes_[kMaxChanges];
};

}  // namespace keypool
