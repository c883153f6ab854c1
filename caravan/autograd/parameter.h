// Parameters and the store that owns them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "caravan/layout/param_spec.h"
#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::autograd {

// A stored parameter: its row of the table and its elements, in the dtype that the model computes in.
struct Parameter {
  ParamSpec spec;
  ops::Weight weight;

  const Tensor& tensor() const { return weight.plain(); }
};

// All parameters of one model (or one pipeline stage of it), by storage name.  Addresses of parameters are stable.
class WeightStore {
 public:
  // Allocates every spec that is no alias, in order, in Segment::kWeights.  Contents are unspecified until filled.
  // Throws OutOfMemoryError; ShapeError when a name stands twice or an alias names nothing.
  WeightStore(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype);
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // The parameter of that storage name, an alias followed.  Throws ShapeError when there is none.
  Parameter& at(const std::string& name);
  // The same, or nullptr.
  Parameter* find(const std::string& name);

  // Stored parameters in the order of the specs; aliases are not among them.
  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }
  // The whole table, aliases included.
  const std::vector<ParamSpec>& specs() const { return specs_; }
  DType dtype() const { return dtype_; }

 private:
  std::vector<ParamSpec> specs_;
  std::deque<Parameter> parameters_;
  std::map<std::string, Parameter*> by_name_;
  DType dtype_;
};

// The rows of `parameter` that hold part `index` of its spec.
Tensor part_rows(const Parameter& parameter, std::size_t index);

// First values of every parameter from (seed, part name, element index): the same bits whatever the fusion, device or
// thread count.  Computed on the host in f32 and rounded to the store's dtype.
void initialize(WeightStore& store, std::uint64_t seed);

}  // namespace caravan::autograd
