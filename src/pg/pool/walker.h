// walker.h - one choice of a key under way. For choose_key.cpp and preferred_keys.cpp.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/call_meters.h"
#include "pg/pool/choose_key.h"
#include "pg/pool/model_orders.h"
#include "pg/state/meter_log.h"
#include "pg/state/wakeups.h"

struct Walker {
  const MeterTables &tables;
  Pool *pool;
  ModelOrder *order;
  const Request &request;
  keypool::Amounts amounts;
  uint32 model_hash;  // 0: none
  bool reserves;
  keypool::TimeUs not_before;  // clock_first_second, if it reserves
  Wakeups *ring;
  bool asked_ring;  // it is open, or missing
  Choice *choice;
};

// The time of what it does.
keypool::TimeUs walker_now(const Walker &walker);

CallMeters walker_meters(const Walker &walker, uint32 candidate);
keypool::LookAsk walker_ask(const Walker &walker, uint32 index, keypool::TimeUs now);

// Whether the model alone is blocked on a key, in an order that it shares with others.
bool walker_must_tell_apart(const Walker &walker, const keypool::Meter &key, keypool::TimeUs now);

// Reserves what serves, under the locks; what that eases is posted if it `tells`. `change` logs it, or is null.
void walker_reserve(const Walker &walker, const CallMeters &call, const keypool::Look &look, bool tells,
                    keypool::TimeUs now, const Meters &meters, MeterChange *change);
