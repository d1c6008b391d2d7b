// key_ids.cpp - key ids as PostgreSQL's uuid.
#include "pg/server/key_ids.h"

#include "pg/server/core_call.h"
#include "pg/server/report.h"
#include "pg/server/utf8.h"

keypool::KeyId new_key_id(std::string_view provider) {
  keypool::KeyId id;
  uint8_t random[keypool::kKeyIdRandomBytes];
  if (!pg_strong_random(random, sizeof(random)))
    ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random key id"));
  provider = utf8_of_provider(provider);
  report_status(call_core([&] { return keypool::MakeKeyId(provider, random, &id); }));
  return id;
}

keypool::KeyId key_id_from_datum(Datum uuid) {
  keypool::KeyId id;
  memcpy(id.bytes, DatumGetUUIDP(uuid)->data, UUID_LEN);
  return id;
}

Datum key_id_datum(const keypool::KeyId &id) {
  auto *uuid = static_cast<pg_uuid_t *>(palloc(sizeof(pg_uuid_t)));
  memcpy(uuid->data, id.bytes, UUID_LEN);
  return UUIDPGetDatum(uuid);
}
