// provider_name.cpp - checking the name of a provider.
#include "core/provider_name.h"

#include <algorithm>

#include "core/secret/given_text.h"

namespace keypool {

Status CheckProviderName(std::string_view provider) noexcept {
  if (provider.empty()) return Failure(Code::kInvalidArgument, "provider must not be empty");
  if (provider.size() > kMaxProviderBytes)
    return Failure(Code::kInvalidArgument, "provider must not be longer than %zu bytes", kMaxProviderBytes);
  auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(provider.begin(), provider.end(), is_control))
    return Failure(Code::kInvalidArgument, "provider must not contain control characters");
  return {};
}

Status CheckNewProviderName(std::string_view provider) noexcept {
  Status status = CheckProviderName(provider);
  return status.ok() ? CheckGivenName(provider, "provider") : status;
}

}  // namespace keypool
