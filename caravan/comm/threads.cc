// Ranks as threads of one process.
//
// One mutex and one condition variable serve a whole job; tensors' bytes move outside the mutex.  A collective has two
// borders.  First every rank of the group posts its call and waits until all have: the last one compares the calls and
// opens the round.  Then each rank does its share of the work on everybody's memory and waits until all are done.  Only
// the first wait can fail.  Once a round is open every rank of it is inside the call and none can leave before the
// others are done, so that no rank's memory goes away while another works on it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "caravan/comm/checks.h"
#include "caravan/comm/communicator.h"
#include "caravan/comm/sum.h"

namespace caravan::comm {
namespace {

using Clock = std::chrono::steady_clock;

// What all ranks of one run_threads() share.  Everything but the constants is read and written with the mutex held.
struct Job {
  Job(int ranks, double timeout)
      : timeout_seconds(timeout),
        timeout_ticks(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout))),
        ended(static_cast<std::size_t>(ranks), false),
        escaped(static_cast<std::size_t>(ranks)) {}

  const double timeout_seconds;
  const Clock::duration timeout_ticks;
  std::mutex mutex;
  std::condition_variable changed;

  int failed_rank = -1;                     // the rank whose failure came first; -1 while there is none
  std::string sentence;                     // of that failure
  std::vector<bool> ended;                  // [ranks] bodies that returned or threw
  std::vector<std::exception_ptr> escaped;  // [ranks] what bodies threw
  int first_escaped = -1;

  // Only the first failure counts; those after it are its consequences.
  void fail(int rank, const std::string& what) {
    if (failed_rank < 0) {
      failed_rank = rank;
      sentence = what;
      changed.notify_all();
    }
  }
};

// One rank's call, as the others see it.
struct Call {
  std::string op;
  std::int64_t sequence = 0;  // in the caller's ledger
  DType dtype = DType::kU8;
  std::int64_t bytes = 0;
  bool meta = false;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  int colour = 0;

  bool agrees(const Call& other) const {
    return op == other.op && dtype == other.dtype && bytes == other.bytes && meta == other.meta;
  }
};

std::string describe(const Call& call) {
  return fmt::format("{} (call {}, {}, {} bytes{})", call.op, call.sequence, to_string(call.dtype), call.bytes,
                     call.meta ? " on meta" : "");
}

struct Message {
  Call call;  // the sender's
  std::vector<std::byte> data;
};

// The ranks of one communicator.  Guarded by the job's mutex, except that an open round's slots do not change.
struct Group {
  struct Slot {
    bool posted = false;
    Call call;
    std::shared_ptr<Group> joined;  // what split() gives: the group of the colour, and the rank in it
    int joined_rank = 0;
  };

  Group(std::vector<int> job_ranks, std::string group_name)
      : members(std::move(job_ranks)),
        name(std::move(group_name)),
        slots(members.size()),
        mail(members.size() * members.size()) {}

  int size() const { return static_cast<int>(members.size()); }
  std::deque<Message>& messages(int from, int to) { return mail[static_cast<std::size_t>(from * size() + to)]; }

  const std::vector<int> members;  // [size] each one's rank in the job
  const std::string name;          // "" for the job's own, " of colour 1" for a part
  std::vector<Slot> slots;
  std::vector<std::deque<Message>> mail;  // [from, to]
  int posted = 0;                         // ranks that wait for the round to open
  int working = 0;                        // ranks that an open round waits for
  std::int64_t opened = 0;                // rounds so far
  std::int64_t finished = 0;
};

// "rank 2", "ranks 0, 2 and 3"
std::string list_ranks(const std::vector<int>& ranks) {
  if (ranks.size() == 1) {
    return fmt::format("rank {}", ranks[0]);
  }
  return fmt::format("ranks {} and {}", fmt::join(ranks.begin(), ranks.end() - 1, ", "), ranks.back());
}

