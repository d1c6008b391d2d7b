// plain_meter.h - a meter as a list of what happened, for comparison. It knows the rules by their sentences, and
// nothing of slots.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "core/quota/limits.h"

namespace keypool {

class PlainMeter {
 public:
  struct Use {
    int64_t requests = 0, tokens = 0, output = 0, cost = 0;

    void Add(const Amounts &amounts, const CountRule &rule) {
      ++requests;
      tokens += CountedTokens(amounts, rule);
      output += amounts.output;
      cost += amounts.cost;
    }
  };

  struct Ends {
    int64_t day, month;
  };

  PlainMeter(int64_t width, int64_t call_timeout, CountRule rule)
      : width_(width), open_width_((call_timeout + 14) / 15), rule_(rule) {}

  int64_t newest() const { return newest_; }  // microseconds

  void Select(int call, const Amounts &estimates, int64_t now) {
    Move(now);
    open_[call] = {Second(now), estimates};
    last_selected_ = now;
  }

  // Takes a call out; false if it is not open, or was given up.
  void Close(int call) { open_.erase(call); }

  void Count(const Amounts &used, int64_t selected_in, const Ends &ends, int64_t now) {
    Move(now);
    used_.push_back({std::min(selected_in, Second(now)), Second(now), used});
    Enter(&day_, ends.day, now);
    Enter(&month_, ends.month, now);
    day_.use.Add(used, rule_);
    month_.use.Add(used, rule_);
  }

  void Block(int64_t until, int64_t now) {
    Move(now);
    blocked_until_ = std::max(blocked_until_, until);
  }

  void BlockModel(uint32_t model, int64_t until, int64_t now) {
    int active = 0;
    for (auto &[other, its] : models_) active += its > now && other != model;
    if (active >= 8) return Block(until, now);
    Move(now);
    models_[model] = std::max(models_[model], until);
  }

  // The oldest call that is open; -1 if there is none.
  int Oldest(int64_t now) const {
    int oldest = -1;
    for (auto &[call, open] : open_)
      if (IsOpen(open, now) && (oldest < 0 || open.second < open_.at(oldest).second)) oldest = call;
    return oldest;
  }
  int64_t SecondOf(int call) const { return open_.at(call).second; }
  bool Has(int call) const { return open_.count(call) != 0; }

  Use Window(int64_t now) const {
    Use use;
    int64_t newest = Second(now) / width_;
    for (const Settled &settled : used_) {
      int64_t counted_in = width_ == 1 ? settled.selected_in : settled.settled_in / width_;
      use.requests += newest - counted_in <= 60;
      if (newest - settled.settled_in / width_ > 60) continue;
      use.tokens += CountedTokens(settled.used, rule_);
      use.output += settled.used.output;
      use.cost += settled.used.cost;
    }
    for (auto &[call, open] : open_)
      if (width_ == 1 ? newest - open.second <= 60 : IsOpen(open, now)) use.Add(open.estimates, rule_);
    return use;
  }

  Use Open(int64_t now) const {
    Use use;
    for (auto &[call, open] : open_)
      if (IsOpen(open, now)) use.Add(open.estimates, rule_);
    return use;
  }

  Use Day(int64_t now) const { return Second(now) < day_.end ? day_.use : Use{}; }
  Use Month(int64_t now) const { return Second(now) < month_.end ? month_.use : Use{}; }

  // If nothing happens until `now`, which is not before the newest time.
  bool Admits(const Limits &limits, const Amounts &asked, uint32_t model, int64_t now) const {
    if (blocked_until_ > now || (model != 0 && models_.count(model) != 0 && models_.at(model) > now)) return false;
    Use window = Window(now), open = Open(now), day = limits.rolling_day ? window : Sum(Day(now), open);
    Use month = Sum(Month(now), open);
    int64_t tokens = CountedTokens(asked, rule_);
    auto fits = [&](Limit limit, int64_t use, int64_t more) {
      int64_t max = limits.of(limit);
      return max == 0 || (use < max && use + more <= max);
    };
    return fits(Limit::kRpm, window.requests, 1) && fits(Limit::kRph, window.requests, 1) &&
           fits(Limit::kTpm, window.tokens, tokens) && fits(Limit::kTph, window.tokens, tokens) &&
           fits(Limit::kOutputTpm, window.output, asked.output) && fits(Limit::kRpd, day.requests, 1) &&
           fits(Limit::kTpd, day.tokens, tokens) && fits(Limit::kCostDay, day.cost, asked.cost) &&
           fits(Limit::kRequestsMonth, month.requests, 1) && fits(Limit::kTokensMonth, month.tokens, tokens) &&
           fits(Limit::kCostMonth, month.cost, asked.cost) && fits(Limit::kInFlight, open.requests, 1) &&
           FitsBurst(limits, now);
  }

  // Forgets what no question is about any more.
  void Prune(int64_t now) {
    int64_t kept = Second(now) - 70 * width_;
    used_.erase(
        std::remove_if(used_.begin(), used_.end(), [&](const Settled &settled) { return settled.settled_in < kept; }),
        used_.end());
    for (auto it = open_.begin(); it != open_.end();)
      it = !IsOpen(it->second, now) && it->second.second < Second(now) - 70 ? open_.erase(it) : std::next(it);
  }

 private:
  struct OpenCall {
    int64_t second;
    Amounts estimates;
  };
  struct Settled {
    int64_t selected_in, settled_in;
    Amounts used;
  };
  struct PlainPeriod {
    int64_t end = 0;
    Use use;
  };

  static int64_t Second(int64_t now) { return now / 1000000; }
  static Use Sum(const Use &a, const Use &b) {
    return {a.requests + b.requests, a.tokens + b.tokens, a.output + b.output, a.cost + b.cost};
  }

  void Move(int64_t now) { newest_ = std::max(newest_, now); }

  void Enter(PlainPeriod *period, int64_t end, int64_t now) {
    if (Second(now) >= period->end) *period = {end, {}};
  }

  bool IsOpen(const OpenCall &open, int64_t now) const {
    return Second(now) / open_width_ - open.second / open_width_ <= 15;
  }

  bool FitsBurst(const Limits &limits, int64_t now) const {
    int64_t seconds = limits.burst_seconds, rpm = limits.of(Limit::kRpm);
    if (seconds == 0 || rpm == 0) return true;
    int64_t share = (rpm * seconds + 59) / 60, requests = 0;
    if (share == 1) {
      // A request that nobody selected counts in its second.
      int64_t counted_in = 0;
      for (const Settled &settled : used_) counted_in = std::max(counted_in, settled.selected_in);
      if (counted_in > Second(last_selected_)) return Second(now) - counted_in > seconds;
      return last_selected_ == 0 || now - last_selected_ >= seconds * 1000000;
    }
    for (const Settled &settled : used_) requests += Second(now) - settled.selected_in <= seconds;
    for (auto &[call, open] : open_) requests += Second(now) - open.second <= seconds;
    return requests < share;
  }

  int64_t width_, open_width_;
  CountRule rule_;
  int64_t newest_ = 0, last_selected_ = 0, blocked_until_ = 0;
  std::map<uint32_t, int64_t> models_;
  std::map<int, OpenCall> open_;
  std::vector<Settled> used_;
  PlainPeriod day_, month_;
};

}  // namespace keypool
