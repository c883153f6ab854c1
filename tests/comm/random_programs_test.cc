// The same random program on every rank, against a model that walks the ranks one after the other.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "caravan/comm/communicator.h"
#include "tests/comm/host_tensors.h"

namespace caravan::comm {
namespace {

using test::HostTensors;

enum class Kind { kAllReduce, kGatherScatter, kReduceScatter, kBroadcast, kShift, kSwapTwo, kBarrier, kSplit, kLeave };

struct Instruction {
  Kind kind = Kind::kBarrier;
  int number = 0;            // a root, a distance or a rank: modulo the size of the group at hand
  std::vector<int> colours;  // [ranks of the job] for kSplit
};

struct Program {
  int ranks = 1;
  std::int64_t elements = 0;  // a rank's buffer
  std::vector<Instruction> instructions;
};

Program make_program(std::mt19937& random) {
  const auto below = [&](int limit) { return std::uniform_int_distribution<int>(0, limit - 1)(random); };
  Program program;
  program.ranks = 1 + below(5);
  program.elements = below(4) == 0 ? below(2) : 60 * (1 + below(3));
  int depth = 0;
  int sums = 0;
  const int length = 1 + below(12);
  for (int i = 0; i < length; ++i) {
    Instruction one;
    one.kind = static_cast<Kind>(below(9));
    one.number = below(60);
    const bool sum = one.kind == Kind::kAllReduce || one.kind == Kind::kReduceScatter;
    // Six sums over five ranks keep f16 finite: NaN has no order of its own.
    if ((one.kind == Kind::kLeave && depth == 0) || (one.kind == Kind::kSplit && depth == 3) || (sum && sums == 6)) {
      one.kind = Kind::kBarrier;
    }
    sums += sum ? 1 : 0;
    depth += one.kind == Kind::kSplit ? 1 : one.kind == Kind::kLeave ? -1 : 0;
    for (int rank = 0; rank < program.ranks; ++rank) {
      one.colours.push_back(below(3) - 1);
    }
    program.instructions.push_back(one);
  }
  return program;
}

// The types as the model computes in them.
template <typename T>
struct Arithmetic {
  using Sum = T;
};
template <>
struct Arithmetic<BFloat16> {
  using Sum = float;
};
template <>
struct Arithmetic<Float16> {
  using Sum = float;
};

template <typename T>
using Buffers = std::vector<std::vector<T>>;  // [ranks of the job][elements]

template <typename T>
Buffers<T> first_buffers(const Program& program, unsigned seed) {
  std::mt19937 random(seed);
  Buffers<T> buffers;
  for (int rank = 0; rank < program.ranks; ++rank) {
    std::vector<T>& buffer = buffers.emplace_back();
    for (std::int64_t i = 0; i < program.elements; ++i) {
      // Sevenths round in every float type, so that another order of sums shows.
      buffer.push_back(static_cast<T>(static_cast<float>(static_cast<int>(random() % 201) - 100) /
                                      (std::is_integral_v<T> ? 1.0F : 7.0F)));
    }
  }
  return buffers;
}

template <typename T>
std::vector<T> model_sum(const Buffers<T>& buffers, const std::vector<int>& group) {
  std::vector<T> result;
  for (std::size_t i = 0; i < buffers[0].size(); ++i) {
    auto sum = static_cast<typename Arithmetic<T>::Sum>(buffers[static_cast<std::size_t>(group[0])][i]);
    for (std::size_t k = 1; k < group.size(); ++k) {
      sum += static_cast<typename Arithmetic<T>::Sum>(buffers[static_cast<std::size_t>(group[k])][i]);
    }
    result.push_back(group.size() == 1 ? buffers[static_cast<std::size_t>(group[0])][i] : static_cast<T>(sum));
  }
  return result;
}

// One instruction for one group of ranks.
template <typename T>
void model_step(const Instruction& one, const std::vector<int>& group, Buffers<T>& buffers) {
  const int size = static_cast<int>(group.size());
  const auto of = [&](int index) -> std::vector<T>& {
    return buffers[static_cast<std::size_t>(group[static_cast<std::size_t>(index % size)])];
  };
  const Buffers<T> before = buffers;
  const auto was = [&](int index) -> const std::vector<T>& {
    return before[static_cast<std::size_t>(group[static_cast<std::size_t>(index % size)])];
  };
  const std::size_t share = before[0].size() / static_cast<std::size_t>(size);
  switch (one.kind) {
    case Kind::kAllReduce:
    case Kind::kReduceScatter: {
      const std::vector<T> sum = model_sum(before, group);
      for (int i = 0; i < size; ++i) {
        const std::size_t begin = one.kind == Kind::kAllReduce ? 0 : share * static_cast<std::size_t>(i);
        const std::size_t end = one.kind == Kind::kAllReduce ? sum.size() : begin + share;
        std::copy(sum.begin() + static_cast<std::ptrdiff_t>(begin), sum.begin() + static_cast<std::ptrdiff_t>(end),
                  of(i).begin());
      }
      break;
    }
    case Kind::kGatherScatter:  // everyone's first share, then the buffer's rest as it was
      for (int i = 0; i < size; ++i) {
        for (int k = 0; k < size; ++k) {
          std::copy_n(was(k).begin(), share, of(i).begin() + static_cast<std::ptrdiff_t>(share) * k);
        }
      }
      break;
    case Kind::kBroadcast:
      for (int i = 0; i < size; ++i) {
        of(i) = was(one.number);
      }
      break;
    case Kind::kShift:
      for (int i = 0; i < size; ++i) {
        of(i + one.number) = was(i);
      }
      break;
    case Kind::kSwapTwo:
      of(one.number) = was(one.number + 1);
      of(one.number + 1) = was(one.number);
      break;
    case Kind::kBarrier:
    case Kind::kSplit:
    case Kind::kLeave:
      break;
  }
}

template <typename T>
Buffers<T> run_model(const Program& program, Buffers<T> buffers) {
  std::vector<std::vector<std::vector<int>>> levels(1);  // the groups of each depth
  for (int rank = 0; rank < program.ranks; ++rank) {
    levels[0].resize(1);
    levels[0][0].push_back(rank);
  }
  for (const Instruction& one : program.instructions) {
    if (one.kind == Kind::kSplit) {
      std::vector<std::vector<int>> parts;
      for (const std::vector<int>& group : levels.back()) {
        std::map<int, std::vector<int>> by_colour;
        for (const int rank : group) {
          by_colour[one.colours[static_cast<std::size_t>(rank)]].push_back(rank);
        }
        for (const auto& [colour, ranks] : by_colour) {
          parts.push_back(ranks);
        }
      }
      levels.push_back(parts);
    } else if (one.kind == Kind::kLeave) {
      levels.pop_back();
    } else {
      for (const std::vector<int>& group : levels.back()) {
        model_step(one, group, buffers);
      }
    }
  }
  return buffers;
}

// One instruction on a real communicator.  60 elements divide by every size from 1 to 5, so that shares are whole.
void real_step(const Instruction& one, Communicator& comm, const Tensor& buffer, HostTensors& tensors) {
  const std::int64_t share = buffer.rows() / comm.size();
  const Tensor shares = buffer.row_range(0, share * comm.size());
  switch (one.kind) {
    case Kind::kAllReduce:
      return comm.all_reduce_sum(buffer);
    case Kind::kReduceScatter: {
      const Tensor out = tensors.empty(buffer.dtype(), {share});
      comm.reduce_scatter_sum(out, shares);
      return copy_from_host(buffer.row_range(0, share), test::bytes_of(out));
    }
    case Kind::kGatherScatter: {
      const Tensor in = tensors.empty(buffer.dtype(), {share});
      copy_from_host(in, test::bytes_of(buffer.row_range(0, share)));
      return comm.all_gather(shares, in);
    }
    case Kind::kBroadcast:
      return comm.broadcast(buffer, one.number % comm.size());
    case Kind::kShift:
      comm.send(buffer, (comm.rank() + one.number) % comm.size());
      return comm.receive(buffer, (comm.rank() + comm.size() - one.number % comm.size()) % comm.size());
    case Kind::kSwapTwo: {
      const int first = one.number % comm.size();
      const int second = (one.number + 1) % comm.size();
      if (comm.rank() == first || comm.rank() == second) {
        comm.send(buffer, comm.rank() == first ? second : first);
        comm.receive(buffer, comm.rank() == first ? second : first);
      }
      return;
    }
    default:
      return comm.barrier();
  }
}

template <typename T>
void run_program(DType dtype, const Program& program, unsigned seed) {
  HostTensors tensors;
  const Buffers<T> first = first_buffers<T>(program, seed);
  const Buffers<T> expected = run_model(program, first);
  std::vector<std::vector<LedgerEntry>> ledgers(first.size());
  run_threads(program.ranks, [&](Communicator& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    const Tensor buffer = tensors.empty(dtype, {program.elements});
    copy_from_host(buffer, std::as_bytes(std::span(first[rank])));
    std::vector<std::unique_ptr<Communicator>> levels;
    for (const Instruction& one : program.instructions) {
      Communicator& comm = levels.empty() ? world : *levels.back();
      if (one.kind == Kind::kSplit) {
        levels.push_back(comm.split(one.colours[rank]));
      } else if (one.kind == Kind::kLeave) {
        levels.pop_back();
      } else {
        real_step(one, comm, buffer, tensors);
      }
    }
    const auto wanted = std::as_bytes(std::span(expected[rank]));
    EXPECT_EQ(test::bytes_of(buffer), std::vector<std::byte>(wanted.begin(), wanted.end())) << "rank " << rank;
    for (const LedgerEntry& entry : world.ledger()) {
      if (entry.op.find("send") != 0 && entry.op.find("receive") != 0) {
        ledgers[rank].push_back({static_cast<std::int64_t>(ledgers[rank].size()), entry.op, entry.dtype, entry.bytes});
      }
    }
  });
  for (const std::vector<LedgerEntry>& ledger : ledgers) {
    EXPECT_EQ(ledger, ledgers[0]);
  }
}

TEST(RandomPrograms, GiveTheModelsBits) {
  std::mt19937 random(20240229);
  for (unsigned seed = 0; seed < 1000; ++seed) {
    SCOPED_TRACE(seed);
    const Program program = make_program(random);
    switch (seed % 5) {
      case 0:
        run_program<double>(DType::kF64, program, seed);
        break;
      case 1:
        run_program<float>(DType::kF32, program, seed);
        break;
      case 2:
        run_program<BFloat16>(DType::kBF16, program, seed);
        break;
      case 3:
        run_program<Float16>(DType::kF16, program, seed);
        break;
      default:
        run_program<std::int64_t>(DType::kI64, program, seed);
        break;
    }
    if (HasFailure()) {
      return;
    }
  }
}

}  // namespace
}  // namespace caravan::comm
