// threads_test.cpp - the core keeps nothing of its own between calls: threads that share nothing do not meet. For
// ThreadSanitizer.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "core/quota/call.h"
#include "core/quota/lease.h"
#include "core/quota/meter_text.h"
#include "core/secret/envelope.h"
#include "core/secret/keyring.h"
#include "core/secret/redaction.h"

// OpenSSL is not built for ThreadSanitizer, which sees its memory but not all of its locks.
extern "C" const char *__tsan_default_suppressions() { return "race:libcrypto.so"; }

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;

// One of everything that a process does; whether all of it went well.
bool LiveOneLife(int number) {
  Meter meter = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  Meter *const meters[] = {&meter};
  const MeterRules rules = {{}, kSecondSlots, kDefaultCallTimeout, {SecondOf(kStart) + 3600, SecondOf(kStart) + 7200}};
  const MeterRules *const rules_of_meters[] = {&rules};
  KeyId id = {};
  id.bytes[0] = static_cast<uint8_t>(number);
  Keyring keyring = {};
  if (!ParseKeyring("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &keyring).ok()) return false;
  for (int i = 0; i < 50; ++i) {
    TimeUs now = kStart + i * kMicrosPerSecond;
    Lease lease = {}, read = {};
    lease.reservation = ReserveCall(meters, rules_of_meters, 1, {{10, 0, 0, 0}, 0, false, false}, now).reservation;
    char given[kLeaseSize];
    EncodeLease(id, lease, given);
    LeaseAge age;
    if (!DecodeLease(id, {given, kLeaseSize}, now, &read, &age).ok()) return false;
    MeterEdit edit(&meter);
    CallEnd end = {};
    end.ending = Ending::kRecorded;
    end.has_lease = true;
    end.reservation = read.reservation;
    end.used = {7, 0, 0, 0};
    if (!EndCall(&edit, rules_of_meters, 1, end, kMicrosPerSecond, now).counted) return false;
    std::vector<char> text(kMaxMeterText);
    Meter copy;
    size_t length = FormatMeter(meter, *reinterpret_cast<char(*)[kMaxMeterText]>(text.data()));
    if (!ParseMeter({text.data(), length}, &copy).ok() || memcmp(&copy, &meter, sizeof(copy)) != 0) return false;

    const uint8_t nonce[kNonceBytes] = {static_cast<uint8_t>(i)};
    std::vector<char> sealed(kMaxSealedText + 1), opened(kMaxSecretBytes);
    std::vector<uint8_t> payload(kMaxSealedText + 1);
    size_t size = 0;
    StoredSecret stored;
    if (!Seal(keyring.keys[0], nonce, {id, "p"}, "sk-secret", sealed.data(), &size).ok()) return false;
    ParseStored({sealed.data(), size}, payload.data(), &stored);
    if (!Open(&keyring, stored, {id, "p"}, opened.data(), &size).ok()) return false;
    std::string statement = "SELECT f('secret')";
    RedactConstants(statement.data(), statement.size());
  }
  Keyring none = {};
  MoveKeyring(&none, &keyring);
  return meter.recorded.totals.requests == 50;
}

TEST(Threads, DoNotMeetInTheCore) {
  std::vector<std::thread> threads;
  bool lived[8] = {};
  for (int i = 0; i < 8; ++i) threads.emplace_back([&lived, i] { lived[i] = LiveOneLife(i); });
  for (std::thread &thread : threads) thread.join();
  for (bool well : lived) EXPECT_TRUE(well);
}

}  // namespace
}  // namespace keypool
