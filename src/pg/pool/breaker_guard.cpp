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

// Asks a key's meter, as it is, something that raises nothing. `otherwise` if its place no longer holds it.
template <typename Question>
static bool ask_meter(const MeterTables &tables, MeterPlace *place, bool otherwise, Question question) {
  Meters meters = {};
  if (!meters_pin_key(tables, place, &meters) || !meters_lock(&meters, BUFFER_LOCK_SHARE)) return otherwise;
  bool answer = question(*meters.meter[0]);
  meters_unlock(&meters, false);
  return answer;
}

// The provider of the key, if such a failure would open its breaker; else empty. A key whose meter has moved is taken
// for one that does.
static std::string_view provider_if_opens(const KeyId &id, const BreakerRule &failure, Second selected_in,
                                          Right right) {
  KeyReference key;
  MeterTables tables;
  if (!pool_cache_open_key(id, RowExclusiveLock, &key, &tables)) return {};
  privileges_require(right, key.pool->provider);
  auto would_open = [&](const keypool::Meter &meter) { return keypool::WouldOpen(meter, failure, selected_in); };
  bool opens = ask_meter(tables, key.place, true, would_open);
  std::string_view provider;
  if (opens) provider = {pnstrdup(key.pool->provider.data(), key.pool->provider.size()), key.pool->provider.size()};
  meter_tables_close(tables);
  return provider;
}

static int count_keys_that_are_on(const Pool &pool, TimeUs now) {
  int keys = 0;
  for (int i = 0; i < pool.count; ++i) keys += key_is_on(pool.keys[i], now);
  return keys;
}

// Whether one more key may be taken out. Each is locked for itself: nobody else opens a breaker for this reason now.
static bool has_key_to_spare(std::string_view provider, const KeyId &but) {
  MeterTables tables;
  Pool *pool = pool_cache_open_provider(provider, RowExclusiveLock, &tables);
  TimeUs now = clock_now();
  auto rests = [&](const keypool::Meter &meter) {
    return keypool::BreakerStateOf(meter, keypool::MeterNow(meter, now)) != keypool::BreakerState::kClosed;
  };
  int left = pool == nullptr ? 1 : Max(count_keys_that_are_on(*pool, now) / 2, 1);
  for (int i = 0; pool != nullptr && i < pool->count && left > 0; ++i) {
    CHECK_FOR_INTERRUPTS();
    PoolKey *key = &pool->keys[i];
    bool is_it = memcmp(key->place.id.bytes, but.bytes, sizeof(but.bytes)) == 0;
    if (!is_it && key_is_on(*key, now) && ask_meter(tables, &key->place, false, rests)) --left;
  }
  meter_tables_close(tables);
  return left > 0;
}

GuardSays breaker_guard_begin(const KeyId &key, const BreakerRule &failure, Second selected_in, Right right,
                              BreakerGuard *guard) {
  std::string_view provider = provider_if_opens(key, failure, selected_in, right);
  if (provider.empty()) return guard->held ? GuardSays::kMayOpen : GuardSays::kWouldNotOpen;
  if (!guard->held) {
    // Told apart from the lock of configuration by its last number.
    SET_LOCKTAG_OBJECT(guard->lock, MyDatabaseId, relations().key_meters, provider_change_hash(provider), 1);
    LockAcquire(&guard->lock, ExclusiveLock, false, false);
    guard->held = true;
  }
  return has_key_to_spare(provider, key) ? GuardSays::kMayOpen : GuardSays::kOnlySuspects;
}

void breaker_guard_end(BreakerGuard *guard) {
  if (guard->held) LockRelease(&guard->lock, ExclusiveLock, false);
  guard->held = false;
}
