// four_heap.h - heaps with four children, over places that somebody else keeps.
//
// A Heap has `size`, At(i), Put(i, place), which may note where the place is, and Before(a, b). What moves is held back
// until its place is found, so that nothing is swapped.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace keypool {

inline constexpr uint32_t kHeapChildren = 4;

inline uint32_t HeapParent(uint32_t at) { return (at - 1) / kHeapChildren; }

// The first of the children of `at`, or at least `size` if it has none.
template <typename Heap>
[[gnu::always_inline]] inline uint32_t FirstChild(const Heap &heap, uint32_t at) {
  uint32_t first = kHeapChildren * at + 1;
  uint32_t end = std::min(first + kHeapChildren, heap.size);
  if (first >= end) return first;
  auto best = heap.At(first);
  for (uint32_t child = first + 1; child < end; ++child) {
    if (!heap.Before(heap.At(child), best)) continue;
    best = heap.At(child);
    first = child;
  }
  return first;
}

// Fills the hole at `at` with `moving`, or with what is above it and after `moving`.
template <typename Heap, typename Place>
[[gnu::always_inline]] inline void SiftUp(const Heap &heap, uint32_t at, const Place moving) {
  assert(at < heap.size);
  for (; at > 0 && heap.Before(moving, heap.At(HeapParent(at))); at = HeapParent(at))
    heap.Put(at, heap.At(HeapParent(at)));
  heap.Put(at, moving);
}

// Fills the hole at `at`: what sinks mostly belongs at the bottom, so the hole goes there first.
template <typename Heap, typename Place>
void SiftDown(const Heap &heap, uint32_t at, const Place moving) {
  assert(at < heap.size);
  for (uint32_t child = FirstChild(heap, at); child < heap.size; child = FirstChild(heap, at)) {
    heap.Put(at, heap.At(child));
    at = child;
  }
  SiftUp(heap, at, moving);
}

template <typename Heap, typename Place>
void Sift(const Heap &heap, uint32_t at, const Place moving) {
  bool up = at > 0 && heap.Before(moving, heap.At(HeapParent(at)));
  up ? SiftUp(heap, at, moving) : SiftDown(heap, at, moving);
}

template <typename Heap>
bool IsHeap(const Heap &heap) {
  for (uint32_t at = 1; at < heap.size; ++at)
    if (heap.Before(heap.At(at), heap.At(HeapParent(at)))) return false;
  return true;
}

}  // namespace keypool
