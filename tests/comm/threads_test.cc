#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "caravan/comm/communicator.h"
#include "tests/comm/host_tensors.h"

namespace caravan::comm {
namespace {

using test::bytes_of;
using test::HostTensors;

// Runs on 1 to 5 ranks.
void on_any_ranks(const std::function<void(Communicator&)>& body) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    SCOPED_TRACE(ranks);
    run_threads(ranks, body);
  }
}

std::vector<double> numbers_of(std::int64_t count, int rank) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<double>((i * 7 + rank * 5) % 23 - 11));
  }
  return values;
}

// The sum over ranks of numbers_of(): at most 55 in size, so exact in every type.
std::vector<double> sum_of_numbers(std::int64_t count, int ranks) {
  std::vector<double> sum(static_cast<std::size_t>(count), 0.0);
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<double> values = numbers_of(count, rank);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] += values[i];
    }
  }
  return sum;
}

TEST(Threads, SumOverRanksInEveryType) {
  HostTensors tensors;
  for (const DType dtype : test::kSummedTypes) {
    for (const std::int64_t count : {0, 1, 2, 7, 1300}) {
      on_any_ranks([&](Communicator& comm) {
        const Tensor tensor = tensors.whole_numbers(dtype, {count}, numbers_of(count, comm.rank()));
        comm.all_reduce_sum(tensor);
        EXPECT_EQ(to_doubles(tensor), sum_of_numbers(count, comm.size())) << to_string(tensor);
      });
    }
  }
}

TEST(Threads, SumScalars) {
  HostTensors tensors;
  on_any_ranks([&](Communicator& comm) {
    const Tensor scalar = tensors.whole_numbers(DType::kF64, {}, {comm.rank() + 1.0});
    comm.all_reduce_sum(scalar);
    EXPECT_EQ(to_doubles(scalar)[0], comm.size() * (comm.size() + 1) / 2.0);
  });
}

TEST(Threads, AddInRankOrder) {
  HostTensors tensors;
  run_threads(3, [&](Communicator& comm) {
    // 2^24 + 1 + 1 in f32 stays 2^24 from the left; from the right it would be 2^24 + 2.
    const double own = comm.rank() == 0 ? 16777216.0 : 1.0;
    const Tensor tensor = tensors.whole_numbers(DType::kF32, {5}, std::vector<double>(5, own));
    comm.all_reduce_sum(tensor);
    EXPECT_EQ(to_doubles(tensor), std::vector<double>(5, 16777216.0));
  });
}

TEST(Threads, GiveTheSameBitsOnEveryRankAndRun) {
  HostTensors tensors;
  std::vector<std::vector<std::byte>> results;
  std::mutex mutex;
  for (int run = 0; run < 3; ++run) {
    run_threads(4, [&](Communicator& comm) {
      std::mt19937 random(static_cast<unsigned>(comm.rank()));
      std::normal_distribution<double> normal;
      std::vector<double> values(1001);
      for (double& value : values) {
        value = normal(random);
      }
      const Tensor tensor = tensors.empty(DType::kF64, {1001});
      copy_from_host(tensor, std::as_bytes(std::span(values)));
      comm.all_reduce_sum(tensor);
      const std::lock_guard lock(mutex);
      results.push_back(bytes_of(tensor));
    });
  }
  ASSERT_EQ(results.size(), 12U);
  for (const std::vector<std::byte>& result : results) {
    EXPECT_EQ(result, results[0]);
  }
}

TEST(Threads, GatherRowsInRankOrder) {
  HostTensors tensors;
  for (const DType dtype : test::kAllTypes) {
    for (const std::int64_t rows : {0, 1, 3}) {
      on_any_ranks([&](Communicator& comm) {
        const std::int64_t share = rows * 2 * size_of(dtype);
        const Tensor in = tensors.counted(dtype, {rows, 2}, static_cast<int>(comm.rank() * share));
        const Tensor out = tensors.empty(dtype, {rows * comm.size(), 2});
        comm.all_gather(out, in);
        EXPECT_EQ(bytes_of(out), HostTensors::counted_bytes(share * comm.size(), 0));
        EXPECT_EQ(bytes_of(in), HostTensors::counted_bytes(share, static_cast<int>(comm.rank() * share)));
      });
    }
  }
}

TEST(Threads, ScatterTheRowsOfTheSum) {
  HostTensors tensors;
  for (const DType dtype : test::kSummedTypes) {
    for (const std::int64_t rows : {0, 1, 3, 700}) {
      on_any_ranks([&](Communicator& comm) {
        const std::int64_t count = rows * comm.size() * 2;
        const std::vector<double> own = numbers_of(count, comm.rank());
        const Tensor in = tensors.whole_numbers(dtype, {rows * comm.size(), 2}, own);
        const Tensor out = tensors.empty(dtype, {rows, 2});
        comm.reduce_scatter_sum(out, in);
        const std::vector<double> sum = sum_of_numbers(count, comm.size());
        const auto begin = sum.begin() + comm.rank() * rows * 2;
        EXPECT_EQ(to_doubles(out), std::vector<double>(begin, begin + rows * 2));
        EXPECT_EQ(to_doubles(in), own) << "in stays as it was";
      });
    }
  }
}

