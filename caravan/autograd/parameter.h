// Parameters and the store that owns them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "caravan/layout/param_spec.h"
#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::autograd {

// A stored parameter: its row of the table, its elements in the dtype that the model computes in, and while training
// the master that the optimizer writes and the gradient.
struct Parameter {
  ParamSpec spec;
  ops::Weight weight;
  // f32 (f64 for f64 models); the compute view's own memory where the dtypes are equal; undefined: inference.
  Tensor master;
  // master's shape and dtype; undefined: not wanted.
  Tensor gradient;

  // What the model computes with; undefined for a matrix whose products round the master as they pack it, and for one
  // in blocks.
  const Tensor& tensor() const { return weight.plain(); }
  // Whether tensor() is memory besides the master, to be written when the master is.
  bool has_view_of_its_own() const {
    return master.defined() && weight.plain().defined() && master.dtype() != weight.dtype();
  }
  // What files hold: the master where there is one.
  const Tensor& stored() const { return master.defined() ? master : weight.plain(); }
};

// Gradients that are reduced over ranks in one call.
struct GradientBucket {
  Tensor flat;          // [elements], gaps for alignment included (they stay 0)
  int lowest_unit = 0;  // complete when this unit's backward is
};

// All parameters of one model (or one pipeline stage of it), by storage name.  Addresses of parameters are stable.
class WeightStore {
 public:
  // Allocates every spec that is no alias, in order, in Segment::kWeights.  Contents are unspecified until filled.
  // Those that `given` has by name take their weight from there.
  // Throws OutOfMemoryError; ShapeError when a name stands twice, an alias names nothing, or a given weight has another
  // shape or dtype.
  WeightStore(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype,
              const std::map<std::string, ops::Weight>& given = {});
  // The same with masters in f32 (f64 when `dtype` is f64), for training.  Where the dtypes differ, matrices of
  // DecayGroup::kMatrix that only products read have no compute view besides the packed forms.
  static std::unique_ptr<WeightStore> for_training(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype);
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // The parameter of that storage name, an alias followed.  Throws ShapeError when there is none.
  Parameter& at(const std::string& name);
  // The same, or nullptr.
  Parameter* find(const std::string& name);

  // Gives every trainable parameter a gradient of zeros, in Segment::kGradients.  Gradients lie side by side in buckets
  // of at least `bucket_bytes` (0: one parameter each), last units first: the order in which a backward completes them.
  void allocate_gradients(ops::Context& ctx, std::int64_t bucket_bytes = 0);
  const std::vector<GradientBucket>& gradient_buckets() const { return buckets_; }
  void zero_gradients(ops::Context& ctx);
  // The masters were written: compute views are made from them again, packed forms dropped.
  void masters_changed(ops::Context& ctx);
  // Packed forms of the unit's own matrices that only `use` reads are dropped: this pass was the last before the masters
  // change.  They would be packed anew then anyway; meanwhile their memory serves activations.
  void release_packed(int unit, ops::WeightUse use);
  // All packed forms are dropped.
  void release_packed();

  // Stored parameters in the order of the specs; aliases are not among them.
  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }
  // The whole table, aliases included.
  const std::vector<ParamSpec>& specs() const { return specs_; }
  DType dtype() const { return dtype_; }

 private:
  WeightStore(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype, bool training,
              const std::map<std::string, ops::Weight>& given);

  std::vector<ParamSpec> specs_;
  std::deque<Parameter> parameters_;
  std::map<std::string, Parameter*> by_name_;
  std::vector<GradientBucket> buckets_;
  DType dtype_;
};

// The rows of `whole` (a parameter's stored elements, its gradient, a moment) that hold a part.
Tensor part_rows(const Tensor& whole, const ParamPart& part);

// First values of every parameter from (seed, part name, element index): the same bits whatever the fusion, device or
// thread count.  Rounded to f32 and then to the store's dtype.
void initialize(ops::Context& ctx, WeightStore& store, std::uint64_t seed);

}  // namespace caravan::autograd
