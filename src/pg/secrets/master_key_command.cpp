// master_key_command.cpp - running the command that prints the keyring.
#include "pg/secrets/master_key_command.h"

extern "C" {
#include "storage/ipc.h"
#include "storage/latch.h"
}

#include <dirent.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using keypool::Code;
using keypool::Failure;
using keypool::Status;

static constexpr int kPatienceMs = 200;  // between SIGTERM and SIGKILL
static constexpr int kLimitMs = 600;     // then whatever does not even heed SIGKILL is left
static constexpr int kStepMs = 5;

// A command under way.
struct Command {
  pid_t shell;  // which leads its session and is not reaped before it is over, so that the number stays its own
  int pipe;     // what it prints
  char *output;
  size_t capacity;
  size_t size;
  bool too_long;
  int exit_status;  // once it is over
};

// Starts the shell, which gets no descriptor of the server's but standard error: the log.
static int spawn(const char *command, int output, pid_t *shell) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
#endif
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  char *const arguments[] = {const_cast<char *>("sh"), const_cast<char *>("-c"), const_cast<char *>(command), nullptr};
  int error = posix_spawn(shell, "/bin/sh", &files, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

static Status cannot_run(int error) {
  return Failure(Code::kKeyring, "the master key command cannot be run: %s", strerror(error));
}

static Status start(const char *text, Command *command) {
  int ends[2];
  if (!AcquireExternalFD()) return cannot_run(errno);
  int error = pipe2(ends, O_CLOEXEC) != 0 ? errno : 0;
  if (error == 0) {
    error = spawn(text, ends[1], &command->shell);
    close(ends[1]);
    command->pipe = ends[0];
    if (error != 0) close(ends[0]);
  }
  if (error != 0) {
    ReleaseExternalFD();
    return cannot_run(error);
  }
  fcntl(command->pipe, F_SETFL, O_NONBLOCK);
  return {};
}

// Whether a process of that number is under way, and neither gone nor waiting to be reaped.
static bool is_alive(pid_t process) {
  char path[64], text[512];
  snprintf(path, sizeof(path), "/proc/%d/stat", static_cast<int>(process));
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  ssize_t size = read(file, text, sizeof(text) - 1);
  close(file);
  if (size <= 0) return false;
  text[size] = '\0';
  const char *name_end = strrchr(text, ')');  // the name before it may hold anything
  return name_end == nullptr || (name_end[1] == ' ' && name_end[2] != 'Z' && name_end[2] != 'X');
}

// Signals the processes of a session, also those that have left the process group of its leader, as those of timeout(1)
// do. Returns how many are alive. Called while an error is handled: raises nothing.
static int signal_session(pid_t session, int signal) {
  int alive = 0;
  DIR *processes = opendir("/proc");
  while (const dirent *entry = processes != nullptr ? readdir(processes) : nullptr) {
    auto process = static_cast<pid_t>(strtol(entry->d_name, nullptr, 10));
    if (process <= 0 || getsid(process) != session || !is_alive(process)) continue;
    ++alive;
    if (signal != 0) kill(process, signal);
  }
  if (processes != nullptr)
    closedir(processes);
  else
    kill(-session, SIGKILL);
  return alive;
}

static void end_session(pid_t session) {
  for (int waited = 0; waited < kLimitMs; waited += kStepMs) {
    int signal = waited == 0 ? SIGTERM : waited < kPatienceMs ? 0 : SIGKILL;
    if (signal_session(session, signal) == 0) return;
    pg_usleep(kStepMs * 1000L);
  }
}

// Ends whatever is left of a command.
static void stop(Command *command) {
  end_session(command->shell);
  waitpid(command->shell, &command->exit_status, WNOHANG);
  close(command->pipe);
  ReleaseExternalFD();
}

// The same for an error, or the end of the process.
static void give_up(int, Datum argument) {
  auto *command = reinterpret_cast<Command *>(DatumGetPointer(argument));
  stop(command);
  OPENSSL_cleanse(command->output, command->capacity);
}

static bool has_exited(pid_t process) {
  siginfo_t info = {};
  return waitid(P_PID, process, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

// Reads what is there. False at the end.
static bool read_available(Command *command) {
  for (;;) {
    char surplus;
    size_t room = command->capacity - command->size;
    ssize_t got = read(command->pipe, room > 0 ? command->output + command->size : &surplus, room > 0 ? room : 1);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (got == 0) return false;
    command->too_long = room == 0;
    if (command->too_long) return true;
    command->size += got;
  }
}

// Until the shell has exited, or has printed too much. Nobody tells this process of its exit if something else holds
// the pipe: so it looks now and then.
static void read_output(Command *command) {
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    bool exited = has_exited(command->shell);  // before the last read, which then has all that it printed
    bool open = read_available(command);
    if (exited || command->too_long) return;
    int events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | (open ? WL_SOCKET_READABLE : 0);
    WaitLatchOrSocket(MyLatch, events, open ? command->pipe : PGINVALID_SOCKET, open ? 50 : kStepMs,
                      wait_event_of("KeypoolMasterKeyCommand"));
    ResetLatch(MyLatch);
  }
}

Status master_key_command_run(const char *text, char *output, size_t capacity, size_t *size) {
  Command command = {};
  command.output = output;
  command.capacity = capacity;
  *size = 0;
  Status status = start(text, &command);
  if (!status.ok()) return status;
  PG_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(&command));
  { read_output(&command); }
  PG_END_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(&command));
  stop(&command);
  if (command.too_long) return Failure(Code::kKeyring, "the master key command prints more than %zu bytes", capacity);
  if (command.exit_status != 0) {
    char *reason = wait_result_to_str(command.exit_status);
    status = Failure(Code::kKeyring, "the master key command failed: %s", reason);
    pfree(reason);
  }
  *size = command.size;
  return status;
}
