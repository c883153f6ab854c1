#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <vector>

#include "caravan/comm/checks.h"
#include "caravan/comm/communicator.h"

namespace caravan::comm {
namespace {

void copy_bytes(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  void all_reduce_sum(const Tensor& tensor) override {
    check_tensor("all_reduce", tensor);
    check_summable("all_reduce", tensor);
    note("all_reduce", tensor.dtype(), tensor.bytes());
  }

  void all_gather(const Tensor& out, const Tensor& in) override { identity("all_gather", out, in); }

  void reduce_scatter_sum(const Tensor& out, const Tensor& in) override {
    check_tensor("reduce_scatter", in);
    check_summable("reduce_scatter", in);
    identity("reduce_scatter", out, in);
  }

  void broadcast(const Tensor& tensor, int root) override {
    check_tensor("broadcast", tensor);
    check_rank("broadcast", root, 1);
    note("broadcast from 0", tensor.dtype(), tensor.bytes());
  }

  void send(const Tensor& tensor, int to) override {
    check_tensor("send", tensor);
    check_rank("send", to, 1);
    Message message{tensor.dtype(), tensor.bytes(), is_meta(tensor), {}};
    if (!message.meta && message.bytes > 0) {
      message.data.assign(tensor.address(), tensor.address() + tensor.bytes());
    }
    note("send to 0", tensor.dtype(), tensor.bytes());
    messages_.push_back(std::move(message));
  }

  void receive(const Tensor& tensor, int from) override {
    check_tensor("receive", tensor);
    check_rank("receive", from, 1);
    note("receive from 0", tensor.dtype(), tensor.bytes());
    if (messages_.empty()) {
      throw CommError(fmt::format("rank 0 of 1: receive from 0 (call {}, {}, {} bytes): nothing was sent; send first",
                                  ledger().back().sequence, to_string(tensor.dtype()), tensor.bytes()));
    }
    const Message message = std::move(messages_.front());
    messages_.pop_front();
    if (message.dtype != tensor.dtype() || message.bytes != tensor.bytes() || message.meta != is_meta(tensor)) {
      throw CommError(fmt::format(
          "rank 0 of 1: receive from 0 (call {}, {}, {} bytes{}) met a message of {}, {} bytes{}: both must agree",
          ledger().back().sequence, to_string(tensor.dtype()), tensor.bytes(), is_meta(tensor) ? " on meta" : "",
          to_string(message.dtype), message.bytes, message.meta ? " on meta" : ""));
    }
    if (!message.meta) {
      copy_bytes(tensor.address(), message.data.data(), message.bytes);
    }
  }

  void barrier() override { note("barrier", DType::kU8, 0); }

  std::unique_ptr<Communicator> split(int /*colour*/) override {
    note("split", DType::kI32, 4);
    return std::make_unique<SelfCommunicator>();
  }

 private:
  struct Message {
    DType dtype;
    std::int64_t bytes;
    bool meta;
    std::vector<std::byte> data;
  };

  void identity(const char* op, const Tensor& out, const Tensor& in) {
    check_tensor(op, in);
    check_tensor(op, out);
    check_share(op, out, in, 1);
    note(op, in.dtype(), in.bytes());
    if (!is_meta(in)) {
      copy_bytes(out.address(), in.address(), in.bytes());
    }
  }

  std::deque<Message> messages_;
};

}  // namespace

std::unique_ptr<Communicator> make_self() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace caravan::comm
