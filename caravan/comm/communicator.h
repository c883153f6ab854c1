// Talk between ranks.  One interface for one process, for threads as ranks, and later for MPI and NCCL.
//
// Every rank of a communicator calls the same collectives in the same order with the same sizes; point-to-point
// messages match by (source, destination) in order.  Calls return when the tensor may be read or reused.  One thread of
// a rank issues all of its calls.  What was called stands in the ledger, which tests compare across ranks.
//
// Tensors are contiguous, on the host or on the meta device; where one call takes two, both are of one kind and have
// the same dtype, and they either do not overlap or the smaller one is exactly this rank's share of the larger.  On the
// meta device (a dry run) ranks meet, compare their calls and fill the ledger as they would on the host, and no memory
// is touched.  Arguments outside the contract throw ShapeError before anything is noted or sent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/tensor/tensor.h"

namespace caravan::comm {

// A rank that waited too long, met another call than its own, or heard that another rank failed.  The message names the
// rank, the operation and what it waits for.
class CommError : public Error {
  using Error::Error;
};

// One call, as the ledger keeps it.
struct LedgerEntry {
  std::int64_t sequence = 0;  // from 0, per communicator and rank
  std::string op;             // "all_reduce", "all_gather", "reduce_scatter", "broadcast from 0", "send to 1",
                              // "receive from 0", "barrier", "split"
  DType dtype = DType::kF32;
  std::int64_t bytes = 0;  // of the tensor, or of `in` where there are two; a barrier's 0 of u8, a split's 4 of i32

  bool operator==(const LedgerEntry&) const = default;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // tensor = sum over ranks, in rank order and in the tensor's own type (f64, f32, i64 modulo 2^64; bf16 and f16 are
  // summed in f32 and rounded once): the same bits on every rank and every run.  Other types throw ShapeError.
  virtual void all_reduce_sum(const Tensor& tensor) = 0;
  // out = the ranks' tensors one after the other by rows.  out has size() times in's rows.
  virtual void all_gather(const Tensor& out, const Tensor& in) = 0;
  // out = rank's share of the rows of the sum over ranks of in.  in has size() times out's rows.
  virtual void reduce_scatter_sum(const Tensor& out, const Tensor& in) = 0;
  // tensor = root's tensor.
  virtual void broadcast(const Tensor& tensor, int root) = 0;
  // Sends to and receives from one rank.  send may return before the message is taken (it is buffered).  What was sent
  // and what is received must agree in dtype and bytes.
  virtual void send(const Tensor& tensor, int to) = 0;
  virtual void receive(const Tensor& tensor, int from) = 0;
  virtual void barrier() = 0;

  // Ranks with the same colour (any int) form a communicator of their own, ordered by rank here.  A collective.
  virtual std::unique_ptr<Communicator> split(int colour) = 0;

  const std::vector<LedgerEntry>& ledger() const { return ledger_; }

 protected:
  void note(const std::string& op, DType dtype, std::int64_t bytes) {
    ledger_.push_back({static_cast<std::int64_t>(ledger_.size()), op, dtype, bytes});
  }

 private:
  std::vector<LedgerEntry> ledger_;
};

// One rank alone: every collective is the identity.  Sending to oneself is buffered and received in order.
std::unique_ptr<Communicator> make_self();

struct ThreadsOptions {
  double timeout_seconds = 60.0;  // how long a rank waits for another before it throws; above 0
};

// Runs body(communicator) on `ranks` threads of this process, each a rank with real exchange of data, and returns when
// all have ended.  When a rank throws, the others' calls throw CommError naming it, and the first rank's own exception
// is rethrown here.  A call that fails (other ranks called something else, ended, or did not come in time) fails the
// job in the same way.  OpenMP inside a rank uses what its ops::Context says.  Throws ConfigError when there is no rank
// or the time limit is not above 0.
void run_threads(int ranks, const std::function<void(Communicator&)>& body, const ThreadsOptions& options = {});

}  // namespace caravan::comm
