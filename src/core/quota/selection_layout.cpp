// selection_layout.cpp - how a selection order divides its block, forms its groups, and checks itself.
#include <algorithm>
#include <cassert>
#include <new>
#include <type_traits>
#include <utility>

#include "core/quota/selection_heaps.h"

namespace keypool {

namespace {

// Takes pieces off a block; without one it only adds up their sizes.
class Divider {
 public:
  explicit Divider(void *block) : block_(static_cast<char *>(block)) {}

  template <typename Item>
  Item *Take(size_t count) {
    static_assert(alignof(Item) <= alignof(int64_t) && std::is_trivially_destructible_v<Item>);
    Item *items = block_ == nullptr ? nullptr : reinterpret_cast<Item *>(block_ + used_);
    for (size_t i = 0; items != nullptr && i < count; ++i) new (&items[i]) Item{};
    used_ += (count * sizeof(Item) + alignof(int64_t) - 1) / alignof(int64_t) * alignof(int64_t);
    return items;
  }
  size_t used() const { return used_; }

 private:
  char *block_;
  size_t used_ = 0;
};

[[maybe_unused]] bool IsRising(const KeyQuotas &quotas) {
  for (int i = 1; i < kQuotasOfKey; ++i)
    if (quotas.quota[i] != kNoIndex && quotas.quota[i] <= quotas.quota[i - 1]) return false;
  return true;
}

}  // namespace

uint32_t GroupCandidates(const KeyQuotas *quotas, Candidate *candidates, uint32_t *scratch, uint32_t count) noexcept {
  for (uint32_t i = 0; i < count; ++i) scratch[i] = i;
  std::sort(scratch, scratch + count, [=](uint32_t a, uint32_t b) { return quotas[a] < quotas[b]; });
  uint32_t groups = 0;
  for (uint32_t i = 0; i < count; ++i) {
    assert(IsRising(quotas[scratch[i]]));
    if (i == 0 || !(quotas[scratch[i]] == quotas[scratch[i - 1]])) ++groups;
    candidates[scratch[i]].group = groups - 1;
  }
  return groups;
}

// The places first, which are what a walk touches most.
size_t SelectionOrder::LayOut(const OrderSize &size, void *block) noexcept {
  Divider divider(block);
  places_ = divider.Take<OrderPlace>(size.keys);
  groups_ = divider.Take<Group>(size.groups);
  serving_ = divider.Take<ServingGroup>(size.groups);
  moments_ = divider.Take<OrderPlace>(size.groups);
  quotas_ = divider.Take<Quota>(size.quotas);
  position_ = divider.Take<uint32_t>(size.keys);
  untidy_ = divider.Take<uint32_t>(size.groups);
  watched_ = divider.Take<uint32_t>(size.quotas);
  quota_groups_ = divider.Take<uint32_t>(size_t{size.groups} * kQuotasOfKey);
  return divider.used();
}

size_t SelectionOrder::BlockBytes(const OrderSize &size) noexcept { return SelectionOrder().LayOut(size, nullptr); }

SelectionOrder::SelectionOrder(const OrderSize &size, Candidate *candidates, const KeyQuotas *quotas,
                               const CountRule *rules, void *block) noexcept
    : candidates_(candidates), size_(size) {
  assert(size.groups <= size.keys && reinterpret_cast<uintptr_t>(block) % alignof(int64_t) == 0);
  LayOut(size, block);
  FillGroups(quotas);
  FillQuotas(rules);
  for (uint32_t i = 0; i < size.groups; ++i) Refresh(&groups_[i]);
}

// Gives each group its keys and quotas; all of its keys may serve.
void SelectionOrder::FillGroups(const KeyQuotas *quotas) noexcept {
  for (uint32_t i = 0; i < size_.keys; ++i) ++GroupOf(i).count;
  OrderPlace *places = places_;
  for (uint32_t i = 0; i < size_.groups; ++i) {
    groups_[i].places = places;
    groups_[i].serving_at = groups_[i].moment_at = kNoIndex;
    places += groups_[i].count;
  }
  for (uint32_t i = 0; i < size_.keys; ++i) {
    Group *group = &GroupOf(i);
    std::copy(quotas[i].quota, quotas[i].quota + kQuotasOfKey, group->quota);
    group->places[group->serving].key = i;
    ServeAgain(group, group->serving);
  }
}

// Gives each quota the groups under it.
void SelectionOrder::FillQuotas(const CountRule *rules) noexcept {
  auto each = [this](auto what) {
    for (uint32_t i = 0; i < size_.groups; ++i)
      for (uint32_t index : groups_[i].quota)
        if (index != kNoIndex) what(&quotas_[index], i);
  };
  each([](Quota *quota, uint32_t) { ++quota->group_count; });
  uint32_t *groups = quota_groups_;
  for (uint32_t i = 0; i < size_.quotas; ++i) {
    quotas_[i].rule = rules[i];
    quotas_[i].groups = groups;
    groups += std::exchange(quotas_[i].group_count, 0);
  }
  each([](Quota *quota, uint32_t group) { quota->groups[quota->group_count++] = group; });
}

bool SelectionOrder::IsConsistent(const Group &group) const noexcept {
  uint32_t index = static_cast<uint32_t>(&group - groups_);
  bool serves = group.until == 0 && group.serving > 0;
  bool good = group.serving + group.waiting <= group.count && IsHeap(ServingKeys{*this, group}) &&
              IsHeap(WaitingKeys{*this, group}) && serves == (group.serving_at != kNoIndex);
  if (serves)
    good = good && serving_[group.serving_at].group == index &&
           serving_[group.serving_at].best.key == group.places[0].key &&
           serving_[group.serving_at].best.rank == group.places[0].rank;
  if (group.moment_at != kNoIndex) good = good && moments_[group.moment_at].key == index;
  for (uint32_t at = 0; at < group.count; ++at) good = good && candidates_[group.places[at].key].group == index;
  for (uint32_t at = 0; at < group.waiting; ++at)
    good = good && position_[group.places[group.count - 1 - at].key] == at;
  return good;
}

bool SelectionOrder::IsConsistent() const noexcept {
  uint32_t keys = 0, remembered = 0, serving = 0, moments = 0;
  for (uint32_t i = 0; i < size_.groups; ++i) {
    if (!IsConsistent(groups_[i])) return false;
    keys += groups_[i].count;
    remembered += groups_[i].waiting;
    serving += groups_[i].serving_at != kNoIndex;
    moments += groups_[i].moment_at != kNoIndex;
  }
  for (uint32_t i = 0; i < size_.quotas; ++i) remembered += quotas_[i].known.wait.moment != 0;
  return keys == size_.keys && remembered == remembered_ && serving == serving_groups_ && moments == moments_count_ &&
         IsHeap(ServingGroups{*this}) && IsHeap(Moments{*this});
}

}  // namespace keypool
