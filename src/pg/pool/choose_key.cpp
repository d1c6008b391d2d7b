// choose_key.cpp - finding the key of a pool that serves a request, and reserving it.
#include "pg/pool/choose_key.h"

#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/state/state_store.h"
#include "pg/state/wakeups.h"

using keypool::Admission;
using keypool::Code;
using keypool::KeyId;
using keypool::Status;
using keypool::TimeUs;
using keypool::Wait;

Status open_pool_secret(const Pool &pool, uint32 index) {
  return open_secret(pool.keys[index].secret, {pool.candidates[index].id, pool.provider});
}

// Silent while the keyring is not usable, which may be the cause, and is in the log. Once it is mended, all secrets are
// tried anew.
static void warn_unopened(const keypool::KeyId &id, const Status &status) {
  static HTAB *warned = nullptr;  // keys, since the keyring was loaded
  static uint32 generation = 0;
  if (!master_keys_problem().ok()) return;
  if (generation != master_keys_generation() && warned != nullptr) {
    hash_destroy(warned);
    warned = nullptr;
  }
  generation = master_keys_generation();
  if (warned == nullptr) {
    HASHCTL control = {};
    control.keysize = control.entrysize = sizeof(keypool::KeyId);
    warned = hash_create("keypool warned keys", 16, &control, HASH_ELEM | HASH_BLOBS);
  }
  bool found;
  hash_search(warned, &id, HASH_ENTER, &found);
  if (found) return;
  pg_uuid_t uuid;
  memcpy(uuid.data, id.bytes, UUID_LEN);
  ereport(WARNING, errmsg("keypool: key %s is skipped: %s",
                          DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid))), status.message));
}

// Whether a key's secret opens. Found out once per key and keyring, before the key is ever reserved: neither the stored
// value nor the keyring can change without that being forgotten. Only the first key of a walk whose master key is
// missing is tried again, to tell which master key that is; and that looks whether the keyring has it by now.
static bool secret_opens(Pool *pool, uint32 index, Refusal *refusal) {
  PoolKey *key = &pool->keys[index];
  if (key->opens == Opens::kYes) return true;
  bool known = key->opens == Opens::kNo || (key->opens == Opens::kMissingMasterKey && !refusal->problem.ok());
  Status status;
  if (!known) status = open_pool_secret(*pool, index);
  opened_secret_wipe();
  bool missing = status.code == Code::kMissingMasterKey;
  if (!known) key->opens = status.ok() ? Opens::kYes : missing ? Opens::kMissingMasterKey : Opens::kNo;
  if (key->opens == Opens::kYes) return true;
  refusal->unopened = true;
  if (known) return false;
  if (missing) refusal->problem = status;
  if (status.code == Code::kInternal) report_status(status);
  warn_unopened(pool->candidates[index].id, status);
  return false;
}

// Forgets which secrets open if another keyring was loaded since.
static void match_keyring(Pool *pool) {
  if (pool->keyring_generation == master_keys_generation()) return;
  for (int i = 0; i < pool->count; ++i) pool->keys[i].opens = Opens::kUnknown;
  pool->order.WakeAll();  // keys that waited may not open now
  pool->keyring_generation = master_keys_generation();
}

// One walk under way.
struct Walker {
  Relation state;
  Pool *pool;
  const Request &request;
  Refusal *refusal;
  bool may_wait;  // whether keys may be let wait: somebody must be there to tell of what frees them
  Wakeups ring;   // opened when the first key waits
};

// Opens the ring, if it is not open yet and may be. From here on `wakeups_seen` counts what is posted.
static bool open_ring(Walker *walker) {
  if (wakeups_is_open(walker->ring)) return true;
  if (!walker->may_wait) return false;
  walker->ring = wakeups_open(walker->pool->hash, AccessShareLock);
  walker->may_wait = wakeups_is_open(walker->ring);
  if (walker->may_wait && !walker->pool->order.waiting()) walker->pool->wakeups_seen = wakeups_count(walker->ring);
  return walker->may_wait;
}

// Whether a key that waits may be better by now than the walk believes. Read while the key that is chosen is locked,
// this makes the choice one step.
static bool waits_are_over(const Walker &walker, TimeUs now) {
  const keypool::SelectionOrder &order = walker.pool->order;
  return order.waiting() && (order.FirstMoment() <= now || wakeups_count(walker.ring) != walker.pool->wakeups_seen);
}

// Lets the keys serve again that were posted since the last time.
static void take_in_wakeups(const Walker &walker) {
  KeyId freed[kWakeupsRemembered];
  Pool *pool = walker.pool;
  uint64 posted = wakeups_read(walker.ring, &pool->wakeups_seen, freed);
  if (posted > kWakeupsRemembered) {
    pool->order.WakeAll();
    return;
  }
  for (uint64 i = 0; i < posted; ++i) {
    int index = pool_cache_index(*pool, freed[i]);
    if (index >= 0 && index < pool->active_count) pool->order.Wake(static_cast<uint32>(index));
  }
}

