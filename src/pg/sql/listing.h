// listing.h - the meters of keys as lists show them.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/time.h"
#include "pg/state/meter_store.h"

// Copies the meter of a key or quota of a provider that the finder's snapshot sees. One that is missing looks like a
// fresh one, and one that has seen a wrong time as its next use will leave it.
void copy_listed_meter(const MeterFinder &finder, const keypool::KeyId &id, std::string_view provider,
                       keypool::TimeUs now, keypool::Meter *copy);
