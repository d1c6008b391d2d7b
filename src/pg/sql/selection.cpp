// selection.cpp - keypool_select, keypool_try_select, keypool_select_first, keypool_peek and keypool_select_many: which
// key now?
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/json.h"
}

#include "pg/catalog/privileges.h"
#include "pg/pool/choose_key.h"
#include "pg/pool/key_secret.h"
#include "pg/pool/pool_cache.h"
#include "pg/pool/refusals.h"
#include "pg/pool/settle_call.h"
#include "pg/pool/waiting.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/sql/selection_request.h"
#include "pg/sql/selection_row.h"

using keypool::Status;

static constexpr int64 kMaxSelections = 1000;  // of one keypool_select_many

static const char *const kHintToAdd = "Add a key with keypool_add_key(), or switch one on with keypool_toggle_key().";
static const char *const kHintAboutModels =
    "The columns models and except_models of keypool.keys say which models a key serves.";

// Why there is no key, and what to do about it.
static void set_no_key(Selection *answer, const Pool *pool, const Request &request, const Refusal &refusal) {
  answer->status = SelectionStatus::kNoKey;
  answer->hint = kHintToAdd;
  if (pool == nullptr) {
    answer->reason = "The provider has no keys. Names of providers are case-sensitive.";
  } else if (refusal.walk.unopened) {
    answer->reason = "No secret of an active key can be decrypted.";
  } else if (refusal.walk.excluded) {
    answer->reason = "All keys of the provider are excluded.";
    answer->hint = nullptr;
  } else if (!refusal.serves_model) {
    answer->reason = request.model.empty() ? "No key of the provider serves a request that names no model."
                                           : "The provider has no key for this model.";
    answer->hint = kHintAboutModels;
  } else {
    answer->reason = "All keys of the provider are inactive.";
  }
}

// The answer when no key was found. Raises KP401 if that is because a master key is missing.
static Selection refused(const Pool *pool, const Request &request, const Refusal &refusal) {
  const keypool::WalkRefusal &walk = refusal.walk;
  Selection answer = {};
  if (walk.waits) {
    const PoolQuota *quota = walk.quota == keypool::kNoIndex ? nullptr : &pool->rules->quotas[walk.quota];
    bool returns_before = refusal.returns_at != 0 && refusal.returns_at < walk.moment;
    selection_wait(&answer, walk.obstacle, walk.limit, returns_before ? refusal.returns_at : walk.moment, quota);
    return answer;
  }
  if (walk.too_large) {
    answer.status = SelectionStatus::kTooLarge;
    return answer;
  }
  if (walk.unopened && !refusal.problem.ok())
    report_status(master_keys()->count == 0 ? master_keys_problem() : refusal.problem);
  set_no_key(&answer, pool, request, refusal);
  if (refusal.returns_at != 0) answer.retry_after_ms = milliseconds_until(refusal.returns_at, clock_now());
  return answer;
}

// Takes back a reservation whose secret could not be handed out after all. What the cache holds may be gone then.
static void take_back(const Selection &answer) {
  Settlement release = {};
  release.key = answer.key->place.id;
  release.ending = keypool::Ending::kReleased;
  release.has_lease = true;
  release.lease = std::string_view(answer.lease, sizeof(answer.lease));
  settle_call(release, Right::kApp);
}

static Selection found(const Pool &pool, const Request &request, const Choice &choice) {
  Selection answer = {};
  answer.status = SelectionStatus::kOk;
  answer.key = &pool.keys[choice.index];
  answer.shows_attributes = request.effect == Effect::kSelect || privileges_allow(Right::kApp, request.provider);
  if (request.effect == Effect::kPeek) return answer;
  keypool::EncodeLease(answer.key->place.id, choice.lease, answer.lease);
  Status status = open_pool_secret(pool, choice.index);
  if (!status.ok()) {
    take_back(answer);
    report_status(status);
  }
  answer.secret = opened_secret();
  return answer;
}

