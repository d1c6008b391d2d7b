// document.cpp - walking through a JSON document, and saying where in it an error was met.
#include "pg/sql/document.h"

#include <algorithm>

static constexpr size_t kMaxName = 64;

static void say_where(void *argument) {
  auto *path = static_cast<DocumentPath *>(argument);
  if (path->size != 0) errcontext("JSON path %.*s", static_cast<int>(path->size), path->text);
}

void document_path_open(DocumentPath *path) {
  path->size = 0;
  path->callback = {error_context_stack, say_where, path};
  error_context_stack = &path->callback;
}

void document_path_close(DocumentPath *path) { error_context_stack = path->callback.previous; }

// What does not fit is left out.
static void append(DocumentPath *path, std::string_view part) {
  size_t size = Min(part.size(), sizeof(path->text) - path->size);
  memcpy(path->text + path->size, part.data(), size);
  path->size += size;
}

static bool is_plain(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return isalnum(c) || c == '_' || c == '-'; });
}

void document_path_push(DocumentPath *path, std::string_view name) {
  if (is_plain(name)) {
    append(path, path->size == 0 ? "" : ".");
    return append(path, name);
  }
  append(path, "[\"");
  for (char c : name.substr(0, pg_mbcliplen(name.data(), static_cast<int>(name.size()), kMaxName)))
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '"') append(path, {&c, 1});
  append(path, "\"]");
}

void document_path_push(DocumentPath *path, int index) { append(path, psprintf("[%d]", index)); }
