// window.cpp - the rules by which a key's state decides and changes.
#include "core/window.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace keypool {

namespace {

// More than any bucket can honestly hold; one that a crash tore counts as less than this.
constexpr int64_t kBucketTokens = (int64_t{1} << 50) - 1;

int SecondBucket(Second second) { return static_cast<int>(second % kSecondBuckets); }
int MinuteBucket(Minute minute) { return static_cast<int>(minute % kMinuteBuckets); }

// Tags are unsigned, so one comparison finds those in [newest - 60, newest].
bool InWindow(Second second, Second newest) { return newest - second <= kWindowSeconds; }

Second SecondOf(TimeUs time) { return static_cast<Second>(time / kMicrosPerSecond); }

int64_t Bounded(int64_t tokens) { return tokens & kBucketTokens; }

int64_t SaturatingSum(int64_t sum, int64_t amount) {
  return __builtin_add_overflow(sum, amount, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

uint32_t SaturatingNext(uint32_t count) { return count + (count != std::numeric_limits<uint32_t>::max()); }

// The recorded bucket of a second, emptied if it still holds an older one.
int OpenRecordedBucket(StateEdit *edit, Second second) {
  const RecordedUsage &recorded = edit->state().recorded;
  int bucket = SecondBucket(second);
  if (recorded.second[bucket] != second) {
    edit->Set(recorded.second[bucket], second);
    edit->Set(recorded.requests[bucket], 0);
    edit->Set(recorded.tokens[bucket], 0);
  }
  edit->Set(recorded.newest_second, std::max(recorded.newest_second, second));
  return bucket;
}

int OpenReservedBucket(ReservedUsage *reserved, Second second) {
  int bucket = SecondBucket(second);
  if (reserved->second[bucket] != second) {
    reserved->second[bucket] = second;
    reserved->granted[bucket] = 0;
    reserved->open_count[bucket] = 0;
    reserved->open[bucket] = 0;
    reserved->tokens[bucket] = 0;
  }
  reserved->newest_second = second;
  return bucket;
}

int OpenMinuteBucket(StateEdit *edit, Minute minute) {
  const RecordedUsage &recorded = edit->state().recorded;
  int bucket = MinuteBucket(minute);
  if (recorded.minute[bucket] != minute) {
    edit->Set(recorded.minute[bucket], minute);
    edit->Set(recorded.minute_requests[bucket], 0);
    edit->Set(recorded.minute_rate_limited[bucket], 0);
    edit->Set(recorded.minute_tokens[bucket], 0);
  }
  return bucket;
}

Minute MinuteOf(TimeUs time) { return SecondOf(time) / 60; }

// Takes one open reservation of `tokens` off a bucket's sums; nothing is left when nothing is open.
void CloseOne(StateEdit *edit, int bucket, int64_t tokens) {
  const ReservedUsage &reserved = edit->state().reserved;
  uint32_t open = reserved.open_count[bucket];
  if (open > 0) edit->Set(reserved.open_count[bucket], open - 1);
  int64_t left = open <= 1 ? 0 : std::max<int64_t>(Bounded(reserved.tokens[bucket]) - tokens, 0);
  edit->Set(reserved.tokens[bucket], left);
}

enum class Taken { kOpen, kSettled, kForgotten };

// Takes a reservation of the window out of its bucket, or tells why it is not there.
Taken TakeReservation(StateEdit *edit, const Reservation &reservation) {
  const ReservedUsage &reserved = edit->state().reserved;
  int bucket = SecondBucket(reservation.second);
  if (reserved.second[bucket] != reservation.second) return Taken::kForgotten;
  if (reservation.sequence >= kTrackedGrants) {
    if (reserved.granted[bucket] < kTrackedGrants) return Taken::kForgotten;
    if (reserved.open_count[bucket] <= static_cast<uint32_t>(std::popcount(reserved.open[bucket])))
      return Taken::kSettled;
  } else {
    uint64_t bit = uint64_t{1} << reservation.sequence;
    if (reservation.sequence >= reserved.granted[bucket]) return Taken::kForgotten;
    if ((reserved.open[bucket] & bit) == 0) return Taken::kSettled;
    edit->Set(reserved.open[bucket], reserved.open[bucket] & ~bit);
  }
  CloseOne(edit, bucket, reservation.tokens);
  return Taken::kOpen;
}

// Takes the oldest open reservation of the window; false if none is open.
bool TakeOldest(StateEdit *edit, Second newest, Second *second) {
  const ReservedUsage &reserved = edit->state().reserved;
  for (Second age = 0; age <= kWindowSeconds; ++age) {
    Second candidate = newest - kWindowSeconds + age;
    int bucket = SecondBucket(candidate);
    if (reserved.second[bucket] != candidate) continue;
    int64_t open = reserved.open_count[bucket];
    if (open == 0) continue;
    edit->Set(reserved.open[bucket], reserved.open[bucket] & (reserved.open[bucket] - 1));  // the lowest is the oldest
    CloseOne(edit, bucket, Bounded(reserved.tokens[bucket]) / open);
    *second = candidate;
    return true;
  }
  return false;
}

// The second in which a settled request counts anew; false if the window's requests stay as they are.
bool SettledSecond(StateEdit *edit, const Reservation *reservation, Second now, Second *counts_in) {
  *counts_in = now;
  if (reservation == nullptr) {
    TakeOldest(edit, now, counts_in);
    return true;
  }
  Second granted_in = std::min(reservation->second, now);
  if (!InWindow(granted_in, now)) return false;
  *counts_in = granted_in;
  return TakeReservation(edit, *reservation) != Taken::kSettled;
}

// What is in a window, second by second, oldest first.
struct WindowBySecond {
  int64_t requests[kWindowSeconds + 1] = {};
  int64_t tokens[kWindowSeconds + 1] = {};
};

WindowBySecond SplitWindow(const KeyState &state, Second newest) {
  WindowBySecond window;
  for (int i = 0; i < kSecondBuckets; ++i) {
    if (InWindow(state.recorded.second[i], newest)) {
      Second at = kWindowSeconds - (newest - state.recorded.second[i]);
      window.requests[at] += state.recorded.requests[i];
      window.tokens[at] += Bounded(state.recorded.tokens[i]);
    }
    if (InWindow(state.reserved.second[i], newest)) {
      Second at = kWindowSeconds - (newest - state.reserved.second[i]);
      window.requests[at] += state.reserved.open_count[i];
      window.tokens[at] += Bounded(state.reserved.tokens[i]);
    }
  }
  return window;
}

bool Fits(const Limits &limits, int64_t requests, int64_t tokens, int64_t more_tokens) {
  bool requests_fit = limits.max_rpm == 0 || requests < limits.max_rpm;
  bool tokens_fit = limits.max_tpm == 0 || (tokens < limits.max_tpm && tokens + more_tokens <= limits.max_tpm);
  return requests_fit && tokens_fit;
}

// The first second at which the limits admit the request, if nothing else happens: buckets leave oldest first, and a
// window without any usage admits whatever CanEverServe.
Second FirstAdmittingSecond(const KeyState &state, const Limits &limits, WindowUse use, int64_t tokens, Second now) {
  WindowBySecond window = SplitWindow(state, now);
  Second passed = 0;
  while (passed <= kWindowSeconds && !Fits(limits, use.requests, use.tokens, tokens)) {
    use.requests -= window.requests[passed];
    use.tokens -= window.tokens[passed];
    ++passed;
  }
  return now + passed;
}

}  // namespace

TimeUs KeyNow(const KeyState &state, TimeUs now) noexcept {
  Second newest = std::max(state.recorded.newest_second, state.reserved.newest_second);
  return std::max(now, TimeUs{newest} * kMicrosPerSecond);
}

Second KeySecond(const KeyState &state, TimeUs now) noexcept { return SecondOf(KeyNow(state, now)); }

WindowUse UseInWindow(const KeyState &state, TimeUs now) noexcept {
  Second newest = KeySecond(state, now);
  WindowUse use = {};
  // Without branches: on the way of every selection.
  for (int i = 0; i < kSecondBuckets; ++i) {
    int64_t recorded = -int64_t{InWindow(state.recorded.second[i], newest)};
    use.requests += recorded & state.recorded.requests[i];
    use.tokens += recorded & Bounded(state.recorded.tokens[i]);
    int64_t reserved = -int64_t{InWindow(state.reserved.second[i], newest)};
    use.open += reserved & state.reserved.open_count[i];
    use.tokens += reserved & Bounded(state.reserved.tokens[i]);
  }
  use.requests += use.open;
  return use;
}

Admission Admit(const KeyState &state, const Limits &limits, int64_t tokens, TimeUs now) noexcept {
  TimeUs key_now = KeyNow(state, now);
  bool cooling = state.recorded.cooldown_until > key_now;
  bool limited = limits.max_rpm != 0 || limits.max_tpm != 0;
  WindowUse use = limited ? UseInWindow(state, now) : WindowUse{};
  if (!cooling && Fits(limits, use.requests, use.tokens, tokens)) return {true, false, 0};
  TimeUs moment = key_now;
  if (limited) {
    Second second = SecondOf(key_now);
    Second admitting = FirstAdmittingSecond(state, limits, use, tokens, second);
    if (admitting > second) moment = TimeUs{admitting} * kMicrosPerSecond;
  }
  if (cooling) moment = std::max(moment, state.recorded.cooldown_until);
  return {false, cooling, moment};
}

Wait WaitOf(const KeyState &state, const Limits &limits, int64_t tokens, TimeUs now) noexcept {
  int64_t room = limits.max_tpm == 0 ? tokens : std::max<int64_t>(limits.max_tpm - UseInWindow(state, now).tokens, 0);
  // Either nothing is served, or all that leaves the tokens within their limit.
  int64_t refused = Admit(state, limits, 0, now).admitted ? std::min(room + 1, tokens) : 0;
  Admission admission = Admit(state, limits, refused, now);
  return {admission.moment, static_cast<uint32_t>(refused), admission.cooling};
}

Load LoadOf(const KeyState &state) noexcept {
  WindowUse use = UseInWindow(state, 0);
  TimeUs until = state.recorded.cooldown_until;
  return {use.requests, use.tokens, until > KeyNow(state, 0) ? until : 0};
}

Reservation Reserve(KeyState *state, int64_t tokens, TimeUs now, int64_t newest_grant) noexcept {
  Second second = KeySecond(*state, now);
  ReservedUsage *reserved = &state->reserved;
  int bucket = OpenReservedBucket(reserved, second);
  uint32_t sequence = reserved->granted[bucket];
  if (sequence < kTrackedGrants) {
    ++reserved->granted[bucket];
    reserved->open[bucket] |= uint64_t{1} << sequence;
  }
  reserved->open_count[bucket] = SaturatingNext(reserved->open_count[bucket]);
  reserved->tokens[bucket] = Bounded(reserved->tokens[bucket]) + tokens;
  reserved->last_grant = std::max(now, std::max(reserved->last_grant, newest_grant) + 1);
  return {second, sequence, tokens};
}

bool Release(StateEdit *edit, const Reservation &reservation, TimeUs now) noexcept {
  if (!InWindow(reservation.second, KeySecond(edit->state(), now))) return false;
  return TakeReservation(edit, reservation) == Taken::kOpen;
}

void Record(StateEdit *edit, const Reservation *reservation, int64_t tokens, TimeUs now) noexcept {
  const RecordedUsage &recorded = edit->state().recorded;
  TimeUs key_now = KeyNow(edit->state(), now);
  Second second = SecondOf(key_now);
  Second counts_in;
  if (SettledSecond(edit, reservation, second, &counts_in)) {
    int bucket = OpenRecordedBucket(edit, counts_in);
    edit->Set(recorded.requests[bucket], SaturatingNext(recorded.requests[bucket]));
  }
  int bucket = OpenRecordedBucket(edit, second);
  edit->Set(recorded.tokens[bucket], Bounded(recorded.tokens[bucket]) + tokens);
  int minute = OpenMinuteBucket(edit, MinuteOf(key_now));
  edit->Set(recorded.minute_requests[minute], SaturatingNext(recorded.minute_requests[minute]));
  edit->Set(recorded.minute_tokens[minute], SaturatingSum(recorded.minute_tokens[minute], tokens));
  edit->Set(recorded.total_requests, SaturatingSum(recorded.total_requests, 1));
  edit->Set(recorded.total_tokens, SaturatingSum(recorded.total_tokens, tokens));
  edit->Set(recorded.last_used_at, key_now);
}

TimeUs Mark429(StateEdit *edit, const Reservation *reservation, TimeUs cooldown, TimeUs now) noexcept {
  const RecordedUsage &recorded = edit->state().recorded;
  TimeUs key_now = KeyNow(edit->state(), now);
  if (reservation != nullptr) Record(edit, reservation, 0, now);
  int minute = OpenMinuteBucket(edit, MinuteOf(key_now));
  edit->Set(recorded.minute_rate_limited[minute], SaturatingNext(recorded.minute_rate_limited[minute]));
  edit->Set(recorded.newest_second, std::max(recorded.newest_second, SecondOf(key_now)));
  edit->Set(recorded.last_429_at, key_now);
  edit->Set(recorded.cooldown_until, std::max(recorded.cooldown_until, key_now + cooldown));
  return recorded.cooldown_until;
}

void ClearCooldown(StateEdit *edit) noexcept { edit->Set(edit->state().recorded.cooldown_until, 0); }

int UsageByMinute(const KeyState &state, int minutes, TimeUs now, MinuteUse (&out)[kMinuteBuckets]) noexcept {
  Minute newest = MinuteOf(KeyNow(state, now));
  int count = 0;
  for (int age = 0; age < std::min(minutes, kMinuteBuckets); ++age) {
    Minute minute = newest - static_cast<Minute>(age);
    int bucket = MinuteBucket(minute);
    if (state.recorded.minute[bucket] != minute) continue;
    out[count++] = {minute, state.recorded.minute_requests[bucket], state.recorded.minute_rate_limited[bucket],
                    state.recorded.minute_tokens[bucket]};
  }
  return count;
}

}  // namespace keypool
