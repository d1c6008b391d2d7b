// choose_key.h - finding the key of a pool that serves a request, and reserving it.
//
// A request with an affinity is given the first key of its conversation's order (core/quota/affinity.h) that serves it,
// if that is among the first few; else, and without one, the first by turns.
//
// A walk (core/quota/walk.h) is one step, as if nothing else happened meanwhile: when it answers, each key that would
// have been better is full, blocked or was selected later, and none has eased since the walk looked at it.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/lease.h"
#include "core/status.h"
#include "pg/pool/pool_cache.h"

enum class Effect : uint8 { kSelect, kPeek };

struct Request {
  std::string_view provider;
  std::string_view model;    // empty: none is named
  keypool::Amounts amounts;  // estimates, such as CoverParts leaves
  bool tokens_given;         // else the provider's default_tokens stand for amounts.tokens
  Effect effect;
  std::string_view affinity;  // what the request belongs to, a conversation; empty: nothing
  const keypool::KeyId *except_keys;
  int except_count;
};

// Why no key serves a request.
struct Refusal {
  keypool::WalkRefusal walk;
  keypool::Status problem;     // of the first key that needs a master key which is not there
  keypool::TimeUs returns_at;  // when the first key serves it that is off for a time; 0: none will
  bool serves_model;           // else no key of the provider is for the model
};

struct Choice {
  enum Kind : uint8 {
    kNone,          // see the refusal
    kFound,         // with Effect::kSelect it is reserved
    kMoved,         // another meter, or none, lies where one of the pool's should: forget the pool
    kOtherKeyring,  // the keyring was loaded anew: choose again
  } kind;
  uint32 index;          // kFound: in the pool
  keypool::Lease lease;  // kFound and Effect::kSelect
  Refusal refusal;       // kNone
};

// Chooses from a pool. A key is found only if its secret has been seen to open.
void choose_key(const MeterTables &tables, Pool *pool, const Request &request, Choice *choice);