// Chooses, and in Effect::kSelect reserves. The secret is the opened one of secrets.h.
static Selection choose(const Request &request, text *provider) {
  LOCKMODE lock_mode = request.effect == Effect::kSelect ? RowExclusiveLock : AccessShareLock;
  for (int attempt = 0;;) {
    master_keys_check();  // before anything is locked: the command may take its time
    MeterTables tables;
    Pool *pool = pool_cache_open_provider(request.provider, lock_mode, &tables);
    Choice choice = {};  // kNone
    if (pool != nullptr) choose_key(tables, pool, request, &choice);
    if (choice.kind == Choice::kNone || choice.kind == Choice::kFound) {
      Selection answer =
          choice.kind == Choice::kFound ? found(*pool, request, choice) : refused(pool, request, choice.refusal);
      meter_tables_close(tables);
      answer.provider = provider;
      return answer;
    }
    meter_tables_close(tables);
    if (choice.kind == Choice::kMoved) pool_cache_retry(pool->hash, attempt++);
  }
}

// Makes the result row and wipes the secret.
static Datum answer_row(const Selection &answer) {
  Datum row = selection_row(answer);
  opened_secret_wipe();
  return row;
}

// The DETAIL of KP429, for programs.
static const char *refusal_json(const Selection &answer) {
  StringInfoData json;
  initStringInfo(&json);
  appendStringInfo(&json,
                   "{\"status\":\"%s\",\"retry_after_ms\":%lld,\"blocked_by\":", selection_status_name(answer.status),
                   static_cast<long long>(answer.retry_after_ms));
  escape_json(&json, pnstrdup(answer.blocked_by.data(), answer.blocked_by.size()));
  appendStringInfo(&json, ",\"blocked_limit\":\"%s\"}", answer.blocked_limit);
  return json.data;
}

[[noreturn]] static void report_refused(const Selection &answer) {
  if (answer.status == SelectionStatus::kTooLarge)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_TOO_LARGE), errmsg("the request is larger than a limit of every key"));
  if (answer.status == SelectionStatus::kNoKey)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("the provider has no usable key"),
            errdetail("%s", answer.reason), answer.hint != nullptr ? errhint("%s", answer.hint) : 0);
  ereport(ERROR, errcode(ERRCODE_KEYPOOL_LIMITED), errmsg("every key of the provider is cooling or at its limits"),
          errdetail("%s", refusal_json(answer)));
  pg_unreachable();
}

// Whether one refusal is to be told rather than another, of a provider before: it comes to an end earlier.
static bool ends_before(const Selection &one, const Selection &other) {
  return one.retry_after_ms != kNoWait &&
         (other.retry_after_ms == kNoWait || one.retry_after_ms < other.retry_after_ms);
}

// What the providers said in turn, up to the one that has served.
struct Statuses {
  int count;
  SelectionStatus status[kMaxProviders];
};

// The first provider that has a key now; else the refusal of the one that comes back first, which points to nothing
// that a cache holds.
static Selection choose_first(const Requests &requests, Statuses *statuses) {
  Selection told = {};
  for (int i = 0; i < requests.count; ++i) {
    Selection answer = choose(requests.requests[i], requests.providers[i]);
    statuses->status[i] = answer.status;
    statuses->count = i + 1;
    if (answer.status == SelectionStatus::kOk) return answer;
    if (i > 0 && !ends_before(answer, told)) continue;
    told = answer;
    if (!answer.blocked_by.empty())
      told.blocked_by = {pnstrdup(answer.blocked_by.data(), answer.blocked_by.size()), answer.blocked_by.size()};
  }
  return told;
}

static bool may_wait(const Selection &answer) {
  return answer.status != SelectionStatus::kOk && answer.retry_after_ms != kNoWait;
}

// Nobody knows when a call in flight ends: whoever ends one wakes those who wait.
static int64 next_look_ms(const Selection &answer) {
  return answer.status == SelectionStatus::kBusy ? PG_INT64_MAX : answer.retry_after_ms;
}

