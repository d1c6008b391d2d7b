// walk_meters_test.cpp - sessions that select from a pool of real meters, as the glue does it, get what looking at
// every key would give: what is remembered of meters holds, and every change that eases one is told.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "core/quota/turn.h"
#include "core/quota/wakeups.h"
#include "core/quota/walk.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;
constexpr PeriodEnds kEnds = {1767268800 + 86400, 1767268800 + 30 * 86400};  // the test ends before

struct SmallRing : RingOf<5> {};

// One call that was selected.
struct Call {
  uint32_t key;
  Reservation reservation;
};

struct Member {  // a session
  std::vector<Candidate> candidates;
  std::vector<int64_t> block;
  SelectionOrder order;
  WalkMemory memory;
};

struct Outcome {
  bool found;
  uint32_t key;
  WalkRefusal refusal;
};

class MeterPool {
 public:
  MeterPool(unsigned seed, uint32_t keys, uint32_t quotas, int members) : random_(seed), keys_(keys), quotas_(quotas) {
    for (uint32_t i = 0; i < keys + quotas; ++i) {
      meters_.push_back(FreshMeter(kSecondSlots, 60 + Any(1000)));
      limits_.push_back(RandomLimits(i < keys ? 1 : 3));
      if (i >= keys) rules_.push_back(limits_[i].rule);
    }
    for (uint32_t i = 0; i < keys; ++i) {
      quotas_of_.push_back({{kNoIndex, kNoIndex, kNoIndex}});
      uint32_t count = 0;
      for (uint32_t quota = 0; quota < quotas && count < kQuotasOfKey; ++quota)
        if (Any(quotas) < 2) quotas_of_[i].quota[count++] = quota;
      weights_.push_back(Any(3) == 0 ? 1 + static_cast<int32_t>(Any(5)) : 1);
      priorities_.push_back(static_cast<int32_t>(Any(2)));
    }
    for (int i = 0; i < members; ++i) Join();
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      switch (Any(8)) {
        case 0:
          Tick();
          break;
        case 1:
          BlockOrClear();
          break;
        case 2:
        case 3:
          Settle();
          break;
        default:
          ASSERT_NO_FATAL_FAILURE(Select(&*members_[Any(static_cast<uint32_t>(members_.size()))])) << "step " << step;
      }
    }
  }

  int granted = 0;
  int refused = 0;
  int looks = 0;

 private:
  uint32_t Any(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  Limits RandomLimits(int64_t scale) {
    Limits limits;
    auto set = [&](Limit limit, uint32_t one_of, int64_t max) {
      if (Any(one_of) == 0) limits.of(limit) = scale * (1 + Any(static_cast<uint32_t>(max)));
    };
    set(Limit::kRpm, 2, 6);
    set(Limit::kTpm, 3, 400);
    set(Limit::kOutputTpm, 5, 200);
    set(Limit::kRpd, 6, 60);
    set(Limit::kTpd, 6, 9000);
    set(Limit::kCostDay, 8, 4000);
    set(Limit::kInFlight, 4, 4);
    if (limits.of(Limit::kRpm) != 0 && Any(4) == 0) limits.burst_seconds = static_cast<uint8_t>(1 + Any(20));
    if (scale > 1) limits.rule = {static_cast<Counts>(Any(4)), static_cast<int32_t>(1 + Any(3))};
    return limits;
  }

  KeyId IdOf(uint32_t meter) const {
    KeyId id = {};
    id.bytes[3] = static_cast<uint8_t>(meter * 37);
    id.bytes[15] = static_cast<uint8_t>(meter);
    return id;
  }

  void Join() {
    auto member = std::make_unique<Member>();
    for (uint32_t i = 0; i < keys_; ++i) member->candidates.push_back({IdOf(i), 0, {}, priorities_[i], 0});
    std::vector<uint32_t> scratch(keys_);
    OrderSize size = {keys_, GroupCandidates(quotas_of_.data(), member->candidates.data(), scratch.data(), keys_),
                      quotas_};
    member->block.resize(SelectionOrder::BlockBytes(size) / sizeof(int64_t));
    member->order =
        SelectionOrder(size, member->candidates.data(), quotas_of_.data(), rules_.data(), member->block.data());
    members_.push_back(std::move(member));
  }

  void Tick() {
    static constexpr TimeUs kSteps[] = {1000, 90000, 400000, 1000000, 3500000, 20000000};
    now_ += Any(30) == 0 ? -3000000 : kSteps[Any(6)];
  }

  // The meters of a key, its own first.
  std::vector<uint32_t> MetersOf(uint32_t key) const {
    std::vector<uint32_t> meters = {key};
    for (uint32_t quota : quotas_of_[key].quota)
      if (quota != kNoIndex) meters.push_back(keys_ + quota);
    return meters;
  }

  std::vector<const Meter *> Pointers(const std::vector<uint32_t> &indexes) const {
    std::vector<const Meter *> meters;
    for (uint32_t index : indexes) meters.push_back(&meters_[index]);
    return meters;
  }

  // Changes meters, and tells of those that ease.
  template <typename How>
  void Change(const std::vector<uint32_t> &indexes, How how) {
    std::vector<WatchedChange> watched;
    for (uint32_t index : indexes) watched.push_back(BeginChange(meters_[index], limits_[index].rule));
    how();
    for (size_t i = 0; i < indexes.size(); ++i)
      if (EndChange(watched[i], &meters_[indexes[i]], limits_[indexes[i]].rule)) PostMeter<5>(&ring_, IdOf(indexes[i]));
  }

  void BlockOrClear() {
    uint32_t index = Any(keys_ + quotas_);
    bool blocks = Any(2) == 0;
    TimeUs now = MeterNow(meters_[index], now_), until = now + 1 + Any(20) * 500000;
    Change({index}, [&] {
      MeterEdit edit(&meters_[index]);
      blocks ? static_cast<void>(Block(&edit, until, now)) : ClearBlocks(&edit, now);
    });
  }

  void Settle() {
    if (calls_.empty()) return;
    std::swap(calls_[Any(static_cast<uint32_t>(calls_.size()))], calls_.back());
    Call call = calls_.back();
    calls_.pop_back();
    if (Any(20) == 0) return;  // never settled
    std::vector<uint32_t> indexes = MetersOf(call.key);
    bool releases = Any(3) == 0;
    Amounts used = call.reservation.estimates;
    used.tokens = used.output + used.cached + Any(100);
    TimeUs now = SettlingNow(Pointers(indexes).data(), static_cast<int>(indexes.size()), call.reservation, now_);
    Change(indexes, [&] {
      std::vector<std::unique_ptr<MeterEdit>> edits;
      for (uint32_t index : indexes) edits.push_back(std::make_unique<MeterEdit>(&meters_[index]));
      if (SettleOnce(edits[0].get(), call.reservation, now) == Settled::kBefore) return;
      for (size_t i = 1; i < indexes.size(); ++i)
        CloseInQuota(edits[i].get(), limits_[indexes[i]].rule, call.reservation);
      for (size_t i = 0; i < indexes.size() && !releases; ++i)
        Count(edits[i].get(), limits_[indexes[i]].rule, used, call.reservation.second, kEnds, now);
    });
  }

  void Select(Member *member) {
    amounts_ = {Any(120), 0, 0, Any(300)};
    amounts_.output = Any(static_cast<uint32_t>(amounts_.tokens) + 1);
    amounts_.cached = Any(static_cast<uint32_t>(amounts_.tokens - amounts_.output) + 1);
    Outcome outcome = Walked(member, Any(5) != 0);
    ASSERT_TRUE(member->order.IsConsistent());
    if (!HasFatalFailure()) Check(outcome);
  }

  static bool HasFatalFailure() { return testing::Test::HasFatalFailure(); }

  Outcome Walked(Member *member, bool reserves) {
    Walk walk(&member->order, &member->memory, amounts_, reserves, true, now_);
    for (;;) {
      switch (walk.Next()) {
        case Walk::Step::kOpenRing:
          walk.RingOpened(ring_.posted);
          break;
        case Walk::Step::kReadRing:
          ReadRing(member);
          walk.BeginAgain(now_);
          break;
        case Walk::Step::kLook:
          LookOnce(member, &walk, reserves);
          break;
        case Walk::Step::kFound:
          return {true, walk.key(), {}};
        case Walk::Step::kNone:
          return {false, 0, walk.refusal()};
      }
    }
  }

  void ReadRing(Member *member) {
    KeyId posts[5];
    bool lost;
    uint32_t count = ReadPosts<5>(ring_, &member->memory.posts_seen, posts, &lost);
    if (lost) member->order.WakeAll();
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t meter = posts[i].bytes[15];
      meter < keys_ ? member->order.Wake(meter) : member->order.WakeQuota(meter - keys_);
    }
  }

  void LookOnce(Member *member, Walk *walk, bool reserves) {
    uint32_t key = walk->key();
    Limit which;
    if (!CanEverServe(limits_[key], amounts_, &which)) return walk->SetAside(Aside::kTooLarge);
    std::vector<uint32_t> indexes = MetersOf(key);
    for (size_t i = 1; i < indexes.size(); ++i)
      if (!CanEverServe(limits_[indexes[i]], amounts_, &which)) return walk->SetQuotaAside(indexes[i] - keys_);
    std::vector<const Limits *> limits;
    for (uint32_t index : indexes) limits.push_back(&limits_[index]);
    ++looks;
    Look look;
    LookAsk ask = {{amounts_, 0, now_}, IdOf(key), weights_[key], true, member->memory.newest};
    LookAt(Pointers(indexes).data(), limits.data(), static_cast<int>(indexes.size()), ask, &look);
    Verdict verdict = walk->Judge(look, walk->NeedsPosted(look) ? ring_.posted : 0, now_);
    for (size_t i = 0; i < indexes.size(); ++i)
      if ((verdict.awaits >> i & 1) != 0) meters_[indexes[i]].reserved.awaited |= AwaitedFor(limits_[indexes[i]]);
    if (!verdict.serves) return;
    best_ = Best(*member);
    if (reserves) ReserveIn(key, indexes, look.next, verdict.tells);
  }

  void ReserveIn(uint32_t key, const std::vector<uint32_t> &indexes, int64_t turn, bool tells) {
    TimeUs now = CommonNow(Pointers(indexes).data(), static_cast<int>(indexes.size()), now_);
    Change(tells ? indexes : std::vector<uint32_t>(), [&] {
      uint32_t sequence = Reserve(&meters_[key], limits_[key].rule, amounts_, true, turn, now);
      for (size_t i = 1; i < indexes.size(); ++i)
        Reserve(&meters_[indexes[i]], limits_[indexes[i]].rule, amounts_, false, 0, now);
      calls_.push_back({key, {SecondOf(now), sequence, amounts_}});
    });
  }

  // The latest moment, or guess, of a key's meters; 0: all admit; kNever: one never does.
  TimeUs MomentOf(uint32_t key, bool guess) const {
    TimeUs latest = 0;
    Limit which;
    for (uint32_t index : MetersOf(key)) {
      if (!CanEverServe(limits_[index], amounts_, &which)) return SelectionOrder::kNever;
      Admission admission = Admit(meters_[index], limits_[index], {amounts_, 0, now_});
      if (!admission.admitted()) latest = std::max(latest, guess ? admission.guess : admission.moment);
    }
    return latest;
  }

  // The key that is to be found, as a session stands that has seen so much.
  int Best(const Member &member) const {
    int best = -1;
    auto rank = [&](uint32_t key) {
      int64_t turn = meters_[key].reserved.turn;
      return std::tuple(priorities_[key], StandingTurn(turn, member.memory.newest, IdOf(key), weights_[key]),
                        IdOf(key));
    };
    for (uint32_t key = 0; key < keys_; ++key)
      if (MomentOf(key, false) == 0 && (best < 0 || rank(key) < rank(static_cast<uint32_t>(best))))
        best = static_cast<int>(key);
    return best;
  }

  void Check(const Outcome &outcome) {
    outcome.found ? ++granted : ++refused;
    if (outcome.found) {
      ASSERT_EQ(static_cast<int>(outcome.key), best_);
      return;
    }
    TimeUs first = SelectionOrder::kNever, first_guess = first;
    for (uint32_t key = 0; key < keys_; ++key) {
      first = std::min(first, MomentOf(key, false));
      first_guess = std::min(first_guess, MomentOf(key, true));
    }
    ASSERT_NE(first, 0);
    ASSERT_EQ(outcome.refusal.waits, first != SelectionOrder::kNever);
    if (!outcome.refusal.waits) return;
    ASSERT_LE(outcome.refusal.moment, first);
    ASSERT_GE(outcome.refusal.moment, first_guess);
    ASSERT_EQ(outcome.refusal.moment, MomentOf(outcome.refusal.key, true));
  }

  std::mt19937 random_;
  uint32_t keys_;
  uint32_t quotas_;
  TimeUs now_ = kStart;
  std::vector<Meter> meters_;  // of the keys, then of the quotas
  std::vector<Limits> limits_;
  std::vector<CountRule> rules_;
  std::vector<KeyQuotas> quotas_of_;
  std::vector<int32_t> weights_;
  std::vector<int32_t> priorities_;
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<Call> calls_;
  SmallRing ring_ = {};
  Amounts amounts_ = {};
  int best_ = -1;
};

void RunPools(uint32_t keys, uint32_t quotas, unsigned pools) {
  int granted = 0, refused = 0, looks = 0;
  for (unsigned seed = 0; seed < pools; ++seed) {
    MeterPool pool(seed, keys, quotas, 3);
    ASSERT_NO_FATAL_FAILURE(pool.Run(1500)) << "seed " << seed;
    granted += pool.granted;
    refused += pool.refused;
    looks += pool.looks;
  }
  printf("%d granted, %d refused, %d looks\n", granted, refused, looks);
  EXPECT_GT(std::min(granted, refused), static_cast<int>(pools));
}

TEST(WalkOverMeters, OfPlainKeys) { RunPools(4, 0, 30); }
TEST(WalkOverMeters, OfKeysUnderQuotas) { RunPools(5, 3, 25); }
TEST(WalkOverMeters, OfManyKeys) { RunPools(30, 5, 12); }

}  // namespace
}  // namespace keypool
