// Copies to and from a CUDA device, real or emulated.  Built where there is CUDA.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "caravan/tensor/copy.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan {
namespace {

class CudaCopy : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string refusal = cuda_memory::refusal(0); !refusal.empty()) {
      GTEST_SKIP() << refusal;
    }
    allocator_ = Allocator::cuda(0, std::int64_t{1} << 28);
  }

  Tensor bytes(const Shape& shape) { return allocator_->allocate(DType::kU8, shape, Segment::kWorkspace); }

  std::shared_ptr<Allocator> allocator_;
};

std::vector<std::byte> pattern(std::int64_t bytes, unsigned seed) {
  std::vector<std::byte> result(static_cast<std::size_t>(bytes));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = static_cast<std::byte>((i * 131 + i / 251 + seed) & 0xffU);
  }
  return result;
}

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> result(static_cast<std::size_t>(tensor.bytes()));
  copy_to_host(result, tensor);
  return result;
}

// Sources change as soon as a call returns; sizes around the pieces of pinned memory and beyond all of it.
TEST_F(CudaCopy, AnyNumberOfBytesArrivesThoughTheSourceChanges) {
  constexpr std::int64_t kPiece = 512 * 1024;
  const std::vector<std::int64_t> sizes{1, 63, kPiece - 1, kPiece, kPiece + 1, 8 * kPiece, 11 * kPiece + 5, 3};
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::byte> source = pattern(sizes[i], static_cast<unsigned>(i));
    copy_from_host(tensors.emplace_back(bytes({sizes[i]})), source);
    std::fill(source.begin(), source.end(), std::byte{0xee});
  }
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_TRUE(bytes_of(tensors[i]) == pattern(sizes[i], static_cast<unsigned>(i))) << sizes[i] << " bytes";
  }
}

TEST_F(CudaCopy, ManySmallOnesArriveEachWhereItShould) {
  std::vector<Tensor> tensors;
  for (unsigned i = 0; i < 3000; ++i) {
    const std::int64_t size = 1 + (i * 977) % 4000;
    copy_from_host(tensors.emplace_back(bytes({size})), pattern(size, i));
  }
  for (unsigned i = 0; i < tensors.size(); ++i) {
    ASSERT_TRUE(bytes_of(tensors[i]) == pattern(tensors[i].bytes(), i)) << i;
  }
}

TEST_F(CudaCopy, ColumnRangesArriveAndTheRestIsLeft) {
  for (const auto& [rows, columns] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{3, 5}, {1, 7}, {5000, 300}, {3, 600'000}, {2, 512 * 1024}}) {
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns));
    const Tensor whole = bytes({rows, columns + 9});
    copy_from_host(whole, std::vector<std::byte>(static_cast<std::size_t>(whole.bytes()), std::byte{0x11}));
    const Tensor part = whole.column_range(4, 4 + columns);
    copy_from_host(part, pattern(rows * columns, 3));
    EXPECT_TRUE(bytes_of(part) == pattern(rows * columns, 3));
    const std::vector<std::byte> all = bytes_of(whole);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns + 9; ++column) {
        if (column < 4 || column >= 4 + columns) {
          ASSERT_EQ(all[static_cast<std::size_t>(row * (columns + 9) + column)], std::byte{0x11});
        }
      }
    }
  }
}

TEST_F(CudaCopy, ThreadsHaveStagingOfTheirOwn) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (unsigned i = 0; i < 50; ++i) {
        const Tensor tensor = bytes({100'000});
        copy_from_host(tensor, pattern(100'000, 50 * t + i));
        EXPECT_TRUE(bytes_of(tensor) == pattern(100'000, 50 * t + i));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace caravan
