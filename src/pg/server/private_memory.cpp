// private_memory.cpp - memory for secrets.
#include "pg/server/private_memory.h"

#include <openssl/crypto.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

// Leaves the pages of these bytes out.
static void exclude(uintptr_t bytes, size_t size) {
#ifdef MADV_DONTDUMP
  uintptr_t page = sysconf(_SC_PAGESIZE);
  uintptr_t start = bytes / page * page;
  madvise(reinterpret_cast<void *>(start), bytes + size - start, MADV_DONTDUMP);
#endif
}

void *private_memory_allocate(size_t size) {
  void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  exclude(reinterpret_cast<uintptr_t>(memory), size);
#ifdef MADV_WIPEONFORK
  madvise(memory, size, MADV_WIPEONFORK);
#endif
  return memory;
}

// What follows a key in a cipher's schedule, from which it can be computed, too.
static constexpr size_t kSchedule = 256;

// A piece of the heap, which begins and ends at a page.
static constexpr size_t kBlockWords = 1024;

// Without a branch for each word: this is done to the whole heap.
static bool has_word(const uint32 *block, uint32 word) {
  uint32 any = 0;
  for (size_t i = 0; i < kBlockWords; ++i) any |= static_cast<uint32>(block[i] == word);
  return any != 0;
}

static void hide_copies_in(uintptr_t start, uintptr_t end, const uint8_t *secret, size_t size) {
  uint32 first;
  memcpy(&first, secret, sizeof(first));
  for (uintptr_t at = start; at + kBlockWords * sizeof(first) <= end; at += kBlockWords * sizeof(first)) {
    auto *block = reinterpret_cast<const uint32 *>(at);
    if (!has_word(block, first)) continue;
    for (size_t i = 0; i < kBlockWords; ++i) {
      uintptr_t found = at + i * sizeof(first);
      if (found + size <= end && memcmp(block + i, secret, size) == 0) exclude(found, Min(kSchedule, end - found));
    }
  }
}

// Whether a core file of this process could be written now: its limit holds for files, not for programs that take them.
static bool may_leave_core_file(void) {
  struct rlimit limit;
  char pattern = '\0';
  int file = OpenTransientFile("/proc/sys/kernel/core_pattern", O_RDONLY);
  if (file >= 0 && read(file, &pattern, 1) != 1) pattern = '\0';
  if (file >= 0) CloseTransientFile(file);
  return pattern == '|' || getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur > 0;
}

void private_memory_hide_copies(const uint8_t *secrets, size_t size, size_t stride, int count) {
  if (!may_leave_core_file()) return;
  FILE *maps = AllocateFile("/proc/self/maps", "r");
  char line[512];
  while (maps != nullptr && fgets(line, sizeof(line), maps) != nullptr) {
    unsigned long start, end;
    if (strstr(line, "[heap]") == nullptr || sscanf(line, "%lx-%lx rw-p", &start, &end) != 2) continue;
    for (int i = 0; i < count; ++i) hide_copies_in(start, end, secrets + i * stride, size);
  }
  if (maps != nullptr) FreeFile(maps);
}

struct WipedBytes {
  MemoryContextCallback callback;
  Size size;
  void *bytes;
};

static void wipe_bytes(void *wiped) {
  OPENSSL_cleanse(static_cast<WipedBytes *>(wiped)->bytes, static_cast<WipedBytes *>(wiped)->size);
}

void wipe_on_reset(void *bytes, Size size) {
  auto *wiped = static_cast<WipedBytes *>(palloc0(sizeof(WipedBytes)));
  wiped->bytes = bytes;
  wiped->size = size;
  wiped->callback.func = wipe_bytes;
  wiped->callback.arg = wiped;
  MemoryContextRegisterResetCallback(CurrentMemoryContext, &wiped->callback);
}
