// ask_key.cpp - what one key says of a request.
#include "pg/pool/ask_key.h"

#include "core/quota/model_pattern.h"
#include "pg/pool/call_meters.h"
#include "pg/pool/key_secret.h"
#include "pg/pool/model_orders.h"
#include "pg/server/clock.h"

using keypool::Amounts;
using keypool::kMaxMeters;
using keypool::Look;
using keypool::Meter;
using keypool::TimeUs;

bool request_excludes(const Request &request, const keypool::KeyId &id) {
  for (int i = 0; i < request.except_count; ++i)
    if (memcmp(request.except_keys[i].bytes, id.bytes, sizeof(id.bytes)) == 0) return true;
  return false;
}

Amounts request_amounts(const Request &request, const ProviderRules &rules) {
  Amounts amounts = request.amounts;
  if (!request.tokens_given) {
    amounts.tokens = rules.default_tokens;
    keypool::CoverParts(&amounts);
  }
  return amounts;
}

// What is in the way of a request, as the meters say.
static KeyAnswer answer_of_look(const CallMeters &call, const Look &look) {
  KeyAnswer answer = {};
  for (int i = 0; i < call.count; ++i) {
    const keypool::MeterLook &meter = look.meters[i];
    if (!meter.refuses || (answer.kind == KeyAnswer::kWaits && meter.admission.guess <= answer.moment)) continue;
    answer = {KeyAnswer::kWaits, meter.admission.obstacle, meter.admission.limit, meter.admission.guess, call.quota[i]};
  }
  return answer;
}

static KeyAnswer ask_meters(const MeterTables &tables, CallMeters *call, const keypool::LookAsk &ask) {
  KeyAnswer answer = {};
  answer.kind = KeyAnswer::kMoved;
  Meter copies[kMaxMeters];
  if (!call_meters_copy(tables, call, ask.ask.now, copies)) return answer;
  const Meter *pointers[kMaxMeters];
  for (int i = 0; i < call->count; ++i) pointers[i] = &copies[i];
  Look look;
  keypool::LookAt(pointers, call->limits, call->count, ask, &look);
  return answer_of_look(*call, look);
}

static KeyAnswer answer_kind(KeyAnswer::Kind kind, const PoolQuota *quota = nullptr) {
  KeyAnswer answer = {};
  answer.kind = kind;
  answer.quota = quota;
  return answer;
}

// The meters of a key for a request. Of quotas that are too many, as a restore may bring them, the first.
static CallMeters meters_of_key(Pool *pool, PoolKey *key, const Request &request) {
  CallMeters call = call_meters_of_key(&key->place, key->limits, pool->rules);
  uint32 quotas[keypool::kQuotasOfKey + 1];
  int count = quotas_for(*pool->rules, key->account, request.model, quotas, lengthof(quotas));
  for (int i = 0; i < Min(count, keypool::kQuotasOfKey); ++i) call_meters_add(&call, &pool->rules->quotas[quotas[i]]);
  return call;
}

// What a key and its quotas say that is on, or will be, and that serves the model.
static KeyAnswer ask_key_that_serves(const MeterTables &tables, Pool *pool, uint32 index, const Request &request,
                                     TimeUs now) {
  PoolKey *key = &pool->keys[index];
  keypool::Status ignored;
  keypool::Limit limit;
  if (!key_secret_opens(pool, index, &ignored)) return answer_kind(KeyAnswer::kUnopened);
  CallMeters call = meters_of_key(pool, key, request);
  Amounts amounts = request_amounts(request, *pool->rules);
  for (int i = 0; i < call.count; ++i) {
    if (keypool::CanEverServe(*call.limits[i], amounts, &limit)) continue;
    KeyAnswer answer = answer_kind(KeyAnswer::kTooLarge, call.quota[i]);
    answer.limit = limit;
    return answer;
  }
  uint32 model_hash = request.model.empty() ? 0 : keypool::ModelHash(request.model);
  return ask_meters(tables, &call, {{amounts, model_hash, now}, key->place.id, key->weight, true, 0});
}

static KeyAnswer ask_if_on(const MeterTables &tables, Pool *pool, uint32 index, const Request &request) {
  match_keyring(pool);
  const PoolKey &key = pool->keys[index];
  TimeUs now = clock_now();
  if (key.secret.form == keypool::SecretForm::kNone) return answer_kind(KeyAnswer::kNoSecret);
  if (key.expires_at != 0 && key.expires_at <= now) return answer_kind(KeyAnswer::kExpired);
  if (!key_is_on(key, now)) return answer_kind(KeyAnswer::kOff);
  return ask_key_that_serves(tables, pool, index, request, now);
}

KeyAnswer ask_key(const MeterTables &tables, Pool *pool, uint32 index, const Request &request) {
  const PoolKey &key = pool->keys[index];
  if (!model_rule_serves(key.models, request.model)) return answer_kind(KeyAnswer::kOtherModels);
  if (request_excludes(request, key.place.id)) return answer_kind(KeyAnswer::kExcluded);
  bool too_many = quotas_for(*pool->rules, key.account, request.model, nullptr, 0) > keypool::kQuotasOfKey;
  if (too_many) model_order_open(pool, request.model, clock_now());  // raises
  return ask_if_on(tables, pool, index, request);
}

KeyAnswer ask_key_of_any_model(const MeterTables &tables, Pool *pool, uint32 index) {
  Request request = {};
  request.effect = Effect::kPeek;
  return ask_if_on(tables, pool, index, request);
}

KeyState key_state(const KeyAnswer &said) {
  switch (said.kind) {
    case KeyAnswer::kServes:
      return KeyState::kFree;
    case KeyAnswer::kWaits:
      if (said.obstacle == keypool::Obstacle::kCooldown || said.obstacle == keypool::Obstacle::kBreaker)
        return KeyState::kCooling;
      return said.obstacle == keypool::Obstacle::kLimit && said.limit == keypool::Limit::kInFlight ? KeyState::kBusy
                                                                                                   : KeyState::kFull;
    case KeyAnswer::kTooLarge:
      return KeyState::kFull;
    default:
      return KeyState::kOff;
  }
}

const char *key_state_name(KeyState state) {
  static const char *const kNames[] = {"free", "full", "busy", "cooling", "off"};
  return kNames[static_cast<int>(state)];
}

TimeUs first_return(const MeterTables &tables, Pool *pool, const Request &request) {
  TimeUs now = clock_now(), first = 0;
  for (int i = 0; i < pool->count; ++i) {
    const PoolKey &key = pool->keys[i];
    if (!key_returns(key, now) || (first != 0 && key.inactive_until >= first)) continue;
    if (!model_rule_serves(key.models, request.model) || request_excludes(request, key.place.id)) continue;
    CHECK_FOR_INTERRUPTS();
    KeyAnswer answer = ask_key_that_serves(tables, pool, static_cast<uint32>(i), request, now);
    if (answer.kind != KeyAnswer::kServes && answer.kind != KeyAnswer::kWaits) continue;
    TimeUs moment = answer.kind == KeyAnswer::kWaits ? Max(answer.moment, key.inactive_until) : key.inactive_until;
    if (first == 0 || moment < first) first = moment;
  }
  return first;
}
