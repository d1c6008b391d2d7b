// key_secret.cpp - opening the secrets of a pool's keys.
#include "pg/pool/key_secret.h"

#include "pg/pool/model_orders.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/report.h"

using keypool::Code;
using keypool::Status;

Status open_pool_secret(const Pool &pool, uint32 index) {
  return open_secret(pool.keys[index].secret, {pool.keys[index].place.id, pool.provider});
}

// Silent while the keyring is not usable, which may be the cause, and is in the log. Once it is mended, all secrets are
// tried anew.
static void warn_unopened(const keypool::KeyId &id, const Status &status) {
  static HTAB *warned = nullptr;  // keys, since the keyring was loaded
  static uint32 generation = 0;
  if (!master_keys_problem().ok()) return;
  if (generation != master_keys_generation() && warned != nullptr) {
    hash_destroy(warned);
    warned = nullptr;
  }
  generation = master_keys_generation();
  if (warned == nullptr) {
    HASHCTL control = {};
    control.keysize = control.entrysize = sizeof(keypool::KeyId);
    warned = hash_create("keypool warned keys", 16, &control, HASH_ELEM | HASH_BLOBS);
  }
  bool found;
  hash_search(warned, &id, HASH_ENTER, &found);
  if (found) return;
  pg_uuid_t uuid;
  memcpy(uuid.data, id.bytes, UUID_LEN);
  ereport(WARNING, errmsg("keypool: key %s is skipped: %s",
                          DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid))), status.message));
}

bool key_secret_opens(Pool *pool, uint32 index, Status *problem) {
  PoolKey *key = &pool->keys[index];
  if (key->opens == Opens::kYes) return true;
  bool known = key->opens == Opens::kNo || (key->opens == Opens::kMissingMasterKey && !problem->ok());
  if (known) return false;
  Status status = open_pool_secret(*pool, index);
  opened_secret_wipe();
  bool missing = status.code == Code::kMissingMasterKey;
  key->opens = status.ok() ? Opens::kYes : missing ? Opens::kMissingMasterKey : Opens::kNo;
  if (key->opens == Opens::kYes) return true;
  if (missing) *problem = status;
  if (status.code == Code::kInternal) report_status(status);
  warn_unopened(key->place.id, status);
  return false;
}

void match_keyring(Pool *pool) {
  if (pool->keyring_generation == master_keys_generation()) return;
  for (int i = 0; i < pool->count; ++i) pool->keys[i].opens = Opens::kUnknown;
  model_orders_wake_all(pool);  // keys that waited may not open now
  pool->keyring_generation = master_keys_generation();
}
