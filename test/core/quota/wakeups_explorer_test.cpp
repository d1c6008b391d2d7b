// wakeups_explorer_test.cpp - every interleaving of short programs of three sessions over two keys and their quotas:
// each answer is right at one moment between its begin and its end, and no wake-up is lost. With a fault planted in
// what is around the core, some interleaving shows it.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "simulated_pool.h"

namespace keypool::simulation {
namespace {

constexpr int kKeys = 2;
constexpr int kQuotas = 2;
constexpr int kPosts = 2;  // few, so that posts get lost
constexpr int kHorizon = 24;
constexpr int kSessions = 3;
constexpr int kQuota = kKeys;  // the meter that is over both keys

using World = Shared<kKeys, kQuotas, kPosts, kHorizon>;
using Player = Session<kKeys, kQuotas, kPosts, kHorizon>;

// The steps of a program, as letters:
//   s S  select for 1 or 2 tokens     p  peek for 1 token     r  release what was selected     l  settle it for 1 token
//   less 0 1 q  a 429: block a key, or the quota over both         c d x  clear that block          t  one tick of the
//   clock
struct Scenario {
  int limits[kKeys + kQuotas];  // 0: none
  const char *programs[kSessions];
  Limited limited = Limited::kTokens;
  bool second_quota = false;  // over the second key
  bool same_priority = true;
};

// Everything that is and was, as bytes.
struct State {
  World world;
  Player players[kSessions];
  uint8_t at[kSessions];         // in its program
  bool second[kSessions];        // the second half of a change is to follow
  uint32_t refusals[kSessions];  // bit m: since the selection began, to refuse until m was right once
};

struct Findings {
  size_t states = 0;
  size_t ends = 0;
  size_t answers = 0;
  size_t wrong_answers = 0;
  size_t false_beliefs = 0;
  std::string first;
};

class Explorer {
 public:
  Explorer(const Scenario &scenario, Fault fault) : scenario_(scenario), fault_(fault), state_(new State()) {}

  Findings Run() {
    SetUp();
    Visit();
    return findings_;
  }

 private:
  void SetUp() {
    memset(static_cast<void *>(state_.get()), 0, sizeof(State));
    World *world = &state_->world;
    world->now = 1;
    world->lasts = 2;
    for (int i = 0; i < World::kMeters; ++i) {
      world->meters[i].limit = static_cast<uint16_t>(scenario_.limits[i]);
      world->meters[i].limited = scenario_.limited;
    }
    const uint8_t quotas[kKeys] = {1, static_cast<uint8_t>(scenario_.second_quota ? 3 : 1)};
    const int priorities[kKeys] = {0, scenario_.same_priority ? 0 : 1};
    for (int i = 0; i < kSessions; ++i) {
      new (&state_->players[i]) Player;
      state_->players[i].Open(quotas, priorities);
      state_->players[i].Rest();
    }
  }

  char StepOf(int session) const { return scenario_.programs[session][state_->at[session]]; }

  // Makes states equal that nobody can tell apart: posts that all have read, and how many there were before.
  void Normalize() {
    RingOf<kPosts> *ring = &state_->world.ring;
    uint64_t oldest = ring->posted;
    for (Player &player : state_->players) {
      if (!player.walking() && !player.order().remembers()) player.memory().posts_seen = ring->posted;
      oldest = std::min(oldest, player.memory().posts_seen);
    }
    for (uint64_t post = ring->posted; post < oldest + kPosts; ++post) ring->meters[post % kPosts] = {};
    uint64_t before = oldest / kPosts * kPosts;
    ring->posted -= before;
    for (Player &player : state_->players) player.memory().posts_seen -= before;
  }

