#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <latch>
#include <limits>
#include <stdexcept>
#include <thread>

#include "caravan/comm/communicator.h"
#include "tests/comm/host_tensors.h"
#include "tests/support/scratch.h"

namespace caravan::comm {
namespace {

using test::HostTensors;
using test::message_of;

using Body = std::function<void(Communicator&)>;

// What run_threads() throws as a CommError, or "".
std::string failure_of(int ranks, const Body& body, double timeout_seconds = 60.0) {
  return message_of<CommError>([&] { run_threads(ranks, body, {timeout_seconds}); });
}

class ThreadsFailure : public testing::Test {
 protected:
  HostTensors tensors_;

  Tensor f32(std::int64_t count) { return tensors_.counted(DType::kF32, {count}, 0); }
};

TEST_F(ThreadsFailure, MismatchedOperationsAreNamed) {
  EXPECT_EQ(failure_of(3,
                       [&](Communicator& comm) {
                         comm.barrier();
                         if (comm.rank() == 2) {
                           comm.broadcast(f32(4), 1);
                         } else {
                           comm.all_reduce_sum(f32(4));
                         }
                       }),
            "rank 0 of 3 called all_reduce (call 1, f32, 16 bytes) where rank 2 of 3 called broadcast from 1 (call 1, "
            "f32, 16 bytes); all ranks must make the same calls with the same sizes");
}

TEST_F(ThreadsFailure, MismatchedArgumentsAreNamed) {
  EXPECT_EQ(failure_of(2, [&](Communicator& comm) { comm.all_reduce_sum(f32(4 + comm.rank())); }),
            "rank 0 of 2 called all_reduce (call 0, f32, 16 bytes) where rank 1 of 2 called all_reduce (call 0, f32, "
            "20 bytes); all ranks must make the same calls with the same sizes");
  const auto dtypes = [&](Communicator& comm) {
    comm.all_reduce_sum(tensors_.counted(comm.rank() == 0 ? DType::kBF16 : DType::kF16, {4}, 0));
  };
  EXPECT_NE(failure_of(2, dtypes).find("(call 0, bf16, 8 bytes) where rank 1 of 2 called all_reduce (call 0, f16"),
            std::string::npos);
  const auto roots = [&](Communicator& comm) { comm.broadcast(f32(4), comm.rank()); };
  EXPECT_NE(failure_of(2, roots).find("broadcast from 0"), std::string::npos);
  const auto devices = [&](Communicator& comm) {
    comm.all_reduce_sum(comm.rank() == 0 ? f32(4) : tensors_.meta(DType::kF32, {4}));
  };
  EXPECT_NE(failure_of(2, devices).find("all_reduce (call 0, f32, 16 bytes on meta)"), std::string::npos);
}

TEST_F(ThreadsFailure, AMismatchReachesEveryRank) {
  std::vector<std::string> sentences(4);
  run_threads(4, [&](Communicator& comm) {
    const auto call = [&] { comm.all_reduce_sum(f32(comm.rank() == 2 ? 1 : 2)); };
    sentences[static_cast<std::size_t>(comm.rank())] = message_of<CommError>(call);
  });
  for (const std::string& sentence : sentences) {
    EXPECT_NE(sentence.find("rank 0 of 4 called all_reduce (call 0, f32, 8 bytes) where rank 2 of 4"),
              std::string::npos)
        << sentence;
  }
}

TEST_F(ThreadsFailure, AMismatchOfAPartNamesBothItsRanksAndTheJobs) {
  EXPECT_EQ(failure_of(4,
                       [&](Communicator& comm) {
                         const std::unique_ptr<Communicator> part = comm.split(comm.rank() / 2);
                         part->all_reduce_sum(f32(comm.rank() == 3 ? 1 : 2));
                         comm.barrier();
                       }),
            "rank 0 of 2 of colour 1 (rank 2 of the job) called all_reduce (call 0, f32, 8 bytes) where rank 1 of 2 of "
            "colour 1 (rank 3 of the job) called all_reduce (call 0, f32, 4 bytes); all ranks must make the same calls "
            "with the same sizes");
}

TEST_F(ThreadsFailure, AMessageOfAnotherSizeOrTypeIsNamed) {
  const auto exchange = [&](DType sent, DType received, std::int64_t count) {
    return failure_of(2, [&, sent, received, count](Communicator& comm) {
      if (comm.rank() == 0) {
        comm.send(tensors_.counted(sent, {4}, 0), 1);
      } else {
        comm.receive(tensors_.counted(received, {count}, 0), 0);
      }
    });
  };
  EXPECT_EQ(exchange(DType::kF32, DType::kF32, 4), "");
  EXPECT_EQ(exchange(DType::kF32, DType::kF32, 5),
            "rank 1 of 2 called receive from 0 (call 0, f32, 20 bytes) where rank 0 of 2 called send to 1 (call 0, "
            "f32, 16 bytes); both sides must agree in dtype and bytes");
  EXPECT_NE(exchange(DType::kF32, DType::kI32, 4).find("i32, 16 bytes"), std::string::npos);
}

TEST_F(ThreadsFailure, ALateRankIsNamedWithTheCallThatWaits) {
  std::latch done(1);
  const std::string sentence = failure_of(
      3,
      [&](Communicator& comm) {
        if (comm.rank() == 0) {
          const std::string own = message_of<CommError>([&] { comm.all_reduce_sum(f32(4)); });
          done.count_down();
          throw CommError(own);
        }
        done.wait();
      },
      0.05);
  EXPECT_EQ(sentence,
            "rank 0 of 3: all_reduce (call 0, f32, 16 bytes) waited 0.05 s for ranks 1 and 2; find out what kept the "
            "other side, or allow more time (ThreadsOptions::timeout_seconds)");
}

TEST_F(ThreadsFailure, ALateSenderIsNamed) {
  std::latch done(1);
  const std::string sentence = failure_of(
      2,
      [&](Communicator& comm) {
        if (comm.rank() == 1) {
          const std::string own = message_of<CommError>([&] { comm.receive(f32(2), 0); });
          done.count_down();
          throw CommError(own);
        }
        done.wait();
      },
      0.05);
  EXPECT_TRUE(sentence.starts_with("rank 1 of 2: receive from 0 (call 0, f32, 8 bytes) waited 0.05 s for rank 0;"))
      << sentence;
}

TEST_F(ThreadsFailure, ALateRankFindsTheJobFailed) {
  std::latch done(1);
  std::string late;
  run_threads(2,
              [&](Communicator& comm) {
                if (comm.rank() == 0) {
                  EXPECT_THROW(comm.barrier(), CommError);
                  done.count_down();
                } else {
                  done.wait();
                  late = message_of<CommError>([&] { comm.barrier(); });
                }
              },
              {0.05});
  EXPECT_TRUE(
      late.starts_with("rank 1 of 2: barrier (call 0, u8, 0 bytes) cannot finish because rank 0 of the job "
                       "failed: rank 0 of 2: barrier (call 0, u8, 0 bytes) waited 0.05 s for rank 1"))
      << late;
}

TEST_F(ThreadsFailure, ARankThatEndedIsNotWaitedFor) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(failure_of(3,
                       [&](Communicator& comm) {
                         comm.barrier();
                         if (comm.rank() != 1) {
                           comm.barrier();
                         }
                       })
                .substr(13),
            "barrier (call 1, u8, 0 bytes) waits for rank 1 of 3, which has ended; all ranks must make the same calls");
  EXPECT_NE(failure_of(2,
                       [&](Communicator& comm) {
                         if (comm.rank() == 0) {
                           comm.receive(f32(1), 1);
                         }
                       })
                .find("waits for rank 1 of 2, which has ended"),
            std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << "half the time limit";
}

TEST_F(ThreadsFailure, AMessageOutlivesItsSender) {
  EXPECT_EQ(failure_of(2,
                       [&](Communicator& comm) {
                         const std::unique_ptr<Communicator> twin = comm.split(0);
                         if (comm.rank() == 0) {
                           twin->send(f32(3), 1);
                         } else {
                           std::this_thread::sleep_for(std::chrono::milliseconds(20));
                           twin->receive(f32(3), 0);
                         }
                       }),
            "");
}

// Rank 1 of three throws; the others are in `call` or come to it later.
void expect_one_throw_ends_all(const char* what, const Body& call) {
  SCOPED_TRACE(what);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::string> sentences(3);
  const Body body = [&](Communicator& comm) {
    comm.barrier();
    if (comm.rank() == 1) {
      throw std::runtime_error("the disk is full");
    }
    sentences[static_cast<std::size_t>(comm.rank())] = message_of<CommError>([&] { call(comm); });
    EXPECT_THROW(comm.barrier(), CommError) << "later calls fail too";
    throw CommError("a consequence");
  };
  EXPECT_EQ(message_of<std::runtime_error>([&] { run_threads(3, body); }), "the disk is full");
  for (const std::size_t rank : {0U, 2U}) {
    EXPECT_TRUE(sentences[rank].ends_with("cannot finish because rank 1 of the job failed: the disk is full"))
        << sentences[rank];
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << "half the time limit";
}

TEST_F(ThreadsFailure, AThrowInTheMiddleEndsEveryCall) {
  expect_one_throw_ends_all("all_reduce", [&](Communicator& comm) { comm.all_reduce_sum(f32(3)); });
  expect_one_throw_ends_all("all_gather", [&](Communicator& comm) { comm.all_gather(f32(3), f32(1)); });
  expect_one_throw_ends_all("reduce_scatter", [&](Communicator& comm) { comm.reduce_scatter_sum(f32(1), f32(3)); });
  expect_one_throw_ends_all("broadcast", [&](Communicator& comm) { comm.broadcast(f32(1), 0); });
  expect_one_throw_ends_all("barrier", [](Communicator& comm) { comm.barrier(); });
  expect_one_throw_ends_all("receive", [&](Communicator& comm) { comm.receive(f32(1), 1); });
  expect_one_throw_ends_all("split", [](Communicator& comm) { comm.split(0); });
  expect_one_throw_ends_all("send", [&](Communicator& comm) {
    while (true) {  // never waits, so it hears of the failure when it comes to it
      comm.send(f32(1), 1);
      std::this_thread::yield();
    }
  });
}

TEST_F(ThreadsFailure, AThrowReachesPartsThatTheRankIsNotIn) {
  const Body body = [&](Communicator& comm) {
    const std::unique_ptr<Communicator> part = comm.split(comm.rank() % 2);
    if (comm.rank() == 1) {
      throw std::out_of_range("from rank 1");
    }
    while (true) {
      part->all_reduce_sum(f32(5));  // {0, 2} could go on for ever
    }
  };
  EXPECT_EQ(message_of<std::out_of_range>([&] { run_threads(4, body); }), "from rank 1");
}

TEST_F(ThreadsFailure, AThrowDuringAnyOfManyCallsEndsTheJob) {
  for (int repeat = 0; repeat < 200; ++repeat) {
    const Body body = [&](Communicator& comm) {
      for (int call = 0;; ++call) {
        const Tensor tensor = f32(64);  // its memory goes when the call throws
        comm.all_reduce_sum(tensor);
        if (comm.rank() == repeat % 3 && call == repeat % 7) {
          throw std::runtime_error("planted");
        }
      }
    };
    EXPECT_EQ(message_of<std::runtime_error>([&] { run_threads(3, body); }), "planted");
  }
}

TEST_F(ThreadsFailure, TheFirstExceptionIsRethrownWhateverItsType) {
  EXPECT_THROW(run_threads(1, [](Communicator&) { throw 42; }), int);
  const Body body = [](Communicator& comm) {
    if (comm.rank() == 3) {
      throw 42;
    }
    try {
      comm.barrier();
    } catch (const CommError&) {
      throw std::logic_error("a consequence in other words");
    }
  };
  EXPECT_THROW(run_threads(4, body), int);
}

TEST_F(ThreadsFailure, ABadArgumentOnOneRankEndsTheJobWithItsSentence) {
  const Body body = [&](Communicator& comm) { comm.all_gather(f32(comm.rank() == 1 ? 5 : 6), f32(3)); };
  EXPECT_EQ(message_of<ShapeError>([&] { run_threads(2, body); }),
            "all_gather of 2 ranks: f32 [5] on host is not 2 times f32 [3] on host by rows");
}

TEST_F(ThreadsFailure, AFailureThatEveryBodyDealsWithIsNotThrownAgain) {
  EXPECT_NO_THROW(
      run_threads(2, [&](Communicator& comm) { EXPECT_THROW(comm.all_reduce_sum(f32(1 + comm.rank())), CommError); }));
}

TEST_F(ThreadsFailure, BadArgumentsAreRefusedBeforeAnythingIsNoted) {
  run_threads(2, [&](Communicator& comm) {
    const Tensor whole = tensors_.empty(DType::kF32, {4, 6});
    EXPECT_THROW(comm.all_reduce_sum(Tensor()), ShapeError);
    EXPECT_THROW(comm.all_reduce_sum(whole.column_range(0, 3)), ShapeError);
    EXPECT_THROW(comm.all_reduce_sum(tensors_.empty(DType::kI32, {4})), ShapeError);
    EXPECT_THROW(comm.reduce_scatter_sum(tensors_.empty(DType::kF8E4M3, {2}), tensors_.empty(DType::kF8E4M3, {4})),
                 ShapeError);
    EXPECT_THROW(comm.reduce_scatter_sum(f32(2), f32(5)), ShapeError);
    EXPECT_THROW(comm.all_gather(whole, whole.row_range(0, 1)), ShapeError);
    EXPECT_THROW(comm.broadcast(whole, 2), ShapeError);
    EXPECT_THROW(comm.broadcast(whole, -1), ShapeError);
    EXPECT_THROW(comm.send(whole, 2), ShapeError);
    EXPECT_THROW(comm.receive(whole, -1), ShapeError);
    EXPECT_TRUE(comm.ledger().empty());
    comm.barrier();
  });
}

TEST_F(ThreadsFailure, WaitingForAMessageToOneselfIsRefused) {
  EXPECT_EQ(failure_of(1, [&](Communicator& comm) { comm.receive(f32(1), 0); }),
            "rank 0 of 1: receive from 0 (call 0, f32, 4 bytes): this rank has sent itself nothing; send first");
}

TEST_F(ThreadsFailure, ImpossibleOptionsAreRefused) {
  const Body body = [](Communicator&) {};
  EXPECT_THROW(run_threads(0, body), ConfigError);
  EXPECT_THROW(run_threads(-1, body), ConfigError);
  EXPECT_THROW(run_threads(1, body, {0.0}), ConfigError);
  EXPECT_THROW(run_threads(1, body, {std::nan("")}), ConfigError);
  EXPECT_NO_THROW(
      run_threads(2, [](Communicator& comm) { comm.barrier(); }, {std::numeric_limits<double>::infinity()}));
}

}  // namespace
}  // namespace caravan::comm
