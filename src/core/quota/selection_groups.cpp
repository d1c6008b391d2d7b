// selection_groups.cpp - where the groups of a selection order belong, and their quotas.
#include <algorithm>
#include <cassert>
#include <utility>

#include "core/quota/selection_heaps.h"

namespace keypool {

void SelectionOrder::RefreshUntil(Group *group) noexcept {
  group->until = 0;
  group->until_cools = false;
  for (uint32_t index : group->quota) {
    if (index == kNoIndex) break;
    Quota *quota = &quotas_[index];
    if (quota->known.wait.moment != 0 && quota->known.wait.moment <= begun_at_) Forget(quota);
    bool waits = quota->known.wait.moment != 0 && quota->applies;
    TimeUs until = quota->aside ? kNever : waits ? quota->known.wait.moment : 0;
    if (until > group->until) group->until_cools = false;
    group->until = std::max(group->until, until);
    group->until_cools |= waits && until == group->until && quota->known.wait.cooling;
  }
}

void SelectionOrder::PlaceServing(Group *group) noexcept {
  if (group->until != 0 || group->serving == 0) {
    RemoveServing(group);
    return;
  }
  ServingGroup place = {group->places[0], static_cast<uint32_t>(group - groups_), 0};
  bool added = group->serving_at == kNoIndex;
  if (added) group->serving_at = serving_groups_++;
  Sift(ServingGroups{*this}, group->serving_at, place);
}

void SelectionOrder::RemoveServing(Group *group) noexcept {
  uint32_t at = std::exchange(group->serving_at, kNoIndex);
  if (at == kNoIndex) return;
  assert(at < serving_groups_);
  ServingGroup last = serving_[--serving_groups_];
  if (at < serving_groups_) Sift(ServingGroups{*this}, at, last);
}

void SelectionOrder::PlaceMoment(Group *group) noexcept {
  bool blocked = group->until != 0;
  bool never = group->until == kNever || (group->waiting == 0 && (group->serving == 0 || !blocked));
  if (never) {
    RemoveMoment(group);
    return;
  }
  OrderPlace place = {group->until, group->until_cools ? 0 : 1, static_cast<uint32_t>(group - groups_)};
  if (!blocked || group->serving == 0) {
    const OrderPlace &first = group->places[group->count - 1];
    if (first.rank == place.rank) place.tier = std::min(place.tier, first.tier);
    if (first.rank > place.rank) place.tier = first.tier;
    place.rank = std::max(place.rank, first.rank);
  }
  if (group->moment_at == kNoIndex) group->moment_at = moments_count_++;
  Sift(Moments{*this}, group->moment_at, place);
}

void SelectionOrder::RemoveMoment(Group *group) noexcept {
  uint32_t at = std::exchange(group->moment_at, kNoIndex);
  if (at == kNoIndex) return;
  assert(at < moments_count_);
  OrderPlace last = moments_[--moments_count_];
  if (at < moments_count_) Sift(Moments{*this}, at, last);
}

void SelectionOrder::Refresh(Group *group) noexcept {
  RefreshUntil(group);
  PlaceServing(group);
  PlaceMoment(group);
}

void SelectionOrder::RefreshGroups(const Quota &quota) noexcept {
  for (uint32_t i = 0; i < quota.group_count; ++i) Refresh(&groups_[quota.groups[i]]);
}

SelectionOrder::Size SelectionOrder::AskedOf(const Quota &quota) const noexcept {
  return {CountedTokens(amounts_, quota.rule), amounts_.output, amounts_.cost};
}

const KnownWait *SelectionOrder::KnownOfQuota(uint32_t quota) const noexcept {
  assert(quota < size_.quotas);
  return quotas_[quota].known.wait.moment != 0 ? &quotas_[quota].known : nullptr;
}

bool SelectionOrder::QuotaWaits(uint32_t quota) const noexcept {
  assert(quota < size_.quotas);
  return quotas_[quota].known.wait.moment > begun_at_ && quotas_[quota].applies;
}

void SelectionOrder::Watch(Quota *quota) noexcept {
  if (quota->watched) return;
  quota->watched = true;
  watched_[watched_count_++] = static_cast<uint32_t>(quota - quotas_);
}

void SelectionOrder::Forget(Quota *quota) noexcept {
  NoteKnown(quota->known, -1);
  quota->known = {};
}

void SelectionOrder::LetQuotaWait(uint32_t index, const KnownWait &known) noexcept {
  assert(index < size_.quotas && known.wait.moment > 0);
  Quota *quota = &quotas_[index];
  if (quota->known.wait.moment != 0) Forget(quota);
  NoteKnown(known, 1);
  quota->known = known;
  quota->applies = Covers(AskedOf(*quota), SizeOf(known));
  if (known.for_this_walk || !Covers({}, SizeOf(known))) Watch(quota);
  RefreshGroups(*quota);
}

void SelectionOrder::SetQuotaAside(uint32_t index) noexcept {
  assert(index < size_.quotas);
  quotas_[index].aside = true;
  Watch(&quotas_[index]);
  RefreshGroups(quotas_[index]);
}

void SelectionOrder::WakeQuota(uint32_t index) noexcept {
  assert(index < size_.quotas);
  if (quotas_[index].known.wait.moment == 0) return;
  Forget(&quotas_[index]);
  RefreshGroups(quotas_[index]);
}

// Whether the quota stands otherwise for this walk than for the one before.
bool SelectionOrder::Review(Quota *quota) noexcept {
  bool aside = std::exchange(quota->aside, false);
  bool known = quota->known.wait.moment != 0;
  if (known && (quota->known.for_this_walk || quota->known.wait.moment <= begun_at_)) Forget(quota);
  bool applied = std::exchange(quota->applies, Covers(AskedOf(*quota), SizeOf(quota->known)));
  bool forgotten = known && quota->known.wait.moment == 0;
  return aside || forgotten || applied != quota->applies;
}

void SelectionOrder::ReviewQuotas() noexcept {
  uint32_t count = std::exchange(watched_count_, 0);
  for (uint32_t i = 0; i < count; ++i) {
    Quota *quota = &quotas_[watched_[i]];
    quota->watched = false;
    bool changed = Review(quota);
    Size size = SizeOf(quota->known);
    if (quota->known.wait.moment != 0 && !Covers({}, size)) Watch(quota);
    if (changed) RefreshGroups(*quota);
  }
}

// A key of the group that waits for calls in flight, and until when it waits for other things, too.
SelectionOrder::BusyKeyAt SelectionOrder::BusyKeyOf(Group *group) const noexcept {
  BusyKeyAt busy = {0, kNoIndex};
  bool busy_quota = false;
  for (uint32_t index : group->quota) {
    if (index == kNoIndex || !QuotaWaits(index)) continue;
    busy_quota |= quotas_[index].known.busy;
    if (!quotas_[index].known.busy) busy.until = std::max(busy.until, quotas_[index].known.wait.moment);
  }
  for (uint32_t at = 0; group->busy > 0 && busy.key == kNoIndex; ++at) {
    // Where it was seen last, or one of the first.
    uint32_t key = at == 0 ? group->busy_key : group->places[group->count - at].key;
    if (IsWaiting(key) && candidates_[key].known.busy) group->busy_key = busy.key = key;
  }
  if (busy.key != kNoIndex || !busy_quota || FirstOf(*group) == kNoIndex) return busy;
  if (group->serving == 0) busy.until = std::max(busy.until, group->places[group->count - 1].rank);
  return {busy.until, FirstOf(*group)};
}

uint32_t SelectionOrder::BusyKey() noexcept {
  BusyKeyAt first = {kNever, kNoIndex};
  uint32_t begin = busy_group_;
  for (uint32_t i = 0; busy_ > 0 && i < size_.groups && first.until > begun_at_; ++i) {
    uint32_t index = begin + i < size_.groups ? begin + i : begin + i - size_.groups;
    if (groups_[index].until == kNever) continue;
    BusyKeyAt busy = BusyKeyOf(&groups_[index]);
    if (busy.key == kNoIndex || busy.until >= first.until) continue;
    first = busy;
    busy_group_ = index;
  }
  return first.key;
}

}  // namespace keypool