  // All that can follow from here, each way once.
  void Visit() {
    Normalize();
    if (findings_.wrong_answers > 0 || !seen_.insert(HashOf(*state_)).second) return;
    ++findings_.states;
    std::vector<char> saved(sizeof(State));
    memcpy(saved.data(), state_.get(), sizeof(State));
    bool ended = true;
    for (int i = 0; i < kSessions; ++i) {
      if (StepOf(i) == '\0') continue;
      ended = false;
      trace_.push_back(static_cast<char>('1' + i));
      Step(i);
      if (fault_ == Fault::kNone) CheckBeliefs();
      Visit();
      trace_.pop_back();
      memcpy(static_cast<void *>(state_.get()), saved.data(), sizeof(State));
    }
    if (!ended) return;
    ++findings_.ends;
    for (int i = 0; i < kSessions; ++i) {
      SelectAlone(i);
      memcpy(static_cast<void *>(state_.get()), saved.data(), sizeof(State));
    }
  }

  void Step(int session) {
    Player *player = &state_->players[session];
    char step = StepOf(session);
    bool selects = step == 's' || step == 'S' || step == 'p';
    if (!selects) {
      if (!Change(session, step)) ++state_->at[session];
    } else if (!player->walking()) {
      Begin(session, step == 'S' ? 2 : 1, step != 'p');
    } else {
      Walk(session);
    }
    for (int i = 0; i < kSessions; ++i) NoteRightRefusal(i);
  }

  void Begin(int session, int tokens, bool reserves) {
    state_->refusals[session] = 0;
    state_->players[session].Begin(state_->world, tokens, reserves, true, 0);
    NoteRightRefusal(session);
    if (!state_->players[session].walking()) Answer(session, state_->world);
  }

  void Walk(int session) {
    World before = state_->world;
    Player *player = &state_->players[session];
    player->Step(&state_->world, fault_);
    if (!player->walking()) Answer(session, before);
  }

  // Checks an answer: a grant by the world as it was in the step that reserved it.
  void Answer(int session, const World &before) {
    Player *player = &state_->players[session];
    const simulation::Answer &answer = player->answer();
    ++findings_.answers;
    bool right = answer.granted ? BestKey(before, player->tokens()) == answer.key
                                : (state_->refusals[session] >> answer.moment / kTick & 1) != 0;
    if (!right) Found(&findings_.wrong_answers, "answer of session", session);
    player->Rest();
    ++state_->at[session];
  }

  static bool HasRoom(const World &world, const Player &player, uint32_t key, int tokens, Time at) {
    int meters[kMaxMeters];
    int count = player.MetersOf(key, meters);
    bool room = true;
    for (int i = 0; i < count; ++i) room = room && world.meters[meters[i]].Admits(tokens, at);
    return room;
  }

  int BestKey(const World &world, int tokens) const {
    int best = kNoKey;
    auto rank = [&](int key) { return scenario_.same_priority ? world.meters[key].turn * kKeys + key : key; };
    for (int key = 0; key < kKeys; ++key)
      if (HasRoom(world, state_->players[0], key, tokens, world.now) && (best == kNoKey || rank(key) < rank(best)))
        best = key;
    return best;
  }

  void NoteRightRefusal(int session) {
    const Player &player = state_->players[session];
    const World &world = state_->world;
    int tokens = player.tokens();
    if (!player.walking() || BestKey(world, tokens) != kNoKey) return;
    Time moment = world.now;
    auto room = [&](Time at) { return HasRoom(world, player, 0, tokens, at) || HasRoom(world, player, 1, tokens, at); };
    while (moment < kHorizon && !room(moment)) ++moment;
    state_->refusals[session] |= 1u << (moment < kHorizon ? moment : 0);  // 0: no key is large enough
  }

