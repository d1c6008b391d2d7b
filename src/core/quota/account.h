// account.h - the path that says what a key's provider counts it under: `org-1/proj-a`.
//
// 1 to 255 bytes of segments parted by '/', none of them empty, without control characters or blanks at the ends of a
// segment.
#pragma once

#include <string_view>

#include "core/status.h"

namespace keypool {

inline constexpr size_t kMaxAccountBytes = 255;

Status CheckAccount(std::string_view account) noexcept;

// Whether a quota of `quota_account` holds for a key of `key_account`: it is the same path, or the beginning of it by
// whole segments.
bool Covers(std::string_view quota_account, std::string_view key_account) noexcept;

}  // namespace keypool
