// provider_name.h - what a provider may be called.
#pragma once

#include <string_view>

#include "core/status.h"

namespace keypool {

inline constexpr size_t kMaxProviderBytes = 255;

// A provider is named by 1 to 255 bytes without control characters (C0 and DEL). The bytes are compared as they are.
Status CheckProviderName(std::string_view provider) noexcept;

// What the name of a provider must fulfil besides where a key is added: it looks like no other (given_text.h). Pools
// that are there, of a version that did not ask for it, are used and restored all the same.
Status CheckNewProviderName(std::string_view provider) noexcept;

}  // namespace keypool
