// header_reader.h - the fields of an HTTP answer's header, from what applications have of it.
//
// Either a JSON object, whose values are texts, numbers, or arrays of these (one field for each element); or lines of
// `name: value` (RFC 9112, section 5), among which lines without a colon, such as the status line, are left out.
#pragma once

#include "core/provider/json_reader.h"
#include "core/provider/lower_case.h"

namespace keypool {

inline constexpr size_t kMaxHeaderName = 64;

// Both until the next call of Next. What is longer than a field that anybody reads is left out.
struct HeaderField {
  std::string_view name;  // in lower case
  std::string_view value;
};

class HeaderReader {
 public:
  explicit HeaderReader(std::string_view headers) noexcept;

  // False at the end.
  bool Next(HeaderField *field) noexcept;

 private:
  bool NextOfObject(HeaderField *field) noexcept;
  bool NextOfLines(HeaderField *field) noexcept;
  void SetName(std::string_view name) noexcept;

  bool is_object_;
  JsonReader json_;
  std::string_view lines_;
  Lowered<kMaxHeaderName> name_;  // empty: none, or a longer one
};

}  // namespace keypool
