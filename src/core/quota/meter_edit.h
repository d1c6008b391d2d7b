// meter_edit.h - changing a meter in place, and noting which of its bytes that changes.
//
// What is recorded is changed through an edit only, so that the log gets all of it. To find the bytes by comparing two meters would
// take longer than all else that is done to record a request.
#pragma once

#include <type_traits>

#include "core/quota/meter.h"

namespace keypool {

// Bytes of a meter, from `offset` on.
struct ChangedBytes {
  uint16_t offset;
  uint16_t length;
};

inline constexpr int kMaxChanges = 32;   // more than any function of settling.h makes
inline constexpr uint16_t kMergeGap = 5;  // a piece of the log has a header of 4 bytes: nearer ones are cheaper as one

// One edit. The meter outlives it.
class MeterEdit {
 public:
  explicit MeterEdit(Meter *meter) noexcept : meter_(meter) {}
  MeterEdit(const MeterEdit &) = delete;
  MeterEdit &operator=(const MeterEdit &) = delete;

  // As it is after the changes up to now.
  const Meter &meter() const { return *meter_; }

  // Changes a field of meter().
  template <typename Field>
  void Set(const Field &field, std::type_identity_t<Field> value) noexcept;

  // Notes all of a slot or another struct of meter(), changed or not: a hint that was not logged may lie in it.
  template <typename Struct>
  void NoteWhole(const Struct &part) noexcept;

  // What was changed, by offset, without overlaps; pieces less than kMergeGap apart are one. After more than kMaxChanges there is one piece,
  // which is the whole meter. Ends the edit.
  int Finish(const ChangedBytes **changes) noexcept;

 private:
  Meter *meter_;
  int count_ = 0;
  bool whole_ = false;
  ChangedBytes changes_[kMaxChanges];
};

}  // namespace keypool
