// state_edit.cpp - which bytes of a state an edit has changed.
#include "core/state_edit.h"

#include <cstring>

namespace keypool {

namespace {

// Pieces that are added in the order of their offsets, and written when no further one can be part of them.
struct DeltaWriter {
  const char *state;
  uint16_t state_offset;
  PageDelta *delta;
  int begin;
  int end;  // 0: there is no piece

  void Add(int first, int behind) {
    if (first - end > PageDelta::kMergedGap || end == 0) {
      Write();
      begin = first;
    }
    end = behind;
  }

  // The bytes that differ of the eight at an offset.
  void AddDifference(int offset, uint64_t difference) {
    int first = static_cast<unsigned>(std::countr_zero(difference)) / 8;
    int behind = 8 - static_cast<unsigned>(std::countl_zero(difference)) / 8;
    if (behind - first <= PageDelta::kMergedGap + 2) return Add(offset + first, offset + behind);
    for (int i = first; i < behind; ++i)
      if ((difference >> (8 * i) & 0xff) != 0) Add(offset + i, offset + i + 1);
  }

  void Write() {
    if (end == 0) return;
    char *to = delta->bytes + delta->size;
    uint16_t header[2] = {static_cast<uint16_t>(state_offset + begin), static_cast<uint16_t>(end - begin)};
    static_assert(sizeof(header) == PageDelta::kHeaderSize);
    memcpy(to, header, sizeof(header));
    memcpy(to + sizeof(header), state + begin, end - begin);
    delta->size = static_cast<uint16_t>(delta->size + sizeof(header) + end - begin);
  }
};

}  // namespace

// Not inline: gcc does not see that what was not noted is not read, and warns.
StateEdit::StateEdit(KeyState *state) noexcept : state_(state) {}

void StateEdit::WriteDelta(uint16_t offset, PageDelta *delta) const noexcept {
  delta->size = 0;
  DeltaWriter writer = {reinterpret_cast<const char *>(state_), offset, delta, 0, 0};
  for (size_t i = 0; i < std::size(noted_); ++i)
    for (uint64_t left = noted_[i]; left != 0; left &= left - 1) {
      size_t word = 64 * i + static_cast<unsigned>(std::countr_zero(left));
      if (difference_[word] != 0) writer.AddDifference(static_cast<int>(8 * word), difference_[word]);
    }
  writer.Write();
}

}  // namespace keypool
