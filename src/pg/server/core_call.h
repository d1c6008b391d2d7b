// core_call.h - the one way from the glue into the parts of the core that can fail.
//
// A C++ exception that leaves a SQL function would end the whole server. The core promises not to throw; this makes it
// certain for whatever a library beneath it does. What cannot fail (the arithmetic of window.h, lease.h and
// selection_order.h on plain structs) is called directly.
#pragma once

#include <exception>
#include <new>

#include "core/status.h"

// Calls a function that returns a Status. The callee must not call PostgreSQL, and nothing may be raised in here:
// report the Status after the return (report.h).
template <typename Call>
keypool::Status call_core(Call call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc &) {
    return keypool::Failure(keypool::Code::kInternal, "out of memory");
  } catch (const std::exception &) {
    return keypool::Failure(keypool::Code::kInternal, "unexpected exception in the core");
  } catch (...) {
    return keypool::Failure(keypool::Code::kInternal, "unknown exception in the core");
  }
}
