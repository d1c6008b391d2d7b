// document.h - walking through a JSON document, and saying where in it an error was met.
#pragma once

#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/jsonb.h"
}

#include <string_view>

// Where the walk is, as a JSON path such as providers.openai.keys[3]: the CONTEXT of errors while it is open. A name
// that is no plain word stands in brackets and quotes, without what cannot be printed, and cut to 64 bytes.
struct DocumentPath {
  char text[1024];
  size_t size;
  ErrorContextCallback callback;
};
void document_path_open(DocumentPath *path);
void document_path_close(DocumentPath *path);

// Goes down, and back up to where `size` was.
void document_path_push(DocumentPath *path, std::string_view name);
void document_path_push(DocumentPath *path, int index);

inline text *document_text(std::string_view value) {
  return cstring_to_text_with_len(value.data(), static_cast<int>(value.size()));
}

// Calls `each(name, value)` for the fields of an object, or `each(index, value)` for the elements of an array, with the
// path at them. Values are jsonb.
template <typename Each>
void document_each(DocumentPath *path, struct varlena *container, Each each) {
  JsonbIterator *iterator = JsonbIteratorInit(&DatumGetJsonbP(PointerGetDatum(container))->root);
  JsonbValue value;
  JsonbIteratorToken token;
  std::string_view name;
  int index = 0;
  size_t above = path->size;
  while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE) {
    if (token == WJB_KEY) name = {value.val.string.val, static_cast<size_t>(value.val.string.len)};
    if (token != WJB_VALUE && token != WJB_ELEM) continue;
    CHECK_FOR_INTERRUPTS();
    if (token == WJB_VALUE)
      document_path_push(path, name);
    else
      document_path_push(path, index);
    each(name, reinterpret_cast<struct varlena *>(JsonbValueToJsonb(&value)));
    path->size = above;
    ++index;
  }
}
