// meter_edit.cpp - the changes of an edit in the order in which the log takes them.
#include "core/quota/meter_edit.h"

namespace keypool {

namespace {

// There are few, and mostly they are in order.
void SortByOffset(ChangedBytes *changes, int count) {
  for (int i = 1; i < count; ++i) {
    ChangedBytes change = changes[i];
    int at = i;
    for (; at > 0 && changes[at - 1].offset > change.offset; --at) changes[at] = changes[at - 1];
    changes[at] = change;
  }
}

int MergeNear(ChangedBytes *changes, int count) {
  int merged = 0;
  for (int i = 1; i < count; ++i) {
    ChangedBytes &before = changes[merged];
    uint16_t end = before.offset + before.length;
    if (changes[i].offset < end + kMergeGap) {
      end = std::max<uint16_t>(end, changes[i].offset + changes[i].length);
      before.length = static_cast<uint16_t>(end - before.offset);
    } else {
      changes[++merged] = changes[i];
    }
  }
  return merged + 1;
}

}  // namespace

int MeterEdit::Finish(const ChangedBytes **changes) noexcept {
  *changes = changes_;
  if (count_ == 0) return 0;
  SortByOffset(changes_, count_);
  count_ = MergeNear(changes_, count_);
  assert(count_ >= 1 && count_ <= kMaxChanges);
  assert(changes_[count_ - 1].offset + changes_[count_ - 1].length <= static_cast<int>(sizeof(Meter)));
  return count_;
}

}  // namespace keypool
