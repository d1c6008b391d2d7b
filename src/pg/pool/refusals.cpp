// refusals.cpp - what this session has refused, by provider and status.
#include "pg/pool/refusals.h"

#include "core/provider_name.h"
#include "pg/catalog/provider_changes.h"
#include "pg/server/clock.h"
#include "pg/state/event_log.h"
#include "pg/state/refusal_rows.h"

using keypool::TimeUs;

static constexpr int kProviders = 16;
static constexpr TimeUs kPostEvery = keypool::kMicrosPerSecond;

// Of one provider. What is not posted yet has `first_at`.
struct Noted {
  char name[keypool::kMaxProviderBytes];
  uint8 name_length;
  TimeUs posted_at;
  TimeUs first_at;  // 0: all is posted
  uint32_t refused[keypool::kRefused];

  std::string_view provider() const { return {name, name_length}; }
};

static struct {
  int unposted;  // providers with something to post
  Noted noted[kProviders];
} session;

static bool is_due(const Noted &noted, TimeUs now) {
  return noted.first_at != 0 && (now - noted.posted_at >= kPostEvery || now < noted.posted_at);
}

// Where they cannot be posted now they are kept.
static void post(Noted *noted, TimeUs now) {
  noted->posted_at = now;
  bool became_short;
  if (!refusal_rows_post(noted->provider(), noted->refused, Min(noted->first_at, now), now, &became_short)) return;
  if (became_short) event_log_note({"provider_short", noted->provider(), nullptr, nullptr});
  noted->first_at = 0;
  memset(noted->refused, 0, sizeof(noted->refused));
  --session.unposted;
}

// The place of a provider. Another's that has it is posted first, and what cannot be posted then is lost.
static Noted *place_of(std::string_view provider, TimeUs now) {
  Noted *noted = &session.noted[provider_change_hash(provider) % kProviders];
  if (noted->provider() == provider) return noted;
  if (noted->first_at != 0) post(noted, now);
  if (noted->first_at != 0) --session.unposted;
  *noted = {};
  memcpy(noted->name, provider.data(), provider.size());
  noted->name_length = static_cast<uint8>(provider.size());
  return noted;
}

void refusals_note(std::string_view provider, keypool::Refused why, TimeUs now) {
  Assert(provider.size() <= keypool::kMaxProviderBytes);
  Noted *noted = place_of(provider, now);
  if (noted->first_at == 0) {
    noted->first_at = now;
    ++session.unposted;
  }
  ++noted->refused[static_cast<int>(why)];
  if (is_due(*noted, now)) post(noted, now);
}

void refusals_post_due(void) {
  if (session.unposted == 0) return;
  TimeUs now = clock_now();
  for (Noted &noted : session.noted)
    if (is_due(noted, now)) post(&noted, now);
}
