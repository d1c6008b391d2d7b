// history_test.cpp - random histories of a key under up to three quotas, beside plain lists of what happened.
#include <gtest/gtest.h>

#include <memory>

#include "meters.h"
#include "plain_meter.h"

namespace keypool {
namespace {

// One kind of history: how fast time goes, and what rings the quotas may have.
struct Kind {
  const char *name;
  double mean_step;  // seconds
  std::vector<uint32_t> widths;
  uint32_t call_timeout;
  bool without_leases;  // some are settled so: then all estimates are equal
  int steps;
};

struct Call {
  Reservation reservation;
  bool settled = false;
};

class History {
 public:
  History(const Kind &kind, uint32_t seed) : kind_(kind), random_(seed) {
    int quotas = static_cast<int>(random_() % kMaxMeters);
    for (int i = 0; i <= quotas; ++i) AddMeter(i == 0);
    NewLimits();
  }

  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      Advance();
      if (random_() % 2000 == 0) NewLimits();
      Act();
      Compare(step % 16 == 0);
      if (step % 64 == 0) Prune();
    }
  }

  int selected() const { return selected_; }
  int refused() const { return refused_; }

 private:
  int64_t UpTo(int64_t max) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(max + 1)); }
  bool OneIn(unsigned n) { return random_() % n == 0; }

  void AddMeter(bool is_key) {
    uint32_t width = is_key ? kSecondSlots : kind_.widths[random_() % kind_.widths.size()];
    CountRule rule;
    if (!is_key && !kind_.without_leases)
      rule = {static_cast<Counts>(random_() % 4), static_cast<int32_t>(1 + UpTo(4))};
    meters_.push_back(FreshMeter(width, kind_.call_timeout));
    plain_.emplace_back(width, kind_.call_timeout, rule);
    limits_.emplace_back();
    limits_.back().rule = rule;
  }

  // Some of the limits that the ring can answer, some of them tight.
  void NewLimits() {
    for (size_t i = 0; i < meters_.size(); ++i) {
      Limits limits;
      limits.rule = limits_[i].rule;
      limits.rolling_day = meters_[i].recorded.ring_width == kDaySlots;
      int64_t per_window =
          std::max<int64_t>(2, static_cast<int64_t>(61.0 * meters_[i].recorded.ring_width / kind_.mean_step / 5));
      auto set = [&](Limit limit, int64_t typical) {
        if (OneIn(3)) limits.of(limit) = std::max<int64_t>(typical / 2 + UpTo(typical), 1);
      };
      if (meters_[i].recorded.ring_width == kSecondSlots) {
        set(Limit::kRpm, per_window);
        set(Limit::kTpm, per_window * 500 + 5000);
        set(Limit::kOutputTpm, per_window * 250 + 2000);
        if (OneIn(3)) limits.burst_seconds = static_cast<uint8_t>(1 + UpTo(29));
      } else if (meters_[i].recorded.ring_width == kHourSlots) {
        set(Limit::kRph, per_window);
        set(Limit::kTph, per_window * 500 + 5000);
      }
      int64_t per_day = std::max<int64_t>(2, static_cast<int64_t>(DayLength() / kind_.mean_step / 5));
      set(Limit::kRpd, per_day);
      set(Limit::kTpd, per_day * 500 + 5000);
      set(Limit::kCostDay, per_day * 50 + 100);
      set(Limit::kRequestsMonth, per_day * 6);
      set(Limit::kTokensMonth, per_day * 3000 + 5000);
      set(Limit::kCostMonth, per_day * 300 + 100);
      set(Limit::kInFlight, 30);
      limits_[i] = limits;
    }
  }

  double DayLength() const { return 600 * kind_.mean_step; }

  Amounts SomeAmounts() {
    if (kind_.without_leases) return {400, 100, 0, 40};
    Amounts amounts = {UpTo(1000), UpTo(300), UpTo(300), UpTo(100)};
    CoverParts(&amounts);
    return amounts;
  }

  // Mostly on, now and then back, now and then far on.
  void Advance() {
    wall_ += static_cast<TimeUs>(static_cast<double>(UpTo(2000000)) * kind_.mean_step);
    if (OneIn(500)) wall_ -= UpTo(30 * kMicrosPerSecond);
    if (OneIn(5000)) wall_ += static_cast<TimeUs>(static_cast<double>(UpTo(2000)) * kind_.mean_step) * kMicrosPerSecond;
  }

  std::vector<const Meter *> Pointers() const {
    std::vector<const Meter *> pointers;
    for (const Meter &meter : meters_) pointers.push_back(&meter);
    return pointers;
  }

  TimeUs Common(const Reservation *reservation) const {
    auto pointers = Pointers();
    int count = static_cast<int>(pointers.size());
    TimeUs now = reservation == nullptr ? CommonNow(pointers.data(), count, wall_)
                                        : SettlingNow(pointers.data(), count, *reservation, wall_);
    TimeUs plain = wall_;
    for (const PlainMeter &meter : plain_) plain = std::max(plain, meter.newest());
    EXPECT_EQ(now, plain);
    return now;
  }

  // Ends at arbitrary times: each meter has its own.
  PeriodEnds EndsOf(size_t meter, TimeUs now) {
    auto length = static_cast<Second>(std::max(DayLength(), 2.0));
    Second second = SecondOf(now);
    return {second + 1 + static_cast<Second>(UpTo(length)) + static_cast<Second>(meter),
            second + 1 + static_cast<Second>(UpTo(8 * length))};
  }

  void Act() {
    switch (random_() % 12) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return SelectOne();
      case 6:
        return OneIn(20) ? BlockOne() : SettleOne(true);
      case 7:
        return kind_.without_leases ? SettleOldest() : SettleOne(false);
      default:
        return SettleOne(true);
    }
  }

  void SelectOne() {
    Amounts estimates = SomeAmounts();
    uint32_t model = OneIn(3) ? 1 + random_() % 10 : 0;
    bool admitted = true;
    for (size_t i = 0; i < meters_.size(); ++i) admitted = CheckAdmission(i, estimates, i == 0 ? model : 0) && admitted;
    ++(admitted ? selected_ : refused_);
    if (!admitted) return;
    TimeUs now = Common(nullptr);
    Reservation reservation = {SecondOf(now), 0, estimates};
    int call = static_cast<int>(calls_.size());
    for (size_t i = 0; i < meters_.size(); ++i) {
      uint32_t sequence = Reserve(&meters_[i], limits_[i].rule, estimates, i == 0, 0, now);
      if (i == 0) reservation.sequence = sequence;
      plain_[i].Select(call, estimates, now);
    }
    calls_.push_back({reservation});
  }

  // Whether it admits, and if not, that it does so at the moment that it tells, and not before.
  bool CheckAdmission(size_t i, const Amounts &estimates, uint32_t model) {
    Limit which;
    if (!CanEverServe(limits_[i], estimates, &which)) return false;
    Admission admission = Admit(meters_[i], limits_[i], {estimates, model, wall_});
    TimeUs own = std::max(wall_, plain_[i].newest());
    bool plain = plain_[i].Admits(limits_[i], estimates, model, own);
    EXPECT_EQ(admission.admitted(), plain)
        << kind_.name << " " << LimitName(admission.limit == Limit::kCount ? Limit::kRpm : admission.limit);
    if (admission.admitted() || !OneIn(4)) return admission.admitted();
    EXPECT_GT(admission.moment, own);
    EXPECT_LE(admission.guess, admission.moment);
    EXPECT_FALSE(plain_[i].Admits(limits_[i], estimates, model, admission.moment - 1)) << kind_.name;
    EXPECT_TRUE(plain_[i].Admits(limits_[i], estimates, model, admission.moment)) << kind_.name;
    return false;
  }

  // One of the last calls, which may be settled already; as used, or given back.
  void SettleOne(bool used) {
    if (calls_.empty()) return;
    size_t pick =
        calls_.size() - 1 - static_cast<size_t>(UpTo(static_cast<int64_t>(std::min<size_t>(calls_.size(), 80)) - 1));
    Call &call = calls_[pick];
    TimeUs now = Common(&call.reservation);
    bool known = SecondOf(now) - call.reservation.second < 64;
    // What is not known one by one may count twice, and then free another call's place: not here.
    if (call.settled && (!known || call.reservation.sequence == kTrackedSelections)) return;
    Amounts amounts = SomeAmounts();
    MeterEdit key(&meters_[0]);
    Settled settled = SettleOnce(&key, call.reservation, now);
    EXPECT_EQ(settled, call.settled ? Settled::kBefore : known ? Settled::kNow : Settled::kTooOld);
    if (settled == Settled::kBefore) return;
    call.settled = true;
    for (size_t i = 0; i < meters_.size(); ++i) {
      MeterEdit edit(&meters_[i]);
      if (i > 0) CloseInQuota(&edit, limits_[i].rule, call.reservation);
      plain_[i].Close(static_cast<int>(pick));
      if (used) CountIn(i, &edit, amounts, call.reservation.second, now);
    }
  }

  void CountIn(size_t i, MeterEdit *edit, const Amounts &used, Second selected_in, TimeUs now) {
    PeriodEnds ends = EndsOf(i, now);
    Count(edit, limits_[i].rule, used, selected_in, ends, now);
    plain_[i].Count(used, selected_in, {ends.day, ends.month}, now);
  }

  void SettleOldest() {
    TimeUs now = Common(nullptr);
    Reservation taken = {SecondOf(now), 0, {}};
    MeterEdit key(&meters_[0]);
    bool found = TakeOldest(&key, &taken, now);
    int oldest = plain_[0].Oldest(now);
    ASSERT_EQ(found, oldest >= 0);
    if (found) {
      Call &call = calls_[static_cast<size_t>(oldest)];
      if (SecondOf(now) - call.reservation.second < 64) {
        EXPECT_EQ(taken.second, call.reservation.second);
        EXPECT_EQ(taken.estimates.output, call.reservation.estimates.output);
      } else {
        EXPECT_GT(SecondOf(now) - taken.second, 60u);
      }
      EXPECT_EQ(taken.estimates.tokens, call.reservation.estimates.tokens);
      EXPECT_EQ(taken.estimates.cost, call.reservation.estimates.cost);
      call.settled = true;
    }
    for (size_t i = 0; i < meters_.size(); ++i) {
      MeterEdit edit(&meters_[i]);
      if (found && i > 0) CloseShareInQuota(&edit, taken.second);
      if (found) plain_[i].Close(oldest);
      CountIn(i, &edit, SomeAmounts(), taken.second, now);
    }
    // Its lease would count, too, and find the place of another call: it is never settled here.
    if (found) calls_[static_cast<size_t>(oldest)].reservation = {SecondOf(kStart) - 1000000, 0, {}};
  }

  void BlockOne() {
    size_t i = random_() % meters_.size();
    auto pointer = Pointers()[i];
    TimeUs now = CommonNow(&pointer, 1, wall_);
    TimeUs until = now + 1 + static_cast<TimeUs>(static_cast<double>(UpTo(60 * kMicrosPerSecond)) * kind_.mean_step);
    MeterEdit edit(&meters_[i]);
    if (i == 0 && OneIn(2)) {
      uint32_t model = 1 + random_() % 10;
      BlockModel(&edit, model, until, now);
      plain_[i].BlockModel(model, until, now);
    } else {
      Block(&edit, until, now);
      plain_[i].Block(until, now);
    }
  }

  void Compare(bool all) {
    for (size_t i = 0; i < meters_.size(); ++i) {
      if (!all && i != random_() % meters_.size()) continue;
      const Meter &meter = meters_[i];
      TimeUs now = std::max(wall_, plain_[i].newest());
      ASSERT_EQ(MeterNow(meter, wall_), now);
      WindowUse use = UseInWindow(meter, wall_);
      PlainMeter::Use plain = plain_[i].Window(now), open = plain_[i].Open(now);
      ASSERT_EQ(use.requests, plain.requests) << kind_.name;
      ASSERT_EQ(use.tokens, plain.tokens) << kind_.name;
      OpenCalls calls = CallsInFlight(meter, wall_);
      ASSERT_EQ(calls.calls, open.requests);
      ASSERT_EQ(calls.tokens, open.tokens);
      ASSERT_EQ(calls.cost, open.cost);
      if (meter.recorded.ring_width == kSecondSlots) {
        ASSERT_EQ(use.output, plain.output);
      } else {
        ASSERT_EQ(CostInWindow(meter, wall_), plain.cost);
      }
      ComparePeriod(i, meter.recorded.day, plain_[i].Day(now));
      ComparePeriod(i, meter.recorded.month, plain_[i].Month(now));
    }
  }

  void ComparePeriod(size_t i, const Period &period, const PlainMeter::Use &plain) {
    PeriodUse use = UseInPeriod(meters_[i], period, limits_[i].rule, wall_);
    ASSERT_EQ(use.requests, plain.requests) << kind_.name;
    ASSERT_EQ(use.tokens, plain.tokens);
    ASSERT_EQ(use.cost, plain.cost);
  }

  void Prune() {
    for (PlainMeter &meter : plain_) meter.Prune(meter.newest());  // the wall clock may step back behind what it showed
  }

  Kind kind_;
  std::mt19937 random_;
  TimeUs wall_ = kStart;
  std::vector<Meter> meters_;
  std::vector<PlainMeter> plain_;
  std::vector<Limits> limits_;
  std::vector<Call> calls_;
  int selected_ = 0, refused_ = 0;
};

