// redaction.h - taking the constants out of the text of a statement.
#pragma once

#include <cstddef>

namespace keypool {

// Replaces what stands in the string constants of SQL text by up to three asterisks, in place, and returns the new
// length, which is never greater; the rest is as it was. Understands '...', E'...', dollar quotes, quoted identifiers
// and comments, as the lexer of PostgreSQL does. The body of a DO block or a function is taken for SQL itself; any
// other dollar quote is a constant. A constant without an end goes to the end of the text. Works on a message with such
// text in it, too. `backslashes`: in '...' a backslash escapes, as without standard_conforming_strings.
size_t RedactConstants(char *text, size_t size, bool backslashes) noexcept;

}  // namespace keypool
