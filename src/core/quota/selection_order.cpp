// selection_order.cpp - the heaps behind the choice of the next key.
#include "core/quota/selection_order.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "core/quota/selection_heaps.h"

namespace keypool {

void SelectionOrder::Raise(Size *most, const Size &size) noexcept {
  *most = {std::max(most->tokens, size.tokens), std::max(most->output, size.output), std::max(most->cost, size.cost)};
}

uint32_t SelectionOrder::FirstOf(const Group &group) const noexcept {
  if (group.until != 0 && group.serving > 0) return group.places[0].key;
  return group.waiting > 0 ? group.places[group.count - 1].key : kNoIndex;
}

bool SelectionOrder::IsWaiting(uint32_t key) const noexcept {
  assert(key < size_.keys);
  const Group &group = GroupOf(key);
  uint32_t at = position_[key];
  return at < group.waiting && group.places[group.count - 1 - at].key == key;
}

uint32_t SelectionOrder::FirstWaiting() const noexcept {
  assert(empty() && waiting());
  return FirstOf(FirstGroup());
}

const KnownWait *SelectionOrder::KnownOf(uint32_t key) const noexcept {
  return IsWaiting(key) ? &candidates_[key].known : nullptr;
}

void SelectionOrder::NoteKnown(const KnownWait &known, int change) noexcept {
  remembered_ += static_cast<uint32_t>(change);
  if (known.busy) busy_ += static_cast<uint32_t>(change);
}

// Takes a key that neither serves nor waits into those that may serve.
void SelectionOrder::ServeAgain(Group *group, uint32_t at) noexcept {
  assert(at >= group->serving && at < group->count - group->waiting);
  const Candidate &candidate = candidates_[group->places[at].key];
  OrderPlace place = {candidate.standing, candidate.priority, group->places[at].key};
  group->places[at] = group->places[group->serving];
  ++group->serving;
  SiftUp(ServingKeys{*this, *group}, group->serving - 1, place);
}

// Leaves the first that serves behind the others.
void SelectionOrder::TakeServing(Group *group) noexcept {
  assert(group->serving > 0);
  OrderPlace first = group->places[0];
  candidates_[first.key].standing = first.rank;
  OrderPlace last = group->places[--group->serving];
  if (group->serving > 0) SiftDown(ServingKeys{*this, *group}, 0, last);
  group->places[group->serving] = first;
}

// Lets the key wait that TakeServing left.
void SelectionOrder::AddWaiting(Group *group, const KnownWait &known) noexcept {
  assert(known.wait.moment > 0 && group->serving < group->count - group->waiting);
  uint32_t key = group->places[group->serving].key;
  candidates_[key].known = known;
  std::swap(group->places[group->serving], group->places[group->count - 1 - group->waiting]);
  ++group->waiting;
  SiftUp(WaitingKeys{*this, *group}, group->waiting - 1, PlaceOf(known.wait, key));
  NoteKnown(known, 1);
  group->busy += known.busy;
  Raise(&group->most, SizeOf(known));
  Raise(&most_, SizeOf(known));
  if (known.busy) group->busy_key = key;
  if (known.for_this_walk) MarkUntidy(group);
}

// Leaves a key that waits before the others.
void SelectionOrder::TakeWaiting(Group *group, uint32_t at) noexcept {
  assert(at < group->waiting);
  WaitingKeys heap{*this, *group};
  OrderPlace taken = heap.At(at);
  NoteKnown(candidates_[taken.key].known, -1);
  group->busy -= candidates_[taken.key].known.busy;
  OrderPlace last = heap.At(--group->waiting);
  heap.size = group->waiting;
  if (at < group->waiting) Sift(heap, at, last);
  group->places[group->count - 1 - group->waiting] = taken;
}

void SelectionOrder::SetFirstWait(Group *group, const KnownWait &known) noexcept {
  assert(group->waiting > 0 && known.wait.moment > 0);
  uint32_t key = group->places[group->count - 1].key;
  NoteKnown(candidates_[key].known, -1);
  NoteKnown(known, 1);
  group->busy += known.busy;
  group->busy -= candidates_[key].known.busy;
  candidates_[key].known = known;
  SiftDown(WaitingKeys{*this, *group}, 0, PlaceOf(known.wait, key));
  Raise(&group->most, SizeOf(known));
  Raise(&most_, SizeOf(known));
  if (known.busy) group->busy_key = key;
  if (known.for_this_walk) MarkUntidy(group);
}

void SelectionOrder::MarkUntidy(Group *group) noexcept {
  if (group->untidy) return;
  group->untidy = true;
  untidy_[untidy_count_++] = static_cast<uint32_t>(group - groups_);
}

// Lets all keys of a group serve again that wait and meet the condition, and those that were set aside. Linear in those
// that wait.
template <typename Condition>
void SelectionOrder::WakeIf(Group *group, Condition condition) noexcept {
  uint32_t waited = group->waiting;
  group->waiting = 0;
  group->most = {};
  // Those that stay are made a heap again, one by one, in front of what is still to be looked at.
  for (uint32_t at = 0; at < waited; ++at) {
    OrderPlace *place = &group->places[group->count - 1 - at];
    const KnownWait &known = candidates_[place->key].known;
    if (condition(known)) {
      NoteKnown(known, -1);
      group->busy -= known.busy;
      continue;
    }
    Raise(&group->most, SizeOf(known));
    OrderPlace staying = *place;
    *place = group->places[group->count - 1 - group->waiting];
    ++group->waiting;
    SiftUp(WaitingKeys{*this, *group}, group->waiting - 1, staying);
  }
  while (group->serving + group->waiting < group->count) ServeAgain(group, group->serving);
}

void SelectionOrder::Begin(const Amounts &amounts, TimeUs now) noexcept {
  amounts_ = amounts;
  bool stepped_back = now < std::exchange(begun_at_, now);
  bool same = !stepped_back && (untidy_count_ | watched_count_) == 0 && NextMoment() > now && Covers(Asked(), most_);
  if (!same) Review(stepped_back);
}

void SelectionOrder::Review(bool all) noexcept {
  if (all) WakeAll();
  TidyGroups();
  ReviewQuotas();
  while (NextMoment() <= begun_at_) PassMoment(&FirstGroup());
  if (!Covers(Asked(), most_)) WakeWhatWaitsForMore();
}

void SelectionOrder::TidyGroups() noexcept {
  while (untidy_count_ > 0) {
    Group *group = &groups_[untidy_[--untidy_count_]];
    group->untidy = false;
    WakeIf(group, [](const KnownWait &known) { return known.for_this_walk; });
    Refresh(group);
  }
}

// The first moment of a group has come.
void SelectionOrder::PassMoment(Group *group) noexcept {
  assert(group->until <= begun_at_);
  while (group->waiting > 0 && group->places[group->count - 1].rank <= begun_at_) {
    TakeWaiting(group, 0);
    ServeAgain(group, group->count - 1 - group->waiting);
  }
  Refresh(group);
}

// Linear in the keys that wait: for when a smaller request comes than before.
void SelectionOrder::WakeWhatWaitsForMore() noexcept {
  most_ = {};
  for (uint32_t i = 0; i < size_.groups; ++i) {
    Group *group = &groups_[i];
    if (!Covers(Asked(), group->most)) {
      WakeIf(group, [this](const KnownWait &known) { return !Covers(Asked(), SizeOf(known)); });
      Refresh(group);
    }
    Raise(&most_, group->most);
  }
}

void SelectionOrder::CorrectTop(int64_t standing) noexcept {
  assert(!empty());
  Group *group = &TopGroup();
  OrderPlace place = group->places[0];
  place.rank = standing;
  SiftDown(ServingKeys{*this, *group}, 0, place);
  serving_[0].best = group->places[0];
  if (serving_groups_ > 1) SiftDown(ServingGroups{*this}, 0, ServingGroup{serving_[0]});
}

void SelectionOrder::SetTopAside() noexcept {
  assert(!empty());
  Group *group = &TopGroup();
  TakeServing(group);
  MarkUntidy(group);
  Refresh(group);
}

void SelectionOrder::LetTopWait(const KnownWait &known) noexcept {
  assert(!empty());
  Group *group = &TopGroup();
  TakeServing(group);
  AddWaiting(group, known);
  Refresh(group);
}

void SelectionOrder::LetFirstWait(const KnownWait &known) noexcept {
  Group *group = &FirstGroup();
  if (!IsWaiting(FirstWaiting())) {
    TakeServing(group);
    AddWaiting(group, known);
  } else {
    SetFirstWait(group, known);
  }
  Refresh(group);
}

void SelectionOrder::WakeFirst() noexcept { Wake(FirstWaiting()); }

void SelectionOrder::SetFirstAside() noexcept {
  Group *group = &FirstGroup();
  if (!IsWaiting(FirstWaiting()))
    TakeServing(group);
  else
    TakeWaiting(group, 0);
  MarkUntidy(group);
  Refresh(group);
}

void SelectionOrder::Wake(uint32_t key) noexcept {
  if (!IsWaiting(key)) return;
  Group *group = &GroupOf(key);
  TakeWaiting(group, position_[key]);
  ServeAgain(group, group->count - 1 - group->waiting);
  Refresh(group);
}

void SelectionOrder::WakeAll() noexcept {
  for (uint32_t i = 0; i < size_.quotas; ++i) {
    if (quotas_[i].known.wait.moment != 0) Forget(&quotas_[i]);
    quotas_[i].aside = quotas_[i].watched = false;
  }
  untidy_count_ = watched_count_ = 0;
  for (uint32_t i = 0; i < size_.groups; ++i) {
    groups_[i].untidy = false;
    WakeIf(&groups_[i], [](const KnownWait &) { return true; });
    Refresh(&groups_[i]);
  }
  most_ = {};
  assert(remembered_ == 0 && busy_ == 0 && moments_count_ == 0);
}

}  // namespace keypool
