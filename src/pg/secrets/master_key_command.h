// master_key_command.h - running the command that prints the keyring.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/status.h"

// Runs a command of the shell, without input, and reads what it prints until it exits. It can be cancelled, timed out
// and terminated at any moment. The command runs in a session of its own; when this ends, in whatever way, every
// process of that session is ended: SIGTERM, and SIGKILL after 200 ms. `output` holds `capacity` bytes; the caller
// wipes it, but for an error that is raised, which wipes it here. kKeyring: the command cannot be run, fails, or prints
// more.
keypool::Status master_key_command_run(const char *command, char *output, size_t capacity, size_t *size);
