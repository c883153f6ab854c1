#include "caravan/tensor/tensor.h"

#include <gtest/gtest.h>

#include <array>

#include "caravan/base/error.h"

namespace caravan {
namespace {

class TensorTest : public testing::Test {
 protected:
  Tensor tensor(const Shape& shape, std::int64_t row_stride = 0) {
    return Tensor(DType::kBF16, shape, Device{}, bytes_.data(), nullptr, row_stride);
  }
  std::int64_t offset(const Tensor& view) const { return view.address() - bytes_.data(); }

  std::array<std::byte, 4096> bytes_{};
};

TEST_F(TensorTest, ADefaultTensorIsUndefined) {
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(to_string(Tensor()), "an undefined tensor");
  EXPECT_THROW(Tensor().row_range(0, 0), ShapeError);
  EXPECT_THROW(Tensor().column_range(0, 0), ShapeError);
  EXPECT_THROW(Tensor().reshape({1}), ShapeError);
}

TEST_F(TensorTest, DescribesItself) {
  const Tensor t = tensor({4, 3, 2});
  EXPECT_TRUE(t.defined());
  EXPECT_EQ(t.rows(), 4);
  EXPECT_EQ(t.columns(), 6);
  EXPECT_EQ(t.elements(), 24);
  EXPECT_EQ(t.bytes(), 48);
  EXPECT_EQ(t.row_stride(), 6);
  EXPECT_TRUE(t.contiguous());
  EXPECT_EQ(to_string(t), "bf16 [4, 3, 2] on host");
}

TEST_F(TensorTest, ARankZeroTensorIsOneRowOfOneElement) {
  const Tensor t = tensor(Shape());
  EXPECT_EQ(t.rows(), 1);
  EXPECT_EQ(t.columns(), 1);
  EXPECT_TRUE(t.contiguous());
  EXPECT_THROW(t.row_range(0, 1), ShapeError);
  EXPECT_EQ(t.reshape({1, 1}).shape(), Shape({1, 1}));
}

TEST_F(TensorTest, AStrideMayNotBeNarrowerThanARow) {
  EXPECT_EQ(tensor({4, 6}, 8).row_stride(), 8);
  EXPECT_FALSE(tensor({4, 6}, 8).contiguous());
  EXPECT_TRUE(tensor({1, 6}, 8).contiguous());
  EXPECT_TRUE(tensor({0, 6}, 8).contiguous());
  EXPECT_THROW(tensor({4, 6}, 5), ShapeError);
  EXPECT_THROW(tensor({4, 6}, -6), ShapeError);
}

TEST_F(TensorTest, RefusesMemoryThatCannotBe) {
  EXPECT_THROW(Tensor(DType::kF32, {2}, Device{}, nullptr, nullptr), ShapeError);
  EXPECT_NO_THROW(Tensor(DType::kF32, {0, 7}, Device{}, nullptr, nullptr));
  EXPECT_THROW(Tensor(DType::kF64, {std::int64_t{1} << 61}, Device{}, bytes_.data(), nullptr), ShapeError);
  EXPECT_THROW(tensor({1 << 20, 1}, std::int64_t{1} << 50), ShapeError);
}

TEST_F(TensorTest, RowRangeIsAWindowOnRows) {
  const Tensor t = tensor({5, 3, 2}, 10);
  const Tensor view = t.row_range(2, 4);
  EXPECT_EQ(view.shape(), Shape({2, 3, 2}));
  EXPECT_EQ(view.row_stride(), 10);
  EXPECT_EQ(offset(view), 2 * 10 * 2);
  EXPECT_EQ(offset(view.row_range(1, 2)), 3 * 10 * 2);
  EXPECT_EQ(t.row_range(5, 5).elements(), 0);
  EXPECT_EQ(t.row_range(0, 5).shape(), t.shape());
  EXPECT_THROW(t.row_range(-1, 2), ShapeError);
  EXPECT_THROW(t.row_range(3, 2), ShapeError);
  EXPECT_THROW(t.row_range(0, 6), ShapeError);
  EXPECT_EQ(tensor({5}).row_range(1, 3).shape(), Shape({2}));
}

TEST_F(TensorTest, ColumnRangeKeepsTheStride) {
  const Tensor t = tensor({5, 12});
  const Tensor view = t.column_range(4, 8);
  EXPECT_EQ(view.shape(), Shape({5, 4}));
  EXPECT_EQ(view.row_stride(), 12);
  EXPECT_EQ(offset(view), 4 * 2);
  EXPECT_FALSE(view.contiguous());
  EXPECT_EQ(offset(view.row_range(2, 3).column_range(1, 2)), (2 * 12 + 5) * 2);
  EXPECT_EQ(t.column_range(12, 12).elements(), 0);
  EXPECT_THROW(t.column_range(-1, 2), ShapeError);
  EXPECT_THROW(t.column_range(3, 2), ShapeError);
  EXPECT_THROW(t.column_range(0, 13), ShapeError);
  EXPECT_THROW(tensor({5, 3, 4}).column_range(0, 1), ShapeError);
  EXPECT_THROW(tensor({5}).column_range(0, 1), ShapeError);
}

TEST_F(TensorTest, ReshapeOfContiguousRowsIsFree) {
  const Tensor t = tensor({6, 4});
  EXPECT_EQ(t.reshape({3, 8}).row_stride(), 8);
  EXPECT_EQ(t.reshape({24}).shape(), Shape({24}));
  EXPECT_EQ(t.reshape({6, 2, 2}).row_stride(), 4);
  EXPECT_THROW(t.reshape({5, 5}), ShapeError);
  EXPECT_EQ(tensor({1, 6}, 8).reshape({6, 1}).row_stride(), 1);
}

TEST_F(TensorTest, ReshapeOfStridedRowsKeepsAxisZero) {
  const Tensor view = tensor({6, 12}).column_range(0, 8);
  const Tensor heads = view.reshape({6, 2, 4});
  EXPECT_EQ(heads.row_stride(), 12);
  EXPECT_EQ(heads.shape(), Shape({6, 2, 4}));
  EXPECT_EQ(heads.reshape({6, 8}).row_stride(), 12);
  EXPECT_THROW(view.reshape({12, 4}), ShapeError);
  EXPECT_THROW(view.reshape({48}), ShapeError);
}

TEST_F(TensorTest, ViewsShareTheOwner) {
  const auto owner = std::make_shared<int>(0);
  Tensor t(DType::kU8, {4, 4}, Device{}, bytes_.data(), owner);
  const Tensor view = t.row_range(1, 2).reshape({4});
  EXPECT_EQ(view.owner(), owner);
  t = Tensor();
  EXPECT_EQ(owner.use_count(), 2);
}

TEST_F(TensorTest, EmptyTensorsWithoutMemoryCanBeViewed) {
  const Tensor t(DType::kF32, {0, 8}, Device{}, nullptr, nullptr);
  EXPECT_EQ(t.column_range(4, 8).address(), nullptr);
  EXPECT_EQ(t.row_range(0, 0).reshape({0, 2, 4}).elements(), 0);
}

}  // namespace
}  // namespace caravan
