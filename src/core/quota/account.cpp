// account.cpp - the path that says what a key's provider counts it under.
#include "core/quota/account.h"

#include <algorithm>

namespace keypool {

namespace {

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

Status CheckSegment(std::string_view segment) {
  if (segment.empty()) return Failure(Code::kInvalidArgument, "account must not contain an empty segment");
  if (segment.front() == ' ' || segment.back() == ' ')
    return Failure(Code::kInvalidArgument, "account must not contain blanks at the ends of a segment");
  return {};
}

}  // namespace

Status CheckAccount(std::string_view account) noexcept {
  if (account.empty()) return Failure(Code::kInvalidArgument, "account must not be empty");
  if (account.size() > kMaxAccountBytes)
    return Failure(Code::kInvalidArgument, "account must not be longer than %zu bytes", kMaxAccountBytes);
  if (std::any_of(account.begin(), account.end(), IsControl))
    return Failure(Code::kInvalidArgument, "account must not contain control characters");
  for (size_t begin = 0; begin <= account.size();) {
    size_t end = std::min(account.find('/', begin), account.size());
    if (Status status = CheckSegment(account.substr(begin, end - begin)); !status.ok()) return status;
    begin = end + 1;
  }
  return {};
}

bool Covers(std::string_view quota_account, std::string_view key_account) noexcept {
  if (!key_account.starts_with(quota_account)) return false;
  return key_account.size() == quota_account.size() || key_account[quota_account.size()] == '/';
}

}  // namespace keypool
