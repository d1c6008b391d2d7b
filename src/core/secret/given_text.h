// given_text.h - what people type or paste, and what is wrong with it.
//
// Secrets and names arrive with what an editor, a terminal or a web page leaves around them, and a provider then
// refuses a secret that looks right, or a second pool looks like the first. What is looked at is UTF-8; bytes that are
// none count as visible characters. A message names the argument and the fault, and of the text at most a character
// that nobody sees.
#pragma once

#include <string_view>

#include "core/status.h"

namespace keypool {

inline constexpr size_t kMaxLabelBytes = 1024;

// The text without the white space (Unicode's White_Space) at its ends.
std::string_view CutWhiteSpace(std::string_view text) noexcept;

// Whether a secret, without white space at its ends, can be one. kInvalidArgument: it is empty or longer than
// kMaxSecretBytes; begins as an HTTP header does; is masked (holds a bullet or an ellipsis, three asterisks or dots in
// a row, or no letter and no digit); holds more than one line, which only JSON (`{` to `}`) and PEM (`-----BEGIN ` to
// `-----`) may; or holds a control character or one that nobody sees.
Status CheckGivenSecret(std::string_view secret) noexcept;

// Whether a name can be told from every other by looking at it. kInvalidArgument: it holds a control character, a line
// end, a no-break space or an invisible character, or has a blank at an end. `argument` is what messages call it.
// Joiners and variation selectors, which scripts and emoji need, may follow a character that is not ASCII.
Status CheckGivenName(std::string_view name, const char *argument) noexcept;

// CheckGivenName, and at most kMaxLabelBytes.
Status CheckGivenLabel(std::string_view label) noexcept;

}  // namespace keypool
