// selection_heaps.h - the four heaps of a selection order, as four_heap.h wants them. For selection_order*.cpp only.
#pragma once

#include "core/quota/four_heap.h"
#include "core/quota/selection_order.h"

namespace keypool {

inline OrderPlace PlaceOf(const Wait &wait, uint32_t key) { return {wait.moment, wait.cooling ? 0 : 1, key}; }

inline bool WaitsBefore(const OrderPlace &a, const OrderPlace &b) {
  return a.rank != b.rank ? a.rank < b.rank : a.tier < b.tier;
}

inline bool SelectionOrder::ServesBefore(const OrderPlace &a, const OrderPlace &b) const noexcept {
  if (a.tier != b.tier) return a.tier < b.tier;
  if (a.rank != b.rank) [[likely]]
    return a.rank < b.rank;
  return candidates_[a.key].id < candidates_[b.key].id;
}

// The keys of a group that may serve.
struct SelectionOrder::ServingKeys {
  ServingKeys(const SelectionOrder &of, const Group &group) : order(of), places(group.places), size(group.serving) {}
  const OrderPlace &At(uint32_t at) const { return places[at]; }
  void Put(uint32_t at, const OrderPlace &place) const { places[at] = place; }
  bool Before(const OrderPlace &a, const OrderPlace &b) const { return order.ServesBefore(a, b); }

  const SelectionOrder &order;
  OrderPlace *places;
  uint32_t size;
};

// The keys of a group that wait, from the end of its places on.
struct SelectionOrder::WaitingKeys {
  WaitingKeys(const SelectionOrder &order, const Group &group)
      : last(group.places + group.count - 1), position(order.position_), size(group.waiting) {}
  const OrderPlace &At(uint32_t at) const { return *(last - at); }
  void Put(uint32_t at, const OrderPlace &place) const {
    *(last - at) = place;
    position[place.key] = at;
  }
  bool Before(const OrderPlace &a, const OrderPlace &b) const { return WaitsBefore(a, b); }

  OrderPlace *last;
  uint32_t *position;
  uint32_t size;
};

struct SelectionOrder::ServingGroups {
  explicit ServingGroups(const SelectionOrder &of)
      : order(of), places(of.serving_), groups(of.groups_), size(of.serving_groups_) {}
  const ServingGroup &At(uint32_t at) const { return places[at]; }
  void Put(uint32_t at, const ServingGroup &place) const {
    places[at] = place;
    groups[place.group].serving_at = at;
  }
  bool Before(const ServingGroup &a, const ServingGroup &b) const { return order.ServesBefore(a.best, b.best); }

  const SelectionOrder &order;
  ServingGroup *places;
  Group *groups;
  uint32_t size;
};

struct SelectionOrder::Moments {
  explicit Moments(const SelectionOrder &of) : places(of.moments_), groups(of.groups_), size(of.moments_count_) {}
  const OrderPlace &At(uint32_t at) const { return places[at]; }
  void Put(uint32_t at, const OrderPlace &place) const {
    places[at] = place;
    groups[place.key].moment_at = at;
  }
  bool Before(const OrderPlace &a, const OrderPlace &b) const { return WaitsBefore(a, b); }

  OrderPlace *places;
  Group *groups;
  uint32_t size;
};

}  // namespace keypool
