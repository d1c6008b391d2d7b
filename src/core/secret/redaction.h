// redaction.h - taking the constants out of the text of a statement.
#pragma once

#include <cstddef>
#include <string_view>

namespace keypool {

// Whether a text names what a secret is given to. A statement that does may hold a secret as a constant, or bind one.
bool NamesSecret(std::string_view text) noexcept;

// Whether a text holds the word EXECUTE. A statement that does may run a prepared one, also from within EXPLAIN, CREATE
// TABLE AS, or behind another statement of the same text.
bool NamesExecute(std::string_view text) noexcept;

// What was read of a text, what was written in its place, and how many bytes were looked at for that: at most
// kMaxLooks for each byte read, whatever the text.
struct Redaction {
  size_t read;
  size_t written;
  size_t looked_at;
};
inline constexpr size_t kMaxLooks = 5;

// Replaces what stands in the string constants of SQL text by up to three asterisks, in place, which never makes it
// longer; the rest is as it was. Understands '...', E'...', dollar quotes, quoted identifiers and comments, as the
// lexer of PostgreSQL does. The body of a DO block or a function in SQL or PL/pgSQL is taken for SQL itself; any other
// dollar quote is a constant, also one within a body. To the end of the text or body go: a constant without an end, one
// whose end depends on standard_conforming_strings, since who reads the text does not know what was set, and what
// follows a double quote without a second one.
Redaction RedactConstants(char *text, size_t size) noexcept;

// The same, up to a line that starts outside of constants, comments and bodies and of which `ends` is true.
using LineTest = bool (*)(std::string_view rest);
Redaction RedactUntil(char *text, size_t size, LineTest ends) noexcept;

// Calls `use` with the content of every string constant, as it is typed.
using ConstantUse = void (*)(void *argument, std::string_view content);
void ForEachConstant(std::string_view text, ConstantUse use, void *argument) noexcept;

}  // namespace keypool
