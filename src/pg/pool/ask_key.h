// ask_key.h - what one key says of a request, whatever else could serve it.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/choose_key.h"

// Whether a request leaves a key out.
bool request_excludes(const Request &request, const keypool::KeyId &id);

// Its estimates, the provider's default_tokens where it names none.
keypool::Amounts request_amounts(const Request &request, const ProviderRules &rules);

// What one key, or its quotas, say of a request now, whatever else could serve it: for keypool_explain_select. Looks at
// meters under a shared lock, and changes nothing.
struct KeyAnswer {
  enum Kind : uint8 {
    kServes,
    kWaits,
    kTooLarge,
    kExcluded,
    kUnopened,
    kNoSecret,
    kOff,
    kExpired,
    kOtherModels,
    kMoved
  } kind;
  keypool::Obstacle obstacle;  // kWaits
  keypool::Limit limit;
  keypool::TimeUs moment;
  const PoolQuota *quota;  // what is in the way (kWaits, kTooLarge); null: the key itself
};
KeyAnswer ask_key(const MeterTables &tables, Pool *pool, uint32 index, const Request &request);

// What it says of a request of the provider's default size that names no model, if it served that whatever its models
// are. Raises nothing for configuration that its triggers would refuse. And that in a word.
KeyAnswer ask_key_of_any_model(const MeterTables &tables, Pool *pool, uint32 index);

enum class KeyState : uint8 { kFree, kFull, kBusy, kCooling, kOff };
KeyState key_state(const KeyAnswer &said);
const char *key_state_name(KeyState state);

// When the first of the keys that are off for a time serves a request, if nothing else happens: it is back by then, and
// its meters admit the request. 0 if none will.
keypool::TimeUs first_return(const MeterTables &tables, Pool *pool, const Request &request);
