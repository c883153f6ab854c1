#include "caravan/model_io/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using checkpoint::SafetensorsFile;
using checkpoint::TensorEntry;

constexpr std::int64_t kBlock = std::int64_t{1} << 16;  // elements widened at a time

bool is_integer(DType dtype) {
  return dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kU8;
}

// Widens elements [begin, begin + out.size()) of an entry.
void widen(std::vector<double>& out, const SafetensorsFile& file, const TensorEntry& entry, std::int64_t begin) {
  const DType dtype = *entry.dtype;
  const std::byte* source = file.bytes(entry).data() + begin * size_of(dtype);
  if (!is_integer(dtype)) {
    convert_elements(DType::kF64, reinterpret_cast<std::byte*>(out.data()), dtype, source,
                     static_cast<std::int64_t>(out.size()));
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::byte* element = source + i * static_cast<std::size_t>(size_of(dtype));
    if (dtype == DType::kU8) {
      out[i] = static_cast<double>(std::to_integer<int>(*element));
      continue;
    }
    std::int64_t value = 0;
    std::int32_t narrow = 0;
    if (dtype == DType::kI64) {
      std::copy_n(element, sizeof value, reinterpret_cast<std::byte*>(&value));
    } else {
      std::copy_n(element, sizeof narrow, reinterpret_cast<std::byte*>(&narrow));
      value = narrow;
    }
    out[i] = static_cast<double>(value);
  }
}

double difference(double a, double b) {
  const bool same = a == b || (std::isnan(a) && std::isnan(b));
  if (same) {
    return 0.0;
  }
  const double gap = std::abs(a - b);
  return std::isnan(gap) ? std::numeric_limits<double>::infinity() : gap;
}

std::vector<std::int64_t> unravel(std::int64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> place(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    place[axis] = index % shape[axis];
    index /= shape[axis];
  }
  return place;
}

void measure(TensorDifference& result, const SafetensorsFile& a_file, const TensorEntry& a,
             const SafetensorsFile& b_file, const TensorEntry& b) {
  std::int64_t count = 1;
  for (const std::int64_t extent : a.shape) {
    count *= extent;
  }
  double scale = 0.0;
  std::int64_t worst = -1;
  std::vector<double> a_values;
  std::vector<double> b_values;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const auto size = static_cast<std::size_t>(std::min(kBlock, count - begin));
    a_values.resize(size);
    b_values.resize(size);
    widen(a_values, a_file, a, begin);
    widen(b_values, b_file, b, begin);
    for (std::size_t i = 0; i < size; ++i) {
      if (std::isfinite(b_values[i])) {
        scale = std::max(scale, std::abs(b_values[i]));
      }
      result.both_nan += std::isnan(a_values[i]) && std::isnan(b_values[i]) ? 1 : 0;
      const double error = difference(a_values[i], b_values[i]);
      if (worst < 0 || error > result.max_error) {
        worst = begin + static_cast<std::int64_t>(i);
        result.max_error = error;
        result.a = a_values[i];
        result.b = b_values[i];
      }
    }
  }
  if (worst >= 0) {
    result.where = unravel(worst, a.shape);
  }
  if (result.max_error > 0.0) {
    result.relative_error = scale > 0.0 ? result.max_error / scale : std::numeric_limits<double>::infinity();
  }
}

TensorDifference compare_one(const std::string& name, const SafetensorsFile& a_file, const SafetensorsFile& b_file,
                             double tolerance) {
  TensorDifference result;
  result.name = name;
  const TensorEntry* a = a_file.find(name);
  const TensorEntry* b = b_file.find(name);
  const auto comparable = [](const TensorEntry& entry) {
    return entry.dtype && (is_compute_float(*entry.dtype) || is_integer(*entry.dtype));
  };
  if (a == nullptr || b == nullptr) {
    result.problem = fmt::format("missing in {}", (a == nullptr ? a_file : b_file).path().string());
  } else if (a->shape != b->shape) {
    const auto text = [](const TensorEntry& entry) {
      std::string shape;
      for (const std::int64_t extent : entry.shape) {
        shape += fmt::format("{}{}", shape.empty() ? "" : ", ", extent);
      }
      return shape;
    };
    result.problem = fmt::format("shapes differ: [{}] and [{}]", text(*a), text(*b));
  } else if (!comparable(*a) || !comparable(*b)) {
    result.problem = fmt::format("types {} and {} cannot be compared", a->dtype_name, b->dtype_name);
  } else {
    measure(result, a_file, *a, b_file, *b);
  }
  result.within = result.problem.empty() && result.relative_error <= tolerance;
  return result;
}

// (sequence, kind, layer) of hidden.<s>.<l> and logits.<s>; everything else comes after them.
std::tuple<std::int64_t, int, std::int64_t, std::string> order_key(const std::string& name) {
  const auto number = [&](std::size_t begin, std::size_t end) -> std::int64_t {
    const std::string digits = name.substr(begin, end - begin);
    constexpr std::size_t kMostDigits = 15;
    const bool plain =
        !digits.empty() && digits.size() <= kMostDigits && digits.find_first_not_of("0123456789") == std::string::npos;
    return plain ? std::stoll(digits) : -1;
  };
  constexpr std::int64_t kAfterAll = std::numeric_limits<std::int64_t>::max();
  const std::string hidden = "hidden.";
  const std::string logits = "logits.";
  if (name.starts_with(hidden)) {
    const std::size_t dot = name.find('.', hidden.size());
    if (dot != std::string::npos) {
      const std::int64_t sequence = number(hidden.size(), dot);
      const std::int64_t layer = number(dot + 1, name.size());
      if (sequence >= 0 && layer >= 0) {
        return {sequence, 0, layer, name};
      }
    }
  }
  if (name.starts_with(logits) && number(logits.size(), name.size()) >= 0) {
    return {number(logits.size(), name.size()), 1, 0, name};
  }
  return {kAfterAll, 2, 0, name};
}

}  // namespace

bool computed_before(const std::string& name, const std::string& other) {
  return order_key(name) < order_key(other);
}

Comparison compare(const std::filesystem::path& a_path, const std::filesystem::path& b_path, double tolerance) {
  const SafetensorsFile a = SafetensorsFile::open(a_path);
  const SafetensorsFile b = SafetensorsFile::open(b_path);
  std::set<std::string> unique;
  for (const SafetensorsFile* file : {&a, &b}) {
    for (const TensorEntry& entry : file->header().entries) {
      unique.insert(entry.name);
    }
  }
  if (unique.empty()) {
    throw InputError(
        fmt::format("{} and {} hold no tensor, so there is nothing to compare", a_path.string(), b_path.string()));
  }
  std::vector<std::string> names(unique.begin(), unique.end());
  std::ranges::sort(names, computed_before);

  Comparison result;
  for (const std::string& name : names) {
    result.tensors.push_back(compare_one(name, a, b, tolerance));
    if (!result.tensors.back().within && result.first_difference < 0) {
      result.first_difference = static_cast<std::int64_t>(result.tensors.size()) - 1;
    }
  }
  return result;
}

}  // namespace caravan::model_io
