// Two dumps side by side.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace caravan::model_io {

// One name that stands in either file.
struct TensorDifference {
  std::string name;
  std::string problem;              // empty, or why the two cannot be compared: missing on one side, unlike shapes
  std::int64_t both_nan = 0;        // elements that are NaN on both sides: equal, and worth a warning
  double max_error = 0.0;           // max |a - b|
  double relative_error = 0.0;      // max |a - b| / max |b|: error over the second file's scale
  std::vector<std::int64_t> where;  // index of the largest error
  double a = 0.0;                   // the two values there
  double b = 0.0;
  bool within = true;
};

struct Comparison {
  std::vector<TensorDifference>
      tensors;  // in the order of the computation: sequence by sequence, layer by layer, then logits,
                // losses, gradients
  std::int64_t first_difference = -1;  // index into tensors, or -1 when all are within tolerance
};

// Compares by relative_error.  A NaN on one side only, infinities that differ, a missing tensor or an unlike shape are
// beyond any tolerance.  Throws InputError when neither file holds a tensor, and what opening the files throws.
Comparison compare(const std::filesystem::path& a, const std::filesystem::path& b, double tolerance);

// Whether `name` stands before `other` in the order of the computation.
bool computed_before(const std::string& name, const std::string& other);

}  // namespace caravan::model_io