void RunKind(const Kind &kind, uint32_t seed) {
  int selected = 0, refused = 0;
  for (int run = 0; run < 25 && !testing::Test::HasFatalFailure(); ++run) {
    History history(kind, seed + static_cast<uint32_t>(run));
    history.Run(kind.steps / 25);
    selected += history.selected();
    refused += history.refused();
  }
  EXPECT_GT(selected, kind.steps / 30);
  EXPECT_GT(refused, kind.steps / 30);
}

TEST(History, OfMinutesAgreesWithPlainLists) { RunKind({"minutes", 0.5, {kSecondSlots}, 120, false, 300000}, 1000); }
TEST(History, OfABurstOfCallsAgreesWithPlainLists) { RunKind({"burst", 0.02, {kSecondSlots}, 60, false, 50000}, 2000); }
TEST(History, OfHoursAgreesWithPlainLists) {
  RunKind({"hours", 15, {kSecondSlots, kHourSlots}, kDefaultCallTimeout, false, 250000}, 3000);
}
TEST(History, OfRollingDaysAgreesWithPlainLists) {
  RunKind({"days", 300, {kSecondSlots, kHourSlots, kDaySlots}, kMaxCallTimeout, false, 200000}, 4000);
}
TEST(History, WithoutLeasesAgreesWithPlainLists) {
  RunKind({"without leases", 1, {kSecondSlots, kHourSlots}, 300, true, 200000}, 5000);
}

}  // namespace
}  // namespace keypool