class ThreadsCommunicator final : public Communicator {
 public:
  ThreadsCommunicator(std::shared_ptr<Job> job, std::shared_ptr<Group> group, int rank)
      : job_(std::move(job)),
        group_(std::move(group)),
        rank_(rank),
        sources_(group_->members.size()),
        destinations_(group_->members.size()) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce_sum(const Tensor& tensor) override;
  void all_gather(const Tensor& out, const Tensor& in) override;
  void reduce_scatter_sum(const Tensor& out, const Tensor& in) override;
  void broadcast(const Tensor& tensor, int root) override;
  void send(const Tensor& tensor, int to) override;
  void receive(const Tensor& tensor, int from) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int colour) override;

 private:
  using Lock = std::unique_lock<std::mutex>;

  Call begin(std::string op, DType dtype, std::int64_t bytes);
  Call begin(std::string op, const Tensor& out, const Tensor& in);
  // Meets the other ranks, does `work()` when all are there, and returns when all have done theirs.
  template <typename Work>
  void meet(const Call& call, const Work& work);
  void compare_calls();
  void make_parts();

  // Waits until done(); `missing()` names the ranks of this group that it depends on.
  template <typename Done, typename Missing>
  void wait(Lock& lock, const Call& call, const Done& done, const Missing& missing);
  void check_job(const Call& call) const;
  [[noreturn]] void fail(const std::string& sentence);

  Group::Slot& slot(int rank) { return group_->slots[static_cast<std::size_t>(rank)]; }
  int job_rank(int rank) const { return group_->members[static_cast<std::size_t>(rank)]; }
  // "rank 0 of 2", or "rank 0 of 2 of colour 1 (rank 3 of the job)"
  std::string name(int rank) const {
    return fmt::format("rank {} of {}{}{}", rank, size(), group_->name,
                       group_->name.empty() ? "" : fmt::format(" (rank {} of the job)", job_rank(rank)));
  }

  std::shared_ptr<Job> job_;
  std::shared_ptr<Group> group_;
  int rank_;
  // [size] addresses for a sum: kept here because the work of an open round must not allocate, as that could throw.
  std::vector<const std::byte*> sources_;
  std::vector<std::byte*> destinations_;
};

void ThreadsCommunicator::fail(const std::string& sentence) {
  job_->fail(job_rank(rank_), sentence);
  throw CommError(sentence);
}

void ThreadsCommunicator::check_job(const Call& call) const {
  if (job_->failed_rank >= 0) {
    throw CommError(fmt::format("{}: {} cannot finish because rank {} of the job failed: {}", name(rank_),
                                describe(call), job_->failed_rank, job_->sentence));
  }
}

template <typename Done, typename Missing>
void ThreadsCommunicator::wait(Lock& lock, const Call& call, const Done& done, const Missing& missing) {
  const Clock::time_point deadline = Clock::now() + job_->timeout_ticks;
  bool in_time = true;
  while (!done()) {
    check_job(call);
    for (const int other : missing()) {
      if (job_->ended[static_cast<std::size_t>(job_rank(other))]) {
        fail(fmt::format("{}: {} waits for {}, which has ended; all ranks must make the same calls", name(rank_),
                         describe(call), name(other)));
      }
    }
    if (!in_time) {
      fail(
          fmt::format("{}: {} waited {} s for {}; find out what kept the other side, or allow more time "
                      "(ThreadsOptions::timeout_seconds)",
                      name(rank_), describe(call), job_->timeout_seconds, list_ranks(missing())));
    }
    in_time = job_->changed.wait_until(lock, deadline) == std::cv_status::no_timeout;
  }
}

Call ThreadsCommunicator::begin(std::string op, DType dtype, std::int64_t bytes) {
  note(op, dtype, bytes);
  Call call;
  call.op = std::move(op);
  call.sequence = ledger().back().sequence;
  call.dtype = dtype;
  call.bytes = bytes;
  return call;
}

Call ThreadsCommunicator::begin(std::string op, const Tensor& out, const Tensor& in) {
  Call call = begin(std::move(op), in.dtype(), in.bytes());
  call.meta = is_meta(in);
  call.in = in.address();
  call.out = out.address();
  return call;
}

// Finds the first rank whose call is not rank 0's.
void ThreadsCommunicator::compare_calls() {
  const Call& first = slot(0).call;
  for (int other = 1; other < size(); ++other) {
    const Call& call = slot(other).call;
    if (!call.agrees(first)) {
      fail(fmt::format("{} called {} where {} called {}; all ranks must make the same calls with the same sizes",
                       name(0), describe(first), name(other), describe(call)));
    }
  }
}

void ThreadsCommunicator::make_parts() {
  std::map<int, std::vector<int>> ranks_of_colour;
  for (int other = 0; other < size(); ++other) {
    ranks_of_colour[slot(other).call.colour].push_back(other);
  }
  for (const auto& [colour, ranks] : ranks_of_colour) {
    std::vector<int> members;
    for (const int other : ranks) {
      members.push_back(job_rank(other));
    }
    const auto part = std::make_shared<Group>(members, fmt::format("{} of colour {}", group_->name, colour));
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      slot(ranks[i]).joined = part;
      slot(ranks[i]).joined_rank = static_cast<int>(i);
    }
  }
}

