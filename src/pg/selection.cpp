// selection.cpp - keypool_select, keypool_try_select and keypool_peek: which key now?
#include "pg/postgres_api.h"

#include "core/lease.h"
#include "pg/arguments.h"
#include "pg/clock.h"
#include "pg/master_keys.h"
#include "pg/pool_cache.h"
#include "pg/reactivation.h"
#include "pg/report.h"
#include "pg/rights.h"
#include "pg/secrets.h"
#include "pg/selection_row.h"
#include "pg/state_store.h"

using keypool::Code;
using keypool::Status;
using keypool::TimeUs;

enum class Effect { kGrant, kPeek };

struct Request {
  std::string_view provider;
  int64 tokens;
  Effect effect;
};

// Why the keys that were looked at cannot serve the request.
struct Refusal {
  bool blocked;    // at least one is cooling or at its limits
  bool cooling;    // the one that is free first is cooling
  TimeUs moment;   // when that is
  bool too_large;  // at least one has a smaller max_tpm than the request has tokens
  bool unopened;   // at least one has a secret that does not open
  Status problem;  // the first that needs a master key which is not there
};

static Status fetch_secret(const Pool &pool, uint32 index) {
  return open_secret(pool.keys[index].secret, {pool.candidates[index].id, pool.provider});
}

