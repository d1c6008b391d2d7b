// selection.cpp - keypool_select, keypool_try_select and keypool_peek: which key now?
#include "pg/server/postgres_api.h"

#include "core/lease.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/pool/choose_key.h"
#include "pg/pool/key_change.h"
#include "pg/pool/pool_cache.h"
#include "pg/pool/reactivation.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/sql/selection_row.h"
#include "pg/state/state_store.h"

using keypool::Status;
using keypool::TimeUs;

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
    answer.reason = pool == nullptr    ? "The provider has no keys. Names of providers are case-sensitive."
                    : refusal.unopened ? "No secret of an active key can be decrypted."
                                       : "All keys of the provider are inactive.";
    if (pool != nullptr && pool->active_count == 0) answer.retry_after_ms = wait_for_returning_key(*pool, now);
  }
  return answer;
}

// Takes back a reservation whose secret could not be handed out after all.
static void take_back(Relation state, const Pool *pool, const Walk &walk) {
  key_change_reserved(state, pool_key_reference(*pool, static_cast<int>(walk.index)),
                      [&](keypool::StateEdit *edit) { return keypool::Release(edit, walk.reservation, clock_now()); });
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
  Status status = open_pool_secret(*pool, walk.index);
  if (!status.ok()) {
    take_back(state, pool, walk);
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
  return choose_key(state, *pool, request, refusal);
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
    if (walk.kind == Walk::kMoved) pool_cache_retry(provider_change_hash(request.provider), attempt++);
  }
}

static Request read_request(FunctionCallInfo fcinfo, Effect effect) {
  Request request = {};
  request.provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 1, "tokens");
  request.tokens = argument_tokens(fcinfo, 1);
  request.effect = effect;
  privileges_require(effect == Effect::kGrant ? Right::kApp : Right::kPeek, request.provider);
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

static const char *const kHintAtPeek = " keypool_peek() tells which key would be selected, and changes nothing.";

extern "C" {

PG_FUNCTION_INFO_V1(keypool_select);
Datum keypool_select(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kGrant);
  report_if_read_only("keypool_select", kHintAtPeek);
  Selection answer = choose(request);
  if (answer.status != SelectionStatus::kOk) report_refused(answer);
  return answer_row(answer);
}

PG_FUNCTION_INFO_V1(keypool_try_select);
Datum keypool_try_select(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kGrant);
  report_if_read_only("keypool_try_select", kHintAtPeek);
  return answer_row(choose(request));
}

PG_FUNCTION_INFO_V1(keypool_peek);
Datum keypool_peek(PG_FUNCTION_ARGS) { return answer_row(choose(read_request(fcinfo, Effect::kPeek))); }

}  // extern "C"
