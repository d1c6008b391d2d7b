// choose_key.h - finding the key of a pool that serves a request, and reserving it.
//
// A walk is one step, as if nothing else happened meanwhile: when it answers, each key that would have been better is
// full, cooling or was granted later, and none has been freed since the walk looked at it.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/status.h"
#include "pg/pool/pool_cache.h"

enum class Effect { kGrant, kPeek };

struct Request {
  std::string_view provider;
  int64 tokens;
  Effect effect;
};

// Why the keys that were looked at cannot serve the request.
struct Refusal {
  bool blocked;             // at least one is cooling or at its limits
  bool cooling;             // the one that is free first is cooling
  keypool::TimeUs moment;   // when that is
  bool too_large;           // at least one has a smaller max_tpm than the request has tokens
  bool unopened;            // at least one has a secret that does not open
  bool gone;                // at least one was deleted while its provider was loaded
  keypool::Status problem;  // the first that needs a master key which is not there
};

struct Walk {
  enum Kind {
    kNone,          // no key serves: see the refusal
    kFound,         // with Effect::kGrant it is reserved
    kMoved,         // another key, or none, lies where one of the pool's should: forget the pool. Of a pool that was
                    // loaded by this call, only if there is nothing but such keys
    kOtherKeyring,  // the keyring was loaded anew: walk again
  } kind;
  uint32 index;                      // kFound
  keypool::Reservation reservation;  // kFound and Effect::kGrant
};

// Walks a pool in its order, with keypool.key_state opened. A key is found only if its secret has been seen to open.
Walk choose_key(Relation state, Pool *pool, const Request &request, Refusal *refusal);

// Opens the secret of a key into the buffer of secrets.h.
keypool::Status open_pool_secret(const Pool &pool, uint32 index);