static void warn_unopened(const keypool::KeyId &id, const Status &status) {
  static HTAB *warned = nullptr;  // keys, since the keyring was loaded
  static uint32 generation = 0;
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
  if (!known) status = fetch_secret(*pool, index);
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

// The newest grant that this process has seen. To choose a key, all keys that were granted since have been looked at,
// so a number after this one is after theirs.
static int64 newest_grant = 0;

// What looking at one key's state said.
struct Look {
  enum Kind { kGone, kGrantedLater, kBlocked, kServes } kind;
  keypool::Admission admission;      // kBlocked
  int64 last_grant;                  // kGrantedLater, kServes
  keypool::Reservation reservation;  // kServes and Effect::kGrant
};

// Looks at a key under its lock, and in the same step reserves it if it serves.
static Look look_at(Relation state, const PoolKey &key, const keypool::Candidate &candidate, const Request &request) {
  Look look = {};
  int lock_mode = request.effect == Effect::kGrant ? BUFFER_LOCK_EXCLUSIVE : BUFFER_LOCK_SHARE;
  LockedState locked = state_store_lock(state, key.address, candidate.id, lock_mode);
  if (locked.state == nullptr) return look;
  TimeUs now = clock_now();
  look.last_grant = locked.state->reserved.last_grant;
  if (look.last_grant > candidate.last_grant) {
    look.kind = Look::kGrantedLater;
  } else {
    look.admission = keypool::Admit(*locked.state, key.limits, request.tokens, now);
    look.kind = look.admission.admitted ? Look::kServes : Look::kBlocked;
  }
  bool reserve = look.kind == Look::kServes && request.effect == Effect::kGrant;
  if (reserve) {
    look.reservation = keypool::Reserve(locked.state, request.tokens, now, newest_grant);
    look.last_grant = locked.state->reserved.last_grant;
  }
  state_store_unlock(locked, reserve);
  newest_grant = Max(newest_grant, look.last_grant);
  return look;
}

static void note_blocked(const keypool::Admission &admission, Refusal *refusal) {
  bool earlier = !refusal->blocked || admission.moment < refusal->moment;
  if (earlier || (admission.moment == refusal->moment && admission.cooling)) refusal->cooling = admission.cooling;
  if (earlier) refusal->moment = admission.moment;
  refusal->blocked = true;
}

// The outcome of walking a pool in its order.
struct Walk {
  enum Kind { kNone, kFound, kMoved, kOtherKeyring } kind;
  uint32 index;                      // kFound
  keypool::Reservation reservation;  // kFound and Effect::kGrant
};

static Walk walk_pool(Relation state, Pool *pool, const Request &request, Refusal *refusal) {
  keypool::SelectionOrder *order = &pool->order;
  order->UnparkAll();  // an error may have interrupted the walk before
  while (!order->empty()) {
    CHECK_FOR_INTERRUPTS();
    uint32 index = order->Top();
    const PoolKey &key = pool->keys[index];
    bool opens = secret_opens(pool, index, refusal);
    if (pool->keyring_generation != master_keys_generation()) return {Walk::kOtherKeyring, 0, {}};
    if (!opens) {
      order->ParkTop();
      continue;
    }
    if (!keypool::CanEverServe(key.limits, request.tokens)) {
      refusal->too_large = true;
      order->ParkTop();
      continue;
    }
    Look look = look_at(state, key, pool->candidates[index], request);
    switch (look.kind) {
      case Look::kGone:
        return {Walk::kMoved, 0, {}};
      case Look::kGrantedLater:
        order->CorrectTop(look.last_grant);
        break;
      case Look::kBlocked:
        note_blocked(look.admission, refusal);
        order->ParkTop();
        break;
      case Look::kServes:
        order->CorrectTop(look.last_grant);
        order->UnparkAll();
        return {Walk::kFound, index, look.reservation};
    }
  }
  order->UnparkAll();
  return {Walk::kNone, 0, {}};
}

// Forgets which secrets open if another keyring was loaded since.
static void match_keyring(Pool *pool) {
  if (pool->keyring_generation == master_keys_generation()) return;
  for (int i = 0; i < pool->count; ++i) pool->keys[i].opens = Opens::kUnknown;
  pool->keyring_generation = master_keys_generation();
}

// Whole milliseconds from now, at least one, never too short.
static int64 milliseconds_until(TimeUs moment, TimeUs now) { return Max((moment - now + 999) / 1000, 1); }

static bool has_returning_key(const Pool *pool) {
  if (pool == nullptr || pool->active_count > 0) return false;
  TimeUs now = clock_now();
  for (int i = 0; i < pool->count; ++i)
    if (pool->keys[i].inactive_until != 0 && pool->keys[i].inactive_until <= now) return true;
  return false;
}

static int64 wait_for_returning_key(const Pool &pool, TimeUs now) {
  int64 wait = kNoWait;
  for (int i = 0; i < pool.count; ++i) {
    TimeUs until = pool.keys[i].inactive_until;
    if (until == 0 || until == kNever) continue;
    int64 its_wait = milliseconds_until(until, now);
    if (wait == kNoWait || its_wait < wait) wait = its_wait;
  }
  return wait;
}

// The answer when no key was found.
static Selection refused(const Pool *pool, const Refusal &refusal) {
  Selection answer = {};
  TimeUs now = clock_now();
  answer.retry_after_ms = kNoWait;
  if (refusal.blocked) {
    answer.status = refusal.cooling ? SelectionStatus::kCooling : SelectionStatus::kLimited;
    answer.retry_after_ms = milliseconds_until(refusal.moment, now);
  } else if (refusal.too_large) {
    answer.status = SelectionStatus::kTooLarge;
  } else {
    if (refusal.unopened && !refusal.problem.ok())
      report_status(master_keys()->count == 0 ? master_keys_problem() : refusal.problem);
    answer.status = SelectionStatus::kNoKey;
    answer.reason = pool == nullptr    ? "The provider has no keys."
                    : refusal.unopened ? "No secret of an active key can be decrypted."
                                       : "All keys of the provider are inactive.";
    if (pool != nullptr && pool->active_count == 0) answer.retry_after_ms = wait_for_returning_key(*pool, now);
  }
  return answer;
}

// Takes back a reservation whose secret could not be handed out after all.
static void take_back(Relation state, const PoolKey &key, const keypool::KeyId &id,
                      const keypool::Reservation &reservation) {
  LockedState locked = state_store_lock(state, key.address, id, BUFFER_LOCK_EXCLUSIVE);
  if (locked.state == nullptr) return;
  keypool::Release(locked.state, reservation, clock_now());
  state_store_unlock(locked, true);
}

static Selection found(Relation state, Pool *pool, const Request &request, const Walk &walk) {
  const PoolKey &key = pool->keys[walk.index];
  Selection answer = {};
  answer.status = SelectionStatus::kOk;
  answer.retry_after_ms = kNoWait;
  answer.id = pool->candidates[walk.index].id;
  answer.priority = pool->candidates[walk.index].priority;
  answer.label = key.label;
  answer.limits = key.limits;
  if (request.effect == Effect::kPeek) return answer;
  Status status = fetch_secret(*pool, walk.index);
  if (!status.ok()) {
    take_back(state, key, answer.id, walk.reservation);
    report_status(status);
  }
  answer.secret = opened_secret();
  answer.lease = keypool::EncodeLease(answer.id, walk.reservation);
  return answer;
}

// Walks a pool, which may be null. A pool whose active keys are all gone, and others' time has come: those are walked,
// also while another session is about to switch them on.
static Walk walk_what_serves(Relation state, Pool **pool, const Request &request, Refusal *refusal) {
  if (has_returning_key(*pool)) *pool = pool_of_returning_keys(**pool, clock_now());
  if (*pool == nullptr) return {};
  match_keyring(*pool);
  return walk_pool(state, *pool, request, refusal);
}

// Chooses, and in Effect::kGrant reserves. The secret is the opened one of secrets.h.
static Selection choose(const Request &request) {
  LOCKMODE lock_mode = request.effect == Effect::kGrant ? RowExclusiveLock : AccessShareLock;
  bool reactivated = request.effect == Effect::kPeek;
  for (int attempt = 0;;) {
    master_keys_check();  // before anything is locked: the command may take its time
    Relation state;
    Pool *pool = pool_cache_open_provider(request.provider, lock_mode, &state);
    if (!reactivated && has_returning_key(pool)) {
      state_store_close(state, lock_mode);
      try_to_reactivate_keys(request.provider, clock_now());
      reactivated = true;
      continue;
    }
    Refusal refusal = {};
    Walk walk = walk_what_serves(state, &pool, request, &refusal);
    if (walk.kind == Walk::kNone || walk.kind == Walk::kFound) {
      Selection answer = walk.kind == Walk::kFound ? found(state, pool, request, walk) : refused(pool, refusal);
      state_store_close(state, lock_mode);
      return answer;
    }
    state_store_close(state, lock_mode);
    if (walk.kind == Walk::kMoved) pool_cache_retry(attempt++);
  }
}

static Request read_request(FunctionCallInfo fcinfo, Effect effect) {
  Request request = {};
  request.provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 1, "tokens");
  request.tokens = argument_tokens(fcinfo, 1);
  request.effect = effect;
  rights_require(effect == Effect::kGrant ? Right::kUse : Right::kPeek, request.provider);
  return request;
}