TEST(Threads, GatherAndScatterInPlace) {
  HostTensors tensors;
  on_any_ranks([&](Communicator& comm) {
    const std::int64_t rows = 3;
    const std::int64_t count = rows * comm.size();
    const Tensor whole = tensors.whole_numbers(DType::kF32, {count}, numbers_of(count, comm.rank()));
    const Tensor share = whole.row_range(comm.rank() * rows, (comm.rank() + 1) * rows);
    comm.reduce_scatter_sum(share, whole);
    comm.all_gather(whole, share);
    EXPECT_EQ(to_doubles(whole), sum_of_numbers(count, comm.size()));
  });
}

TEST(Threads, BroadcastFromEveryRoot) {
  HostTensors tensors;
  for (const DType dtype : test::kAllTypes) {
    for (const std::int64_t count : {0, 1, 9}) {
      on_any_ranks([&](Communicator& comm) {
        for (int root = 0; root < comm.size(); ++root) {
          const Tensor tensor = tensors.counted(dtype, {count}, 10 * comm.rank());
          comm.broadcast(tensor, root);
          EXPECT_EQ(bytes_of(tensor), HostTensors::counted_bytes(tensor.bytes(), 10 * root));
        }
      });
    }
  }
}

TEST(Threads, DeliverMessagesInOrderPerSender) {
  HostTensors tensors;
  for (const DType dtype : test::kAllTypes) {
    on_any_ranks([&](Communicator& comm) {
      // To everyone, oneself included: three messages of lengths 0, 1 and 2; then those of the last rank first.
      for (int to = 0; to < comm.size(); ++to) {
        for (int length = 0; length < 3; ++length) {
          const Tensor tensor = tensors.counted(dtype, {length}, 50 * comm.rank() + length);
          comm.send(tensor, to);
          copy_from_host(tensor, HostTensors::counted_bytes(tensor.bytes(), 0));  // it is ours again
        }
      }
      for (int from = comm.size() - 1; from >= 0; --from) {
        for (int length = 0; length < 3; ++length) {
          const Tensor tensor = tensors.empty(dtype, {length});
          comm.receive(tensor, from);
          EXPECT_EQ(bytes_of(tensor), HostTensors::counted_bytes(tensor.bytes(), 50 * from + length));
        }
      }
    });
  }
}

TEST(Threads, LeaveABarrierTogether) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<int> before{0};
    run_threads(5, [&](Communicator& comm) {
      ++before;
      comm.barrier();
      EXPECT_EQ(before, 5);
    });
  }
}

TEST(Threads, SplitIntoAGrid) {
  HostTensors tensors;
  run_threads(6, [&](Communicator& comm) {
    const int row = comm.rank() / 3;
    const int column = comm.rank() % 3;
    const std::unique_ptr<Communicator> along_row = comm.split(row);
    const std::unique_ptr<Communicator> along_column = comm.split(-column);
    EXPECT_EQ(along_row->size(), 3);
    EXPECT_EQ(along_row->rank(), column);
    EXPECT_EQ(along_column->size(), 2);
    EXPECT_EQ(along_column->rank(), row);
    for (int repeat = 0; repeat < 50; ++repeat) {
      const Tensor in_row = tensors.whole_numbers(DType::kF64, {1}, {comm.rank() + 1.0});
      const Tensor in_column = tensors.whole_numbers(DType::kF64, {1}, {comm.rank() + 1.0});
      along_row->all_reduce_sum(in_row);
      along_column->all_reduce_sum(in_column);
      EXPECT_EQ(to_doubles(in_row)[0], row == 0 ? 1 + 2 + 3 : 4 + 5 + 6);
      EXPECT_EQ(to_doubles(in_column)[0], 2.0 * (column + 1) + 3);
    }
    EXPECT_EQ(comm.ledger().size(), 2U) << "a part has a ledger of its own";
    EXPECT_EQ(along_row->ledger().size(), 50U);
  });
}

TEST(Threads, SplitWhatWasSplit) {
  HostTensors tensors;
  run_threads(5, [&](Communicator& comm) {
    for (int repeat = 0; repeat < 10; ++repeat) {
      const std::unique_ptr<Communicator> odd_or_even = comm.split(comm.rank() % 2);  // {0, 2, 4} and {1, 3}
      const std::unique_ptr<Communicator> halves = odd_or_even->split(odd_or_even->rank() / 2);
      const int expected[] = {2, 2, 2, 2, 1};
      EXPECT_EQ(halves->size(), expected[comm.rank()]);
      const Tensor names = tensors.empty(DType::kF64, {halves->size()});
      const Tensor name = tensors.whole_numbers(DType::kF64, {1}, {static_cast<double>(comm.rank())});
      halves->all_gather(names, name);
      const std::vector<std::vector<double>> members = {{0, 2}, {1, 3}, {0, 2}, {1, 3}, {4}};
      EXPECT_EQ(to_doubles(names), members[static_cast<std::size_t>(comm.rank())]);
    }
  });
}