template <typename Work>
void ThreadsCommunicator::meet(const Call& call, const Work& work) {
  static_assert(noexcept(work()), "an open round must be finished by every rank");
  Group& group = *group_;
  Lock lock(job_->mutex);
  check_job(call);
  slot(rank_).call = call;
  slot(rank_).posted = true;
  ++group.posted;
  const std::int64_t round = group.opened;
  if (group.posted == size()) {
    compare_calls();
    if (call.op == "split") {
      make_parts();
    }
    for (Group::Slot& one : group.slots) {
      one.posted = false;
    }
    group.posted = 0;
    group.working = size();
    ++group.opened;
    job_->changed.notify_all();
  } else {
    const auto missing = [&] {
      std::vector<int> ranks;
      for (int other = 0; other < size(); ++other) {
        if (!slot(other).posted) {
          ranks.push_back(other);
        }
      }
      return ranks;
    };
    wait(
        lock, call, [&] { return group.opened > round; }, missing);
  }
  lock.unlock();
  work();
  lock.lock();
  if (--group.working == 0) {
    ++group.finished;
    job_->changed.notify_all();
  } else {
    // Without a time limit: the others are at work and cannot fail.
    job_->changed.wait(lock, [&] { return group.finished > round; });
  }
}

void ThreadsCommunicator::all_reduce_sum(const Tensor& tensor) {
  check_tensor("all_reduce", tensor);
  check_summable("all_reduce", tensor);
  // Each rank sums its share of the elements and writes it to everyone; nobody else touches that share.
  const std::int64_t share = (tensor.elements() + size() - 1) / size();
  const std::int64_t first = std::min(share * rank_, tensor.elements());
  const std::int64_t last = std::min(first + share, tensor.elements());
  meet(begin("all_reduce", tensor, tensor), [&]() noexcept {
    if (is_meta(tensor) || first == last || size() == 1) {
      return;
    }
    for (int other = 0; other < size(); ++other) {
      std::byte* address = slot(other).call.out + first * size_of(tensor.dtype());
      sources_[static_cast<std::size_t>(other)] = address;
      destinations_[static_cast<std::size_t>(other)] = address;
    }
    sum_in_order(tensor.dtype(), sources_, destinations_, last - first);
  });
}

void ThreadsCommunicator::all_gather(const Tensor& out, const Tensor& in) {
  check_tensor("all_gather", in);
  check_tensor("all_gather", out);
  check_share("all_gather", out, in, size());
  meet(begin("all_gather", out, in), [&]() noexcept {
    if (is_meta(in) || in.bytes() == 0) {
      return;
    }
    for (int other = 0; other < size(); ++other) {
      std::byte* destination = out.address() + other * in.bytes();
      if (destination != slot(other).call.in) {
        std::memcpy(destination, slot(other).call.in, static_cast<std::size_t>(in.bytes()));
      }
    }
  });
}

void ThreadsCommunicator::reduce_scatter_sum(const Tensor& out, const Tensor& in) {
  check_tensor("reduce_scatter", in);
  check_tensor("reduce_scatter", out);
  check_summable("reduce_scatter", in);
  check_share("reduce_scatter", in, out, size());
  meet(begin("reduce_scatter", out, in), [&]() noexcept {
    if (is_meta(in) || out.bytes() == 0) {
      return;
    }
    if (size() == 1) {  // bits as they are, as nothing is added
      if (out.address() != in.address()) {
        std::memcpy(out.address(), in.address(), static_cast<std::size_t>(out.bytes()));
      }
      return;
    }
    for (int other = 0; other < size(); ++other) {
      sources_[static_cast<std::size_t>(other)] = slot(other).call.in + rank_ * out.bytes();
    }
    destinations_[0] = out.address();
    sum_in_order(in.dtype(), sources_, std::span(destinations_).first(1), out.elements());
  });
}

void ThreadsCommunicator::broadcast(const Tensor& tensor, int root) {
  check_tensor("broadcast", tensor);
  check_rank("broadcast", root, size());
  meet(begin(fmt::format("broadcast from {}", root), tensor, tensor), [&]() noexcept {
    if (!is_meta(tensor) && rank_ != root && tensor.bytes() > 0) {
      std::memcpy(tensor.address(), slot(root).call.in, static_cast<std::size_t>(tensor.bytes()));
    }
  });
}

void ThreadsCommunicator::barrier() {
  meet(begin("barrier", DType::kU8, 0), []() noexcept {});
}

