#include "caravan/tensor/shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "caravan/base/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1} << 62;

std::string list(std::span<const std::int64_t> extents) {
  return fmt::format("[{}]", fmt::join(extents, ", "));
}

}  // namespace

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) {
  if (extents.size() > kMaxRank) {
    throw ShapeError(fmt::format("a shape has at most {} extents, found {}", kMaxRank, extents.size()));
  }
  // Zeros are left out of the product, so that the product of any of the extents is safe too.
  std::int64_t product = 1;
  for (const std::int64_t extent : extents) {
    if (extent < 0) {
      throw ShapeError(fmt::format("shape {}: an extent is negative", list(extents)));
    }
    if (extent > 0 && __builtin_mul_overflow(product, extent, &product)) {
      product = kMaxElements + 1;
    }
    if (product > kMaxElements) {
      throw ShapeError(fmt::format("shape {}: more than 2^62 elements", list(extents)));
    }
  }
  std::copy(extents.begin(), extents.end(), extents_.begin());
  rank_ = static_cast<int>(extents.size());
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents()) {
    product *= extent;
  }
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return std::ranges::equal(extents(), other.extents());
}

std::string to_string(const Shape& shape) {
  return list(shape.extents());
}

}  // namespace caravan