// Makes the result row and wipes the secret.
static Datum answer_row(const Selection &answer) {
  Datum row = selection_row(answer);
  opened_secret_wipe();
  return row;
}

[[noreturn]] static void report_refused(const Selection &answer) {
  const char *status = selection_status_name(answer.status);
  if (answer.status == SelectionStatus::kTooLarge)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_TOO_LARGE), errmsg("the request is larger than max_tpm of every key"));
  if (answer.status == SelectionStatus::kNoKey)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("the provider has no usable key"),
            errdetail("%s", answer.reason),
            errhint("Add a key with keypool_add_key(), or switch one on with keypool_toggle_key()."));
  ereport(
      ERROR, errcode(ERRCODE_KEYPOOL_LIMITED), errmsg("every key of the provider is cooling or at its limits"),
      errdetail("{\"status\":\"%s\",\"retry_after_ms\":%lld}", status, static_cast<long long>(answer.retry_after_ms)));
  pg_unreachable();
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_select);
Datum keypool_select(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kGrant);
  report_if_read_only("keypool_select");
  Selection answer = choose(request);
  if (answer.status != SelectionStatus::kOk) report_refused(answer);
  return answer_row(answer);
}

PG_FUNCTION_INFO_V1(keypool_try_select);
Datum keypool_try_select(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kGrant);
  report_if_read_only("keypool_try_select");
  return answer_row(choose(request));
}

PG_FUNCTION_INFO_V1(keypool_peek);
Datum keypool_peek(PG_FUNCTION_ARGS) { return answer_row(choose(read_request(fcinfo, Effect::kPeek))); }

}  // extern "C"
