// threads_test.cpp - the core keeps nothing of its own between calls: threads that share nothing do not meet. For
// ThreadSanitizer.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "core/lease.h"
#include "core/secret/envelope.h"
#include "core/secret/keyring.h"
#include "core/secret/redaction.h"
#include "core/window.h"
#include "unlogged_edits.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;

// One of everything that a process does; whether all of it went well.
bool LiveOneLife(int number) {
  KeyState state = FreshState();
  KeyId id = {};
  id.bytes[0] = static_cast<uint8_t>(number);
  Keyring keyring = {};
  if (!ParseKeyring("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &keyring).ok()) return false;
  for (int i = 0; i < 50; ++i) {
    TimeUs now = kStart + i * kMicrosPerSecond;
    Reservation granted = Reserve(&state, 10, now, 0), settled = {};
    if (!DecodeLease(id, EncodeLease(id, granted), now, &settled).ok()) return false;
    Record(&state, &settled, 7, now);
    char text[kMaxStateText];
    KeyState copy;
    if (!ParseState({text, FormatState(state, text)}, &copy).ok() || memcmp(&copy, &state, sizeof(copy)) != 0)
      return false;

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
  return state.recorded.total_requests == 50;
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
