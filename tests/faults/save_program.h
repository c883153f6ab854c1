// What save_program.cc saves, so that its tests know it again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "caravan/checkpoint/training_checkpoint.h"

namespace caravan::test {

inline constexpr int kLastStep = 4;
inline constexpr int kKeepLatest = 2;

// Whole numbers that tell step, generation (which run of the program) and position.
inline std::vector<float> values_of(std::int64_t step, std::int64_t generation, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(step * 100'000 + generation * 10'000 + static_cast<std::int64_t>(i));
  }
  return values;
}

inline Tensor tensor_of(std::vector<float> numbers, const Shape& shape) {
  auto values = std::make_shared<std::vector<float>>(std::move(numbers));
  auto* data = reinterpret_cast<std::byte*>(values->data());
  return Tensor(DType::kF32, shape, Device{}, data, std::move(values));
}

inline std::vector<checkpoint::NamedTensor> tensors_of(std::int64_t step, std::int64_t generation) {
  return {{"weight", tensor_of(values_of(step, generation, 640), {40, 16})},
          {"bias", tensor_of(values_of(step, generation, 7), {7})},
          {"moment", tensor_of(values_of(step, generation, 640), {40, 16})}};
}

// What open_newest() tells of a step that a killed save left without its COMPLETE: worth a word, and no damage.
inline bool tells_of_a_save_cut_off(const std::string& warning) {
  return warning.find("has no COMPLETE: a save that was cut off") != std::string::npos;
}

}  // namespace caravan::test
