// model_pattern.h - which models a key or a quota is for.
//
// A pattern is a shell pattern over the model's whole name: `*` stands for any number of characters, `?` for one, all
// else for itself, by bytes
// (`?`: one UTF-8 character). 1 to 255 bytes, no control characters.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/status.h"

namespace keypool {

inline constexpr size_t kMaxPatternBytes = 255;
inline constexpr size_t kMaxModelBytes = 255;

Status CheckPattern(std::string_view pattern) noexcept;
Status CheckModel(std::string_view model) noexcept;

// In time proportional to both lengths' product at most.
bool Matches(std::string_view pattern, std::string_view model) noexcept;

// Whether some model matches both.
bool Overlap(std::string_view a, std::string_view b) noexcept;

// A hash that tells models apart; never 0.
uint32_t ModelHash(std::string_view model) noexcept;

}  // namespace keypool