TEST(Threads, KeepMessagesOfPartsApart) {
  HostTensors tensors;
  run_threads(2, [&](Communicator& comm) {
    const std::unique_ptr<Communicator> twin = comm.split(0);
    const int other = 1 - comm.rank();
    comm.send(tensors.counted(DType::kU8, {4}, 10), other);
    twin->send(tensors.counted(DType::kU8, {4}, 20), other);
    const Tensor tensor = tensors.empty(DType::kU8, {4});
    twin->receive(tensor, other);
    EXPECT_EQ(bytes_of(tensor), HostTensors::counted_bytes(4, 20));
    comm.receive(tensor, other);
    EXPECT_EQ(bytes_of(tensor), HostTensors::counted_bytes(4, 10));
  });
}

void call_everything(Communicator& comm, const std::function<Tensor(const Shape&)>& make) {
  comm.all_reduce_sum(make({6}));
  comm.all_gather(make({2 * comm.size(), 3}), make({2, 3}));
  comm.reduce_scatter_sum(make({1, 3}), make({comm.size(), 3}));
  comm.broadcast(make({5}), comm.size() - 1);
  comm.barrier();
  comm.send(make({4}), (comm.rank() + 1) % comm.size());
  comm.receive(make({4}), (comm.rank() + comm.size() - 1) % comm.size());
  comm.split(0)->barrier();
}

TEST(Threads, KeepEqualLedgers) {
  HostTensors tensors;
  std::vector<std::vector<LedgerEntry>> ledgers(3);
  run_threads(3, [&](Communicator& comm) {
    call_everything(comm, [&](const Shape& shape) { return tensors.counted(DType::kF32, shape, 0); });
    ledgers[static_cast<std::size_t>(comm.rank())] = comm.ledger();
  });
  const std::vector<LedgerEntry> expected = {
      {0, "all_reduce", DType::kF32, 24},     {1, "all_gather", DType::kF32, 24},
      {2, "reduce_scatter", DType::kF32, 36}, {3, "broadcast from 2", DType::kF32, 20},
      {4, "barrier", DType::kU8, 0},          {5, "send to 1", DType::kF32, 16},
      {6, "receive from 2", DType::kF32, 16}, {7, "split", DType::kI32, 4},
  };
  EXPECT_EQ(ledgers[0], expected);
  for (std::size_t rank = 1; rank < 3; ++rank) {
    std::vector<LedgerEntry> collectives = ledgers[rank];
    EXPECT_EQ(collectives[5].op, rank == 1 ? "send to 2" : "send to 0");
    collectives[5].op = "send to 1";
    collectives[6].op = "receive from 2";
    EXPECT_EQ(collectives, expected);
  }
}

TEST(Threads, NoteADryRunLikeTheRealOne) {
  HostTensors tensors;
  on_any_ranks([&](Communicator& comm) {
    const std::unique_ptr<Communicator> dry = comm.split(0);
    const std::unique_ptr<Communicator> real = comm.split(0);
    call_everything(*dry, [&](const Shape& shape) { return tensors.meta(DType::kBF16, shape); });
    call_everything(*real, [&](const Shape& shape) { return tensors.counted(DType::kBF16, shape, 0); });
    EXPECT_EQ(dry->ledger(), real->ledger());
  });
}

TEST(Threads, RunSeveralJobsSideBySide) {
  HostTensors tensors;
  std::vector<std::thread> jobs;
  for (int job = 0; job < 3; ++job) {
    jobs.emplace_back([&tensors, job] {
      run_threads(job + 1, [&](Communicator& comm) {
        for (int repeat = 0; repeat < 100; ++repeat) {
          const Tensor tensor = tensors.whole_numbers(DType::kF64, {3}, {1, 2, 3});
          comm.all_reduce_sum(tensor);
          EXPECT_EQ(to_doubles(tensor)[2], 3.0 * comm.size());
        }
      });
    });
  }
  for (std::thread& job : jobs) {
    job.join();
  }
}

TEST(Threads, RunAJobInsideARank) {
  std::atomic<int> bodies{0};
  run_threads(2, [&](Communicator& outer) {
    run_threads(3, [&](Communicator& inner) {
      inner.barrier();
      ++bodies;
    });
    outer.barrier();
    EXPECT_EQ(bodies, 6);
  });
}

}  // namespace
}  // namespace caravan::comm