std::unique_ptr<Communicator> ThreadsCommunicator::split(int colour) {
  Call call = begin("split", DType::kI32, 4);
  call.colour = colour;
  std::shared_ptr<Group> part;
  meet(call, [&]() noexcept { part = std::move(slot(rank_).joined); });
  return std::make_unique<ThreadsCommunicator>(job_, std::move(part), slot(rank_).joined_rank);
}

void ThreadsCommunicator::send(const Tensor& tensor, int to) {
  check_tensor("send", tensor);
  check_rank("send", to, size());
  Message message{begin(fmt::format("send to {}", to), tensor, tensor), {}};
  if (!message.call.meta && tensor.bytes() > 0) {
    message.data.assign(tensor.address(), tensor.address() + tensor.bytes());
  }
  const Lock lock(job_->mutex);
  check_job(message.call);
  group_->messages(rank_, to).push_back(std::move(message));
  job_->changed.notify_all();
}

void ThreadsCommunicator::receive(const Tensor& tensor, int from) {
  check_tensor("receive", tensor);
  check_rank("receive", from, size());
  const Call call = begin(fmt::format("receive from {}", from), tensor, tensor);
  std::deque<Message>& messages = group_->messages(from, rank_);
  Lock lock(job_->mutex);
  check_job(call);
  if (from == rank_ && messages.empty()) {
    fail(fmt::format("{}: {}: this rank has sent itself nothing; send first", name(rank_), describe(call)));
  }
  wait(
      lock, call, [&] { return !messages.empty(); }, [&] { return std::vector<int>{from}; });
  const Call& sent = messages.front().call;
  if (sent.dtype != call.dtype || sent.bytes != call.bytes || sent.meta != call.meta) {
    fail(fmt::format("{} called {} where {} called {}; both sides must agree in dtype and bytes", name(rank_),
                     describe(call), name(from), describe(sent)));
  }
  const Message message = std::move(messages.front());
  messages.pop_front();
  lock.unlock();
  if (!message.data.empty()) {
    std::memcpy(tensor.address(), message.data.data(), message.data.size());
  }
}

std::string sentence_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "it threw something that is not a std::exception";
  }
}

void run_rank(const std::shared_ptr<Job>& job, const std::shared_ptr<Group>& world, int rank,
              const std::function<void(Communicator&)>& body) {
  std::exception_ptr failure;
  try {
    ThreadsCommunicator communicator(job, world, rank);
    body(communicator);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(job->mutex);
  job->ended[static_cast<std::size_t>(rank)] = true;
  if (failure) {
    job->escaped[static_cast<std::size_t>(rank)] = failure;
    if (job->first_escaped < 0) {
      job->first_escaped = rank;
    }
    job->fail(rank, sentence_of(failure));
  }
  job->changed.notify_all();
}

}  // namespace

void run_threads(int ranks, const std::function<void(Communicator&)>& body, const ThreadsOptions& options) {
  // A century is as good as no limit, and still a time that clocks can add.
  constexpr double kLongest = 3.0e9;
  if (ranks < 1) {
    throw ConfigError(fmt::format("run_threads: at least one rank expected, found {}", ranks));
  }
  if (!(options.timeout_seconds > 0.0)) {
    throw ConfigError(
        fmt::format("run_threads: a time limit above 0 seconds expected, found {}", options.timeout_seconds));
  }
  const auto job = std::make_shared<Job>(ranks, std::min(options.timeout_seconds, kLongest));
  std::vector<int> members;
  for (int rank = 0; rank < ranks; ++rank) {
    members.push_back(rank);
  }
  const auto world = std::make_shared<Group>(members, "");
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(ranks));
  std::string refused;
  try {
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] { run_rank(job, world, rank, body); });
    }
  } catch (const std::system_error& error) {
    refused = fmt::format("run_threads: the system refused thread {} of {}: {}; ask for fewer ranks", threads.size(),
                          ranks, error.what());
    const std::lock_guard lock(job->mutex);
    job->fail(static_cast<int>(threads.size()), refused);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (!refused.empty()) {
    throw CommError(refused);
  }
  if (job->first_escaped >= 0) {
    // A rank may fail in a call, deal with that itself and return; then what the next one threw is all there is.
    const std::exception_ptr& own = job->escaped[static_cast<std::size_t>(job->failed_rank)];
    std::rethrow_exception(own ? own : job->escaped[static_cast<std::size_t>(job->first_escaped)]);
  }
}

}  // namespace caravan::comm
