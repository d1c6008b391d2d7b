// amounts.cpp - what one request uses, and how much of it a limit counts.
#include "core/quota/amounts.h"

#include <algorithm>
#include <cassert>
#include <limits>

namespace keypool {

namespace {

bool Cut(int64_t *amount, int64_t max) {
  int64_t cut = std::clamp<int64_t>(*amount, 0, max);
  bool was_outside = cut != *amount;
  *amount = cut;
  return was_outside;
}

int64_t CountedTimes(int64_t tokens, int64_t output, int32_t weight) {
  __int128 counted = tokens + static_cast<__int128>(output) * weight;
  return static_cast<int64_t>(std::min<__int128>(counted, std::numeric_limits<int64_t>::max()));
}

}  // namespace

bool CoverParts(Amounts *amounts) noexcept {
  assert(amounts->output >= 0 && amounts->output <= kMaxTokens && amounts->cached >= 0);
  amounts->cached = std::min(amounts->cached, kMaxTokens - amounts->output);
  int64_t parts = amounts->output + amounts->cached;
  if (parts <= amounts->tokens) return false;
  amounts->tokens = parts;
  return true;
}

bool CutToRange(Amounts *amounts) noexcept {
  bool cut = Cut(&amounts->tokens, kMaxTokens);
  cut |= Cut(&amounts->output, kMaxTokens);
  cut |= Cut(&amounts->cached, kMaxTokens);
  cut |= Cut(&amounts->cost, kMaxCost);
  return cut;
}

int64_t CountedBy(const Amounts &amounts, const CountRule &rule) noexcept {
  assert(amounts.output >= 0 && amounts.cached >= 0 && amounts.tokens - amounts.output >= amounts.cached);
  assert(rule.output_weight >= 1 && rule.output_weight <= kMaxOutputWeight);
  int64_t prompt = amounts.tokens - amounts.output;
  switch (rule.counts) {
    case Counts::kTokens:
      return CountedTimes(prompt, amounts.output, rule.output_weight);
    case Counts::kPrompt:
      return prompt;
    case Counts::kInput:
      return prompt - amounts.cached;
    case Counts::kUncached:
      return CountedTimes(prompt - amounts.cached, amounts.output, rule.output_weight);
  }
  return amounts.tokens;
}

}  // namespace keypool
