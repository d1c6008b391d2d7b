// attributes.cpp - what the attributes of a key may hold.
#include "pg/sql/attributes.h"

extern "C" {
#include "utils/jsonb.h"
}

#include <string_view>

#include "pg/sql/trigger_rows.h"

static constexpr Size kMaxAttributes = 8192;

[[noreturn]] static void refuse(const char *message, const char *row) {
  refuse_column(keypool::Failure(keypool::Code::kInvalidArgument, "%s", message), row);
  pg_unreachable();
}

// Whether a text holds a URL whose authority is user:password@host.
static bool holds_password(std::string_view text) {
  for (size_t at = text.find("://"); at != text.npos; at = text.find("://", at + 3)) {
    std::string_view authority = text.substr(at + 3);
    authority = authority.substr(0, Min(authority.find_first_of("/?# \t\n"), authority.size()));
    size_t host = authority.rfind('@');
    if (host != authority.npos && authority.substr(0, host).find(':') != authority.npos) return true;
  }
  return false;
}

static bool contains_word(std::string_view text, std::string_view lower) {
  for (size_t at = 0; at + lower.size() <= text.size(); ++at)
    if (pg_strncasecmp(text.data() + at, lower.data(), lower.size()) == 0) return true;
  return false;
}

static bool looks_secret(std::string_view name) {
  for (std::string_view word : {"key", "secret", "token", "password"})
    if (contains_word(name, word)) return true;
  return false;
}

void check_attributes(Datum attributes, const char *row) {
  Jsonb *object = DatumGetJsonbP(attributes);
  if (!JB_ROOT_IS_OBJECT(object)) refuse("attributes must be a JSON object", row);
  if (VARSIZE(object) > kMaxAttributes)
    refuse(psprintf("attributes must not be longer than %zu bytes", kMaxAttributes), row);
  bool warn = false;
  JsonbIterator *iterator = JsonbIteratorInit(&object->root);
  JsonbValue value;
  JsonbIteratorToken token;
  while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE) {
    bool is_scalar = token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM;
    if (!is_scalar || value.type != jbvString) continue;
    std::string_view text(value.val.string.val, static_cast<size_t>(value.val.string.len));
    if (holds_password(text)) refuse("attributes must not contain a URL with a password", row);
    warn = warn || (token == WJB_KEY && looks_secret(text));
  }
  if (warn)
    ereport(WARNING, errmsg("keypool: attributes have a name that looks like that of a secret"),
            errhint("Attributes are not sealed, and are shown to whoever gets the key. A secret goes into key_value."));
}
