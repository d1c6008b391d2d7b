// utf8.cpp - text of the database as UTF-8.
#include "pg/server/utf8.h"

extern "C" {
#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
}

#include <openssl/crypto.h>

#include <algorithm>

#include "core/provider_name.h"
#include "pg/server/private_memory.h"

// Which is the same in every encoding of a database, also in MULE_INTERNAL, which no conversion to UTF-8 is for.
static bool is_ascii(std::string_view given) {
  return std::all_of(given.begin(), given.end(), [](char c) { return (c & 0x80) == 0; });
}

// Converts with PostgreSQL's own conversion: one that a search_path finds may be anybody's. False if there is none, or
// for a text that it does not convert. The result is palloc'd.
static bool convert(std::string_view given, int from, int to, char **result, Size *size) {
  Oid conversion = FindDefaultConversion(PG_CATALOG_NAMESPACE, from, to);
  if (!OidIsValid(conversion)) return false;
  Size capacity = (given.size() + 2) * MAX_CONVERSION_GROWTH + 2;
  *result = static_cast<char *>(palloc(capacity));
  int length = static_cast<int>(given.size());
  auto *bytes = reinterpret_cast<unsigned char *>(const_cast<char *>(given.data()));
  auto *out = reinterpret_cast<unsigned char *>(*result);
  int done = pg_do_encoding_conversion_buf(conversion, from, to, bytes, length, out, static_cast<int>(capacity), true);
  *size = strlen(*result);
  if (done == length) return true;
  OPENSSL_cleanse(*result, *size);
  pfree(*result);
  return false;
}

std::string_view utf8_of_text(std::string_view given, const char *argument) {
  if (utf8_is_native() || is_ascii(given)) return given;
  char *converted;
  Size size;
  if (!convert(given, GetDatabaseEncoding(), PG_UTF8, &converted, &size))
    ereport(ERROR, errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
            errmsg("%s holds a character that has no equivalent in UTF-8", argument));
  wipe_on_reset(converted, size);
  return {converted, size};
}

std::string_view utf8_of_provider(std::string_view provider) {
  static struct {
    char given[keypool::kMaxProviderBytes];
    Size given_size;
    char utf8[keypool::kMaxProviderBytes * MAX_CONVERSION_GROWTH];
    Size size;
  } last;  // that was converted; most calls of a process are for the same
  if (utf8_is_native() || is_ascii(provider) || provider.size() > sizeof(last.given)) return provider;
  if (provider == std::string_view{last.given, last.given_size}) return {last.utf8, last.size};
  char *converted;
  Size size;
  if (!convert(provider, GetDatabaseEncoding(), PG_UTF8, &converted, &size)) return provider;
  last.given_size = provider.size();
  last.size = Min(size, sizeof(last.utf8));
  memcpy(last.given, provider.data(), provider.size());
  memcpy(last.utf8, converted, last.size);
  pfree(converted);
  return {last.utf8, last.size};
}

bool utf8_to_database(std::string_view utf8, char *out, Size capacity, Size *size) {
  if (is_ascii(utf8) && utf8.size() <= capacity) {
    memmove(out, utf8.data(), utf8.size());
    *size = utf8.size();
    return true;
  }
  char *converted;
  Size needed;
  if (!pg_verify_mbstr(PG_UTF8, utf8.data(), static_cast<int>(utf8.size()), true)) return false;
  if (!convert(utf8, PG_UTF8, GetDatabaseEncoding(), &converted, &needed)) return false;
  bool fits = needed <= capacity;
  if (fits) {
    memcpy(out, converted, needed);
    *size = needed;
  }
  OPENSSL_cleanse(converted, needed);
  pfree(converted);
  return fits;
}
