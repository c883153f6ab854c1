#include <gtest/gtest.h>

#include "caravan/comm/communicator.h"
#include "tests/comm/host_tensors.h"
#include "tests/support/scratch.h"

namespace caravan::comm {
namespace {

using test::bytes_of;
using test::HostTensors;
using test::message_of;

class Self : public testing::Test {
 protected:
  HostTensors tensors_;
  std::unique_ptr<Communicator> self_ = make_self();
};

TEST_F(Self, LeavesEverySumAndCopyAsItIs) {
  EXPECT_EQ(self_->rank(), 0);
  EXPECT_EQ(self_->size(), 1);
  for (const DType dtype : test::kAllTypes) {
    for (const std::int64_t rows : {0, 1, 5}) {
      const Tensor in = tensors_.counted(dtype, {rows, 3}, 17);
      const std::vector<std::byte> before = bytes_of(in);
      const Tensor out = tensors_.counted(dtype, {rows, 3}, 90);
      self_->all_gather(out, in);
      EXPECT_EQ(bytes_of(out), before);
      self_->broadcast(in, 0);
      EXPECT_EQ(bytes_of(in), before);
    }
  }
  for (const DType dtype : test::kSummedTypes) {
    const Tensor in = tensors_.counted(dtype, {4, 3}, 17);
    const std::vector<std::byte> before = bytes_of(in);
    const Tensor out = tensors_.counted(dtype, {4, 3}, 90);
    self_->all_reduce_sum(in);
    EXPECT_EQ(bytes_of(in), before);
    self_->reduce_scatter_sum(out, in);
    EXPECT_EQ(bytes_of(out), before);
  }
}

TEST_F(Self, ReceivesWhatItSentInOrder) {
  const Tensor tensor = tensors_.counted(DType::kF32, {3}, 1);
  self_->send(tensor, 0);
  copy_from_host(tensor, HostTensors::counted_bytes(12, 50));
  self_->send(tensor, 0);
  const Tensor first = tensors_.empty(DType::kF32, {3});
  self_->receive(first, 0);
  self_->receive(tensor, 0);
  EXPECT_EQ(bytes_of(first), HostTensors::counted_bytes(12, 1)) << "a message is its bytes at the time of the send";
  EXPECT_EQ(bytes_of(tensor), HostTensors::counted_bytes(12, 50));
}

TEST_F(Self, RefusesToWaitForItself) {
  const Tensor tensor = tensors_.empty(DType::kF32, {3});
  EXPECT_EQ(message_of<CommError>([&] { self_->receive(tensor, 0); }),
            "rank 0 of 1: receive from 0 (call 0, f32, 12 bytes): nothing was sent; send first");
  self_->send(tensor, 0);
  EXPECT_EQ(message_of<CommError>([&] { self_->receive(tensors_.empty(DType::kF32, {2}), 0); }),
            "rank 0 of 1: receive from 0 (call 2, f32, 8 bytes) met a message of f32, 12 bytes: both must agree");
  EXPECT_THROW(self_->send(tensor, 1), ShapeError);
  EXPECT_THROW(self_->receive(tensor, -1), ShapeError);
  EXPECT_THROW(self_->broadcast(tensor, 1), ShapeError);
}

TEST_F(Self, NotesEveryCall) {
  const Tensor tensor = tensors_.counted(DType::kBF16, {2, 3}, 0);
  self_->all_reduce_sum(tensor);
  self_->all_gather(tensor, tensor);
  self_->reduce_scatter_sum(tensor, tensor);
  self_->broadcast(tensor, 0);
  self_->send(tensor, 0);
  self_->receive(tensor, 0);
  self_->barrier();
  const std::unique_ptr<Communicator> part = self_->split(3);
  EXPECT_EQ(part->size(), 1);
  EXPECT_TRUE(part->ledger().empty());
  const std::vector<LedgerEntry> expected = {
      {0, "all_reduce", DType::kBF16, 12},     {1, "all_gather", DType::kBF16, 12},
      {2, "reduce_scatter", DType::kBF16, 12}, {3, "broadcast from 0", DType::kBF16, 12},
      {4, "send to 0", DType::kBF16, 12},      {5, "receive from 0", DType::kBF16, 12},
      {6, "barrier", DType::kU8, 0},           {7, "split", DType::kI32, 4},
  };
  EXPECT_EQ(self_->ledger(), expected);
}

TEST_F(Self, TouchesNothingOnTheMetaDevice) {
  const Tensor tensor = tensors_.meta(DType::kF32, {1 << 20, 1 << 10});
  self_->all_reduce_sum(tensor);
  self_->all_gather(tensor, tensor);
  self_->reduce_scatter_sum(tensor, tensor);
  self_->broadcast(tensor, 0);
  self_->send(tensor, 0);
  self_->receive(tensor, 0);
  ASSERT_EQ(self_->ledger().size(), 6U);
  for (const LedgerEntry& entry : self_->ledger()) {
    EXPECT_EQ(entry.bytes, std::int64_t{1} << 32);
  }
}

TEST_F(Self, RefusesWhatEveryCommunicatorRefuses) {
  const Tensor whole = tensors_.empty(DType::kF32, {4, 6});
  EXPECT_THROW(self_->all_reduce_sum(Tensor()), ShapeError);
  EXPECT_THROW(self_->all_reduce_sum(whole.column_range(0, 3)), ShapeError) << "strided";
  EXPECT_THROW(self_->all_reduce_sum(tensors_.empty(DType::kI32, {4})), ShapeError) << "not a summed type";
  EXPECT_THROW(self_->reduce_scatter_sum(tensors_.empty(DType::kU8, {4}), tensors_.empty(DType::kU8, {4})), ShapeError);
  EXPECT_THROW(self_->all_gather(whole, whole.row_range(0, 2)), ShapeError);
  EXPECT_THROW(self_->all_gather(whole, tensors_.empty(DType::kBF16, {4, 6})), ShapeError);
  EXPECT_THROW(self_->all_gather(whole, tensors_.meta(DType::kF32, {4, 6})), ShapeError);
  const Tensor elsewhere(DType::kF32, {4}, {DeviceKind::kCuda, 0}, whole.address(), nullptr);
  EXPECT_THROW(self_->all_reduce_sum(elsewhere), UnsupportedError);
  EXPECT_TRUE(self_->ledger().empty());
}

}  // namespace
}  // namespace caravan::comm