  bool Change(int session, char step) {
    World *world = &state_->world;
    Player *player = &state_->players[session];
    int meters[kMaxMeters];
    int count = 1;
    bool second = state_->second[session];
    auto change = [&](auto how) {
      return state_->second[session] = player->Change(world, meters, count, fault_, second, how);
    };
    if (step == 't') return ++world->now, false;
    if (step == 'r' || step == 'l') {
      Held held = player->held();
      if (held.key == kNoKey || (step == 'l' && held.tokens < 2)) return false;
      count = player->MetersOf(held.key, meters);
      int tokens = step == 'r' ? held.tokens : 1;
      bool more = change([=](auto *meter) { meter->GiveBack(tokens, held.leaves); });
      if (!more) player->held().key = kNoKey;
      return more;
    }
    bool blocks = step == '0' || step == '1' || step == 'q';
    meters[0] = step == '0' || step == 'c' ? 0 : step == '1' || step == 'd' ? 1 : kQuota;
    Time until = static_cast<Time>(blocks ? world->now + 2 : 0);
    return change([=](auto *meter) { meter->blocked_until = blocks ? std::max(meter->blocked_until, until) : until; });
  }

  // What a session remembers is a lower bound, or it will be told.
  void CheckBeliefs() {
    for (int i = 0; i < kSessions; ++i) {
      const Player &player = state_->players[i];
      for (uint32_t key = 0; key < kKeys; ++key) CheckBelief(i, static_cast<int>(key), player.order().KnownOf(key));
      for (uint32_t quota = 0; quota < kQuotas; ++quota)
        CheckBelief(i, kQuota + static_cast<int>(quota), player.order().KnownOfQuota(quota));
      if (!player.order().IsConsistent()) Found(&findings_.false_beliefs, "order of session", i);
    }
  }

  void CheckBelief(int session, int meter, const KnownWait *known) {
    const World &world = state_->world;
    if (known == nullptr || known->for_this_walk || known->wait.moment <= world.now * kTick) return;
    if (IsPosted(state_->players[session].memory().posts_seen, meter)) return;
    bool holds = world.meters[meter].awaited != 0;
    for (int tokens = 1; tokens <= 2; ++tokens)
      if (tokens >= static_cast<int>(known->wait.tokens) && world.meters[meter].CanEverServe(tokens))
        holds = holds && world.meters[meter].MomentOf(tokens, world.now) * kTick >= known->wait.moment;
    if (!holds) Found(&findings_.false_beliefs, "belief of session", session);
  }

  bool IsPosted(uint64_t seen, int meter) const {
    KeyId posts[kPosts];
    bool lost;
    uint32_t count = ReadPosts(state_->world.ring, &seen, posts, &lost);
    bool posted = lost;
    for (uint32_t i = 0; i < count; ++i) posted = posted || posts[i] == IdOf(meter);
    return posted;
  }

  // After the end nobody else changes anything: a session that was not told of something shows it now.
  void SelectAlone(int session) {
    Begin(session, 1, true);
    Player *player = &state_->players[session];
    for (int steps = 0; player->walking(); ++steps) {
      if (steps > 100) return Found(&findings_.wrong_answers, "endless walk of session", session);
      Walk(session);
    }
  }

  void Found(size_t *count, const char *what, int session) {
    if ((*count)++ == 0)
      findings_.first = std::string(what) + " " + static_cast<char>('1' + session) + " after " + trace_;
  }

  static std::string HashOf(const State &state) {
    constexpr size_t kWords = sizeof(State) / sizeof(uint64_t);
    static_assert(sizeof(State) % sizeof(uint64_t) == 0);
    const auto *bytes = reinterpret_cast<const unsigned char *>(&state);
    uint64_t hashes[2] = {1, 2};
    for (size_t i = 0; i < kWords; ++i) {
      uint64_t word;
      memcpy(&word, bytes + i * sizeof(word), sizeof(word));
      hashes[0] = (hashes[0] ^ word) * 0x9e3779b97f4a7c15;
      hashes[0] ^= hashes[0] >> 29;
      hashes[1] = (hashes[1] + word) * 0xff51afd7ed558ccd;
      hashes[1] ^= hashes[1] >> 32;
    }
    return std::string(reinterpret_cast<const char *>(hashes), sizeof(hashes));
  }