// The same, waiting for a key for as long as the caller wants. waiting_end is the caller's.
static Selection choose_within(const Requests &requests, Waiting *waiting, Statuses *statuses) {
  Selection answer = choose_first(requests, statuses);
  if (requests.max_wait == 0 || !may_wait(answer)) return answer;
  waiting_begin(requests.requests, requests.count, requests.max_wait, waiting);
  do {
    waiting_look(waiting);
    answer = choose_first(requests, statuses);
  } while (may_wait(answer) && waiting_sleep(waiting, next_look_ms(answer)));
  return answer;
}

static keypool::Refused refused_for(SelectionStatus status) {
  switch (status) {
    case SelectionStatus::kCooling:
      return keypool::Refused::kCooling;
    case SelectionStatus::kBusy:
      return keypool::Refused::kBusy;
    case SelectionStatus::kTooLarge:
      return keypool::Refused::kTooLarge;
    case SelectionStatus::kNoKey:
      return keypool::Refused::kNoKey;
    default:
      return keypool::Refused::kLimited;
  }
}

static void note_refusal(const Request &request, SelectionStatus status) {
  if (status != SelectionStatus::kOk) refusals_note(request.provider, refused_for(status), clock_now());
}

static Datum select_row(const Requests &requests, bool raises) {
  Waiting waiting = {};
  Statuses statuses;
  Selection answer = choose_within(requests, &waiting, &statuses);
  for (int i = 0; i < statuses.count; ++i) note_refusal(requests.requests[i], statuses.status[i]);
  refusals_post_due();
  bool refused = answer.status != SelectionStatus::kOk && raises;
  Datum row = refused ? Datum{0} : answer_row(answer);
  waiting_end(&waiting);
  if (refused) report_refused(answer);
  return row;
}

static const char *const kHintAtPeek = " keypool_peek() tells which key would be selected, and changes nothing.";

extern "C" {

PG_FUNCTION_INFO_V1(keypool_select);
Datum keypool_select(PG_FUNCTION_ARGS) {
  Request request;
  text *provider;
  Requests requests = read_request_to_select(fcinfo, &request, &provider);
  report_if_read_only("keypool_select", kHintAtPeek);
  return select_row(requests, true);
}

PG_FUNCTION_INFO_V1(keypool_try_select);
Datum keypool_try_select(PG_FUNCTION_ARGS) {
  Request request;
  text *provider;
  Requests requests = read_request_to_select(fcinfo, &request, &provider);
  report_if_read_only("keypool_try_select", kHintAtPeek);
  return select_row(requests, false);
}

PG_FUNCTION_INFO_V1(keypool_select_first);
Datum keypool_select_first(PG_FUNCTION_ARGS) {
  Requests requests = read_requests(fcinfo);
  report_if_read_only("keypool_select_first", kHintAtPeek);
  return select_row(requests, false);
}

PG_FUNCTION_INFO_V1(keypool_peek);
Datum keypool_peek(PG_FUNCTION_ARGS) {
  return answer_row(choose(read_request(fcinfo, Effect::kPeek, kTokensOfSelect), given_provider(fcinfo)));
}

PG_FUNCTION_INFO_V1(keypool_select_many);
Datum keypool_select_many(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kSelect, kTokensOfSelectMany);
  int64 count = argument_count(fcinfo, 1, "count", kMaxSelections);
  report_if_read_only("keypool_select_many", kHintAtPeek);
  ReturnSetInfo *result = selection_set_begin(fcinfo);
  bool served = true;
  for (int64 i = 0; i < count && served; ++i) {
    Selection answer = choose(request, given_provider(fcinfo));
    selection_put(result, answer);
    opened_secret_wipe();
    served = answer.status == SelectionStatus::kOk;
    note_refusal(request, answer.status);
  }
  refusals_post_due();
  return Datum{0};
}

}  // extern "C"
