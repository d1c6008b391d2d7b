// breaker_guard.cpp - keeps failures whose cause may be elsewhere from taking out all keys of a provider.
#include "pg/pool/breaker_guard.h"

#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/pool/model_orders.h"
#include "pg/server/clock.h"

using keypool::BreakerRule;
using keypool::KeyId;
using keypool::Second;
using keypool::TimeUs;

// A key's meter, as it is. False if its place no longer holds it.
static bool copy_meter(const MeterTables &tables, MeterPlace *place, keypool::Meter *copy) {
  Meters meters = {};
  if (!meters_pin_key(tables, place, &meters) || !meters_lock(&meters, BUFFER_LOCK_SHARE)) return false;
  *copy = *meters.meter[0];
  meters_unlock(&meters, false);
  return true;
}

// The provider of the key, if such a failure would open its breaker; else empty. A key whose meter has moved is taken
// for one that does.
static std::string_view provider_if_opens(const KeyId &id, const BreakerRule &failure, Second selected_in) {
  KeyReference key;
  MeterTables tables;
  if (!pool_cache_open_key(id, RowExclusiveLock, &key, &tables)) return {};
  keypool::Meter copy;
  bool opens = !copy_meter(tables, key.place, &copy) || keypool::WouldOpen(copy, failure, selected_in);
  std::string_view provider;
  if (opens) provider = {pnstrdup(key.pool->provider.data(), key.pool->provider.size()), key.pool->provider.size()};
  meter_tables_close(tables);
  return provider;
}

// Whether one more key may be taken out. Each is locked for itself: nobody else opens a breaker for this reason now.
static bool has_key_to_spare(std::string_view provider, const KeyId &but) {
  MeterTables tables;
  Pool *pool = pool_cache_open_provider(provider, RowExclusiveLock, &tables);
  int keys = 0, out = 0;
  TimeUs now = clock_now();
  for (int i = 0; pool != nullptr && i < pool->count; ++i) {
    CHECK_FOR_INTERRUPTS();
    PoolKey *key = &pool->keys[i];
    keypool::Meter copy;
    if (!key_is_on(*key, now) || !copy_meter(tables, &key->place, &copy)) continue;
    ++keys;
    bool is_it = memcmp(key->place.id.bytes, but.bytes, sizeof(but.bytes)) == 0;
    out += !is_it && keypool::BreakerStateOf(copy, keypool::MeterNow(copy, now)) != keypool::BreakerState::kClosed;
  }
  meter_tables_close(tables);
  return out < Max(keys / 2, 1);
}

bool breaker_guard_begin(const KeyId &key, const BreakerRule &failure, Second selected_in, BreakerGuard *guard) {
  std::string_view provider = provider_if_opens(key, failure, selected_in);
  if (provider.empty()) return true;
  // Told apart from the lock of configuration by its last number.
  SET_LOCKTAG_OBJECT(guard->lock, MyDatabaseId, relations().key_meters, provider_change_hash(provider), 1);
  LockAcquire(&guard->lock, ExclusiveLock, false, false);
  guard->held = true;
  return has_key_to_spare(provider, key);
}

void breaker_guard_end(BreakerGuard *guard) {
  if (guard->held) LockRelease(&guard->lock, ExclusiveLock, false);
  guard->held = false;
}
