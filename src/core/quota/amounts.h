// amounts.h - what one request uses, and how much of it a limit counts.
#pragma once

#include <cstdint>

namespace keypool {

inline constexpr int64_t kMaxTokens = 1000000000;   // of one request, each of its three numbers
inline constexpr int64_t kMaxCost = 1000000000000;  // of one request, in a unit of the caller's
inline constexpr int32_t kMaxOutputWeight = 1000;

// Estimated or real. `output` and `cached` are parts of `tokens`.
struct Amounts {
  int64_t tokens;  // everything: prompt with cache reads and writes, output with reasoning
  int64_t output;
  int64_t cached;
  int64_t cost;

  friend bool operator==(const Amounts &, const Amounts &) = default;
};

// Cuts each amount to 0 .. its maximum; true if one was outside.
bool CutToRange(Amounts *amounts) noexcept;

// After CutToRange: raises `tokens` to the sum of its parts where they exceed it; true if it did. Where the sum exceeds
// kMaxTokens, `cached` gives way.
bool CoverParts(Amounts *amounts) noexcept;

// Which tokens a meter counts.
enum class Counts : uint8_t {
  kTokens,    // all
  kPrompt,    // tokens - output
  kInput,     // tokens - output - cached
  kUncached,  // tokens - cached
};

struct CountRule {
  Counts counts = Counts::kTokens;
  int32_t output_weight = 1;  // output tokens that are counted are counted so many times, 1 to kMaxOutputWeight

  friend bool operator==(const CountRule &, const CountRule &) = default;
};

// The tokens of a request as a meter with this rule counts them; never negative, at most INT64_MAX. The amounts are
// such as CoverParts leaves. Linear: what is counted of a sum of requests is the sum of what is counted of each.
int64_t CountedBy(const Amounts &amounts, const CountRule &rule) noexcept;

inline int64_t CountedTokens(const Amounts &amounts, const CountRule &rule) noexcept {
  bool all = rule.counts == Counts::kTokens && rule.output_weight == 1;  // keys, and most quotas
  return all ? amounts.tokens : CountedBy(amounts, rule);
}

}  // namespace keypool
