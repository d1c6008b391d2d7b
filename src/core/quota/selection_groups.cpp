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
  ServingGroup place = {group->places[0], static_cast<uint32_t>(group - groups_)};
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
  return KnownOfQuota(quota) != nullptr && quotas_[quota].applies;
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
  if (known.busy) busy_quota_ = index;
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

uint32_t SelectionOrder::BusyKeyUnder(const Quota &quota) const noexcept {
  if (quota.known.wait.moment <= begun_at_ || !quota.known.busy || !quota.applies) return kNoIndex;
  for (uint32_t i = 0; i < quota.group_count; ++i) {
    const Group &group = groups_[quota.groups[i]];
    if (group.until != kNever && FirstOf(group) != kNoIndex) return FirstOf(group);
  }
  return kNoIndex;
}

uint32_t SelectionOrder::BusyKey() noexcept {
  if (busy_ == 0) return kNoIndex;
  if (size_.quotas > 0 && BusyKeyUnder(quotas_[busy_quota_]) != kNoIndex) return BusyKeyUnder(quotas_[busy_quota_]);
  if (IsWaiting(busy_key_) && candidates_[busy_key_].known.busy) return busy_key_;
  for (busy_quota_ = 0; busy_quota_ < size_.quotas; ++busy_quota_)
    if (BusyKeyUnder(quotas_[busy_quota_]) != kNoIndex) return BusyKeyUnder(quotas_[busy_quota_]);
  busy_quota_ = 0;
  for (busy_key_ = 0; busy_key_ < size_.keys; ++busy_key_)
    if (IsWaiting(busy_key_) && candidates_[busy_key_].known.busy) return busy_key_;
  busy_key_ = 0;
  return kNoIndex;
}

}  // namespace keypool
