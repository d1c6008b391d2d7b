// load.cpp - drives select.lua, or the cycle of select.lua and settle.lua, as pgbench drives keypool.
//
//   load SOCKET CLIENTS THREADS SECONDS SELECT SETTLE PROVIDER TOKENS REAL_TOKENS
//
// SELECT and SETTLE are the scripts' SHA1; SETTLE may be `-`. Prints the selections, or cycles, per second; any error
// reply ends it with status 1. Each client has a connection and waits for its answer; each thread polls its share of
// the clients.
//
// Not redis-benchmark: that cannot pass the key and the lease of one answer on to the next call. And for selections
// alone, it gets about a tenth less out of Redis.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;

[[noreturn]] static void fail(const std::string &what) {
  fprintf(stderr, "load: %s\n", what.c_str());
  exit(1);
}

static std::string command(const std::vector<std::string_view> &words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (std::string_view word : words)
    text.append("$" + std::to_string(word.size()) + "\r\n").append(word).append("\r\n");
  return text;
}

// Reads one line of an answer; false if it is not all there yet.
static bool read_line(std::string_view *rest, std::string_view *line) {
  size_t end = rest->find("\r\n");
  if (end == std::string_view::npos) return false;
  *line = rest->substr(0, end);
  rest->remove_prefix(end + 2);
  return true;
}

// Reads an answer, which is a text or a list of texts; false if it is not all there yet.
static bool read_answer(std::string_view rest, std::vector<std::string_view> *texts) {
  std::string_view line;
  texts->clear();
  for (long left = 1; left > 0; --left) {
    if (!read_line(&rest, &line)) return false;
    long number = strtol(line.data() + 1, nullptr, 10);
    if (line[0] == '-') fail(std::string(line));
    if (line[0] == '*') {
      left += number;
    } else if (line[0] == '$') {
      if (number < 0) fail("an empty answer");
      if (rest.size() < static_cast<size_t>(number) + 2) return false;
      texts->push_back(rest.substr(0, number));
      rest.remove_prefix(number + 2);
    } else {
      texts->push_back(line);
    }
  }
  return true;
}

struct Plan {
  std::string socket, select, settle, ready, parked, tokens, real_tokens;
};

class Client {
 public:
  explicit Client(const Plan &plan) : plan_(plan) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", plan.socket.c_str());
    socket_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(socket_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0) fail("cannot connect");
    select_ = command({"EVALSHA", plan.select, "2", plan.ready, plan.parked, plan.tokens});
  }
  ~Client() { close(socket_); }
  Client(const Client &) = delete;

  int socket() const { return socket_; }
  void select() { send(select_); }

  // Takes what has arrived, and sends the next call if the answer is whole. Whether a cycle ended.
  bool receive() {
    ssize_t length = read(socket_, buffer_ + filled_, sizeof(buffer_) - filled_);
    if (length <= 0) fail("the connection was lost");
    filled_ += length;
    if (!read_answer({buffer_, filled_}, &answer_)) return false;
    filled_ = 0;
    if (!settling_ && answer_.size() != 8) fail("not a key");
    bool ends = settling_ || plan_.settle == "-";
    settling_ = !ends;
    if (ends) {
      select();
    } else {
      settle("key:" + std::string(answer_[0]));
    }
    return ends;
  }

 private:
  void settle(const std::string &key) {
    send(command(
        {"EVALSHA", plan_.settle, "3", plan_.ready, plan_.parked, key, answer_[0], plan_.real_tokens, answer_[2]}));
  }
  void send(const std::string &text) {
    if (write(socket_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) fail("cannot write");
  }

  const Plan &plan_;
  std::string select_;
  std::vector<std::string_view> answer_;
  char buffer_[4096];
  size_t filled_ = 0;
  int socket_;
  bool settling_ = false;
};

static void drive(const Plan &plan, int clients, Clock::time_point until, std::atomic<long> *cycles) {
  std::vector<std::unique_ptr<Client>> all;
  std::vector<pollfd> waiting;
  for (int i = 0; i < clients; ++i) {
    all.push_back(std::make_unique<Client>(plan));
    waiting.push_back({all.back()->socket(), POLLIN, 0});
    all.back()->select();
  }
  long done = 0;
  while (Clock::now() < until) {
    if (poll(waiting.data(), waiting.size(), 1000) <= 0) fail("no answer");
    for (size_t i = 0; i < all.size(); ++i)
      if (waiting[i].revents != 0) done += all[i]->receive();
  }
  *cycles += done;
}

int main(int count, char **words) {
  if (count != 10) fail("SOCKET CLIENTS THREADS SECONDS SELECT SETTLE PROVIDER TOKENS REAL_TOKENS");
  std::string provider = words[7];
  Plan plan = {words[1], words[5], words[6], "ready:" + provider, "parked:" + provider, words[8], words[9]};
  int clients = atoi(words[2]), threads = std::min(atoi(words[3]), clients);
  auto start = Clock::now();
  auto until = start + std::chrono::milliseconds(static_cast<long>(atof(words[4]) * 1000));
  std::atomic<long> cycles = 0;
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i)
    running.emplace_back(drive, std::cref(plan), clients / threads + (i < clients % threads), until, &cycles);
  for (std::thread &thread : running) thread.join();
  printf("%.1f\n", cycles / std::chrono::duration<double>(Clock::now() - start).count());
}
