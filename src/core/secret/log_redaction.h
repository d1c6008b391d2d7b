// log_redaction.h - taking constants and parameters out of the texts of a log entry.
//
// All of these work in place, never make a text longer, return its new size, and take time in proportion to it.
#pragma once

#include <cstddef>
#include <string_view>

namespace keypool {

// A text of which is known where in it a statement begins, and how it is written there. Returns false, and leaves it as
// it is, if it is none of these:
//   what ends with `statement`, the one that runs, which may be empty
//   "parameters: $1 = '...', ..."
//   a plan of auto_explain, as text, JSON, YAML or XML
//   an entry of pgaudit, whose parameters are hidden as a whole
// Constants of a plan are hidden together with what stands between them.
bool RedactKnownShape(char *text, size_t *size, std::string_view statement) noexcept;

// Any other text that may hold constants: hides from the first quote on, as nobody can tell where constants end in it.
// A dump of a parse tree is hidden as a whole.
size_t RedactDoubtful(char *text, size_t size) noexcept;

// The message of an error about what was typed or bound, which quotes it at its end: hides from the quote on.
size_t RedactQuotedInput(char *text, size_t size) noexcept;

}  // namespace keypool
