// header_reader.cpp - the fields of an HTTP answer's header.
#include "core/provider/header_reader.h"

namespace keypool {

namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

HeaderReader::HeaderReader(std::string_view headers) noexcept
    : is_object_(headers.substr(0, headers.find_first_not_of(" \t\r\n") + 1).ends_with('{')),
      json_(headers),
      lines_(headers) {}

void HeaderReader::SetName(std::string_view name) noexcept {
  name_.Set(name.size() <= kMaxHeaderName ? name : std::string_view());
}

bool HeaderReader::Next(HeaderField *field) noexcept { return is_object_ ? NextOfObject(field) : NextOfLines(field); }

// Names are those of the outermost object; their values stand there, or in an array.
bool HeaderReader::NextOfObject(HeaderField *field) noexcept {
  using Piece = JsonReader::Piece;
  for (Piece piece = json_.Next(); piece != Piece::kEnd; piece = json_.Next()) {
    if (piece == Piece::kName && json_.depth() == 1) SetName(json_.value());
    bool value = (piece == Piece::kText || piece == Piece::kNumber) && json_.depth() <= 2;
    if (!value || name_.text().empty()) continue;
    *field = {name_.text(), Trimmed(json_.value())};
    return true;
  }
  return false;
}

bool HeaderReader::NextOfLines(HeaderField *field) noexcept {
  while (!lines_.empty()) {
    std::string_view line = lines_.substr(0, lines_.find('\n'));
    lines_.remove_prefix(line.size() < lines_.size() ? line.size() + 1 : line.size());
    size_t colon = line.find(':');
    if (colon == line.npos) continue;
    SetName(Trimmed(line.substr(0, colon)));
    if (name_.text().empty()) continue;
    *field = {name_.text(), Trimmed(line.substr(colon + 1))};
    return true;
  }
  return false;
}

}  // namespace keypool