// The newest grant that this process has seen. To choose a key, all keys that were granted since have been looked at,
// so a number after this one is after theirs.
static int64 newest_grant = 0;

// What looking at one key's state said.
struct Look {
  enum Kind { kGone, kGrantedLater, kBlocked, kServes, kTooSoon } kind;
  int64 last_grant;                  // but of kGone
  Admission admission;               // kBlocked
  bool awaited;                      // kBlocked: a change that frees the key will be told
  Wait wait;                         // kBlocked
  keypool::Reservation reservation;  // kServes and Effect::kGrant
};

// Notes in a key's state that somebody waits for it. A reader may only profit from the note of others.
static bool note_awaited(const Walker &walker, keypool::KeyState *state, bool *changed) {
  bool note = state->reserved.awaited == 0 && walker.request.effect == Effect::kGrant && wakeups_is_open(walker.ring);
  if (note) state->reserved.awaited = 1;
  *changed = *changed || note;
  return state->reserved.awaited != 0 && wakeups_is_open(walker.ring);
}

// Decides under the key's lock, and in the same step reserves it if it serves.
static bool decide(const Walker &walker, const keypool::Limits &limits, keypool::KeyState *state, Look *look) {
  TimeUs now = clock_now();
  int64 tokens = walker.request.tokens;
  bool changed = false;
  look->admission = keypool::Admit(*state, limits, tokens, now);
  if (!look->admission.admitted) {
    look->kind = Look::kBlocked;
    look->awaited = note_awaited(walker, state, &changed);
    if (look->awaited) look->wait = keypool::WaitOf(*state, limits, tokens, now);
  } else if (waits_are_over(walker, now)) {
    look->kind = Look::kTooSoon;
  } else {
    look->kind = Look::kServes;
    if (walker.request.effect == Effect::kPeek) return false;
    look->reservation = keypool::Reserve(state, tokens, now, newest_grant);
    look->last_grant = state->reserved.last_grant;
    changed = true;
  }
  return changed;
}

// Looks at the first key.
static Look look_at_top(const Walker &walker) {
  uint32 index = walker.pool->order.Top();
  PoolKey *key = &walker.pool->keys[index];
  const keypool::KeyId &id = walker.pool->candidates[index].id;
  Look look = {};
  int lock_mode = walker.request.effect == Effect::kGrant ? BUFFER_LOCK_EXCLUSIVE : BUFFER_LOCK_SHARE;
  LockedState locked = state_store_lock_unless_granted(walker.state, key->address, id, lock_mode,
                                                       walker.pool->order.TopGrant(), &key->buffer, &look.last_grant);
  if (locked.state != nullptr) {
    bool changed = decide(walker, key->limits, locked.state, &look);
    state_store_unlock(locked, changed);
  } else {
    look.kind = look.last_grant < 0 ? Look::kGone : Look::kGrantedLater;
  }
  newest_grant = Max(newest_grant, look.last_grant);
  return look;
}

static void note_blocked(const keypool::Admission &admission, Refusal *refusal) {
  bool earlier = !refusal->blocked || admission.moment < refusal->moment;
  if (earlier || (admission.moment == refusal->moment && admission.cooling)) refusal->cooling = admission.cooling;
  if (earlier) refusal->moment = admission.moment;
  refusal->blocked = true;
}

// Whether the top may be looked at. If not, it is left out of this walk.
static bool top_is_eligible(const Walker &walker) {
  Pool *pool = walker.pool;
  uint32 index = pool->order.Top();
  bool fits = keypool::CanEverServe(pool->keys[index].limits, walker.request.tokens);
  bool eligible = secret_opens(pool, index, walker.refusal) && fits;
  if (!fits && pool->keys[index].opens == Opens::kYes) walker.refusal->too_large = true;
  if (!eligible) pool->order.SetTopAside();
  return eligible;
}

enum class Step { kGoOn, kAgain, kFound, kMoved };

// The top was deleted. If that may have been before the call, so may have been changes that the pool does not show.
static Step pass_gone_key(Walker *walker) {
  if (!walker->pool->fresh) return Step::kMoved;
  walker->refusal->gone = true;
  walker->pool->order.SetTopAside();
  return Step::kGoOn;
}