  Scenario scenario_;
  Fault fault_;
  std::unique_ptr<State> state_;
  std::unordered_set<std::string> seen_;
  std::string trace_;
  Findings findings_;
};

// Each of them with every interleaving.
const Scenario kScenarios[] = {
    {{0, 0, 1, 0}, {"srs", "ss", "sts"}},  // the quota is full, and a release eases it
    {{1, 1, 0, 0}, {"srs", "ss", "st"}},   // both keys are
    {{1, 1, 2, 0}, {"srs", "s", "ss"}},    // key and quota are
    {{0, 0, 2, 0}, {"Sls", "sS", "st"}},   // a large request waits, a small one need not
    {{2, 2, 3, 0}, {"SrS", "Ss", "S"}},    // the same for keys
    {{0, 0, 0, 0}, {"0sc", "q", "ssxs"}},  // blocks of key and quota
    {{1, 0, 0, 0}, {"qss", "sx", "tts"}},  // a block that is cleared, or passes
    {{1, 0, 0, 0}, {"0tt", "sss", "ss"}, Limited::kTokens, false, false},  // the better key's block passes
    {{0, 0, 1, 0}, {"srp", "ps", "ss"}},                                   // peeks
    {{1, 1, 2, 0}, {"srs", "srs", "s"}},                                   // more posts than the ring holds
    {{0, 0, 1, 1}, {"srs", "sqs", "xs"}, Limited::kTokens, true},          // two groups under one quota
    {{1, 0, 0, 1}, {"srs", "ss", "st"}, Limited::kTokens, true, false},    // each key waits for another reason
};

Findings Explore(Fault fault) {
  Findings all;
  for (const Scenario &scenario : kScenarios) {
    Findings found = Explorer(scenario, fault).Run();
    all.states += found.states;
    all.ends += found.ends;
    all.answers += found.answers;
    all.wrong_answers += found.wrong_answers;
    all.false_beliefs += found.false_beliefs;
    if (all.first.empty() && !found.first.empty())
      all.first = std::to_string(&scenario - kScenarios) + ": " + found.first;
    if (fault != Fault::kNone && all.wrong_answers > 0) break;
    if (getenv("V")) printf("%zd %zu %zu\n", &scenario - kScenarios, found.states, found.ends);
  }
  return all;
}

TEST(WakeupsExplorer, EveryAnswerIsRightAtOneMoment) {
  Findings found = Explore(Fault::kNone);
  EXPECT_EQ(found.wrong_answers, 0u) << found.first;
  EXPECT_EQ(found.false_beliefs, 0u) << found.first;
  printf("%zu states, %zu ends, %zu answers\n", found.states, found.ends, found.answers);
}

class PlantedFault : public testing::TestWithParam<Fault> {};

TEST_P(PlantedFault, IsFound) {
  Findings found = Explore(GetParam());
  EXPECT_GT(found.wrong_answers, 0u);
  printf("%zu states: %s\n", found.states, found.first.c_str());
}

INSTANTIATE_TEST_SUITE_P(WakeupsExplorer, PlantedFault,
                         testing::Values(Fault::kPostsBeforeTheChange, Fault::kPostsAfterTheChange, Fault::kNeverPosts,
                                         Fault::kAwaitsAfterUnlocking, Fault::kAwaitsTheKeyOnly,
                                         Fault::kOpensAfterLooking, Fault::kReadsThePostedBeforeLocking,
                                         Fault::kAnswersWithoutReadingPosted, Fault::kAnswersByAnOldClock,
                                         Fault::kReservesAfterUnlocking, Fault::kIgnoresLostPosts,
                                         Fault::kWakesAKeyOnly),
                         [](const auto &test) { return std::to_string(static_cast<int>(test.param)); });

}  // namespace
}  // namespace keypool::simulation