// Looks at the top and does what that says.
static Step take_step(Walker *walker, Walk *walk) {
  keypool::SelectionOrder *order = &walker->pool->order;
  Look look = look_at_top(*walker);
  switch (look.kind) {
    case Look::kGone:
      return pass_gone_key(walker);
    case Look::kTooSoon:
      return Step::kAgain;
    case Look::kGrantedLater:
      order->CorrectTop(look.last_grant);
      return Step::kGoOn;
    case Look::kBlocked:
      // The ring must be open before the key is looked at, or what is posted in between is missed.
      if (!wakeups_is_open(walker->ring) && open_ring(walker)) return Step::kGoOn;
      if (look.awaited) {
        order->LetTopWait(look.wait);
      } else {
        note_blocked(look.admission, walker->refusal);
        order->SetTopAside();
      }
      return Step::kGoOn;
    case Look::kServes:
      walk->index = order->Top();
      walk->reservation = look.reservation;
      order->CorrectTop(look.last_grant);
      return Step::kFound;
  }
  pg_unreachable();
}

// When a key that waits can serve this request, as its state says now.
struct LookAtWaiting {
  bool gone;
  Admission admission;
  Wait wait;  // if it is not admitted
};

static LookAtWaiting look_at_waiting(const Walker &walker, uint32 index) {
  const PoolKey &key = walker.pool->keys[index];
  LookAtWaiting look = {};
  LockedState locked =
      state_store_lock(walker.state, key.address, walker.pool->candidates[index].id, BUFFER_LOCK_SHARE);
  look.gone = locked.state == nullptr;
  if (look.gone) return look;
  TimeUs now = clock_now();
  int64 tokens = walker.request.tokens;
  look.admission = keypool::Admit(*locked.state, key.limits, tokens, now);
  if (!look.admission.admitted) look.wait = keypool::WaitOf(*locked.state, key.limits, tokens, now);
  state_store_unlock(locked, false);
  return look;
}

// Finds out when the first of the keys that wait can serve this request. What is remembered of it may be too early:
// another process has used the key since, or it waits for smaller requests. kAgain: it does not wait, or is gone, and
// must be looked at as one that may serve.
static Step find_first_moment(Walker *walker) {
  keypool::SelectionOrder *order = &walker->pool->order;
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    uint32 index = order->FirstWaiting();
    bool fits = keypool::CanEverServe(walker->pool->keys[index].limits, walker->request.tokens);
    LookAtWaiting look = fits ? look_at_waiting(*walker, index) : LookAtWaiting{};
    if (!fits || look.gone || look.admission.admitted) {
      order->Wake(index);
      return Step::kAgain;
    }
    const Wait &known = walker->pool->candidates[index].wait;
    Wait exact = {look.admission.moment, static_cast<uint32>(walker->request.tokens), look.admission.cooling};
    if (!exact.EndsBefore(known) && !known.EndsBefore(exact)) {
      note_blocked(look.admission, walker->refusal);
      return Step::kGoOn;
    }
    order->CorrectFirstWaiting(known.EndsBefore(look.wait) ? look.wait : exact);
  }
}

// Walks as long as nothing is freed meanwhile; kAgain if something is.
static Step try_to_walk(Walker *walker, Walk *walk) {
  keypool::SelectionOrder *order = &walker->pool->order;
  order->Begin(walker->request.tokens, clock_now());
  if (order->waiting() && !open_ring(walker)) order->WakeAll();
  for (;;) {
    while (!order->empty()) {
      CHECK_FOR_INTERRUPTS();
      bool eligible = top_is_eligible(*walker);
      if (walker->pool->keyring_generation != master_keys_generation()) {
        walk->kind = Walk::kOtherKeyring;
        return Step::kFound;
      }
      Step step = eligible ? take_step(walker, walk) : Step::kGoOn;
      if (step != Step::kGoOn) return step;
    }
    if (!order->waiting()) return Step::kGoOn;
    Step step = find_first_moment(walker);
    if (step == Step::kAgain) continue;
    return waits_are_over(*walker, clock_now()) ? Step::kAgain : Step::kGoOn;
  }
}

// Whether keys are gone, and there is nothing else that a refusal could be about.
static bool has_only_gone_keys(const Refusal &refusal) {
  return refusal.gone && !refusal.blocked && !refusal.too_large && !refusal.unopened;
}

Walk choose_key(Relation state, Pool *pool, const Request &request, Refusal *refusal) {
  match_keyring(pool);
  Walker walker = {state, pool, request, refusal, pool->cached && !RecoveryInProgress(), {}};
  Walk walk = {};
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    *refusal = {};
    walk = {Walk::kFound, 0, {}};
    Step step = try_to_walk(&walker, &walk);
    if (step == Step::kMoved) walk.kind = Walk::kMoved;
    if (step == Step::kGoOn) walk.kind = has_only_gone_keys(*refusal) ? Walk::kMoved : Walk::kNone;
    if (step != Step::kAgain) break;
    take_in_wakeups(walker);
  }
  wakeups_close(&walker.ring);
  return walk;
}
