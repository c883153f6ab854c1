#include "caravan/autograd/parameter.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/random.h"
#include "caravan/tensor/copy.h"

namespace caravan::autograd {

namespace {

// A matrix that nothing but products reads: the embedding is gathered from too, and a head shares its storage.
bool only_products_read(const ParamSpec& spec) {
  return spec.decay == DecayGroup::kMatrix && spec.shape.rank() == 2 && spec.name != "lm_head.weight";
}

void check_given(const ParamSpec& spec, const ops::Weight& weight, DType dtype) {
  if (!(weight.shape() == spec.shape) || weight.dtype() != dtype) {
    throw ShapeError(fmt::format("weight store: parameter \"{}\" is {} {}, a weight of {} {} was given for it",
                                 spec.name, to_string(dtype), to_string(spec.shape), to_string(weight.dtype()),
                                 to_string(weight.shape())));
  }
}

}  // namespace

WeightStore::WeightStore(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype,
                         const std::map<std::string, ops::Weight>& given)
    : WeightStore(ctx, specs, dtype, /*training=*/false, given) {}

WeightStore::WeightStore(ops::Context& ctx, const std::vector<ParamSpec>& specs, DType dtype, bool training,
                         const std::map<std::string, ops::Weight>& given)
    : specs_(specs), dtype_(dtype) {
  const DType master_dtype = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  for (const ParamSpec& spec : specs_) {
    if (!spec.alias_of.empty()) {
      continue;
    }
    if (by_name_.contains(spec.name)) {
      throw ShapeError(fmt::format("weight store: parameter \"{}\" stands twice in the table", spec.name));
    }
    Parameter parameter{spec, {}, {}, {}};
    if (training) {
      parameter.master = ctx.allocate(master_dtype, spec.shape, Segment::kWeights);
    }
    if (const auto found = given.find(spec.name); found != given.end()) {
      check_given(spec, found->second, dtype);
      parameter.weight = found->second;
    } else if (training && (dtype == master_dtype || only_products_read(spec))) {
      parameter.weight = ops::Weight::rounded(parameter.master, dtype);
    } else {
      parameter.weight = ops::Weight(ctx.allocate(dtype, spec.shape, Segment::kWeights));
    }
    parameters_.push_back(std::move(parameter));
    by_name_[spec.name] = &parameters_.back();
  }
  for (const ParamSpec& spec : specs_) {
    if (spec.alias_of.empty()) {
      continue;
    }
    Parameter* original = find(spec.alias_of);
    if (original == nullptr || by_name_.contains(spec.name)) {
      throw ShapeError(fmt::format("weight store: \"{}\" is an alias of \"{}\", which is not a parameter of its own",
                                   spec.name, spec.alias_of));
    }
    by_name_[spec.name] = original;
  }
}

std::unique_ptr<WeightStore> WeightStore::for_training(ops::Context& ctx, const std::vector<ParamSpec>& specs,
                                                       DType dtype) {
  return std::unique_ptr<WeightStore>(new WeightStore(ctx, specs, dtype, /*training=*/true, {}));
}

void WeightStore::allocate_gradients(ops::Context& ctx, std::int64_t bucket_bytes) {
  const DType dtype = dtype_ == DType::kF64 ? DType::kF64 : DType::kF32;
  constexpr std::int64_t kAlignedElements = 16;  // of any dtype: a cache line or two
  buckets_.clear();
  std::vector<Parameter*> members;
  std::int64_t elements = 0;
  const auto padded = [](std::int64_t count) {
    return (count + kAlignedElements - 1) / kAlignedElements * kAlignedElements;
  };
  const auto close = [&] {
    if (members.empty()) {
      return;
    }
    GradientBucket bucket{ctx.allocate(dtype, {elements}, Segment::kGradients), members.back()->spec.unit};
    std::int64_t begin = 0;
    for (Parameter* member : members) {
      const std::int64_t count = member->spec.shape.elements();
      member->gradient = bucket.flat.row_range(begin, begin + count).reshape(member->spec.shape);
      bucket.lowest_unit = std::min(bucket.lowest_unit, member->spec.unit);
      begin += padded(count);
    }
    buckets_.push_back(bucket);
    members.clear();
    elements = 0;
  };
  for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
    if (parameter->spec.trainable) {
      members.push_back(&*parameter);
      elements += padded(parameter->spec.shape.elements());
      if (elements * size_of(dtype) >= bucket_bytes) {
        close();
      }
    }
  }
  close();
  zero_gradients(ctx);
}

void WeightStore::zero_gradients(ops::Context& ctx) {
  for (const GradientBucket& bucket : buckets_) {
    ops::zero(ctx, bucket.flat);
  }
}

void WeightStore::masters_changed(ops::Context& ctx) {
  for (Parameter& parameter : parameters_) {
    if (parameter.has_view_of_its_own()) {
      ops::convert(ctx, parameter.tensor(), parameter.master);
    }
    parameter.weight.changed();
  }
}

void WeightStore::release_packed(int unit, ops::WeightUse use) {
  for (const Parameter& parameter : parameters_) {
    if (parameter.spec.unit == unit) {
      parameter.weight.release(use);
    }
  }
}

void WeightStore::release_packed() {
  for (const Parameter& parameter : parameters_) {
    parameter.weight.release(ops::WeightUse::kBoth);
  }
}

Parameter& WeightStore::at(const std::string& name) {
  Parameter* parameter = find(name);
  if (parameter == nullptr) {
    throw ShapeError(fmt::format("weight store: there is no parameter \"{}\"", name));
  }
  return *parameter;
}

Parameter* WeightStore::find(const std::string& name) {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

Tensor part_rows(const Tensor& whole, const ParamPart& part) {
  return whole.row_range(part.row_begin, part.row_begin + part.shape[0]);
}

namespace {

void initialize_part(ops::Context& ctx, const Tensor& whole, const ParamPart& part, const Init& init,
                     std::uint64_t seed) {
  const Tensor rows = part_rows(whole, part);
  if (init.kind == InitKind::kNormal) {
    ops::random_normal(ctx, rows, RandomStream(seed, part.name), 0, init.deviation);
    return;
  }
  const float value = init.kind == InitKind::kOnes ? 1.0F : 0.0F;
  const std::vector<float> values(static_cast<std::size_t>(rows.elements()), value);
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows.bytes()));
  convert_elements(rows.dtype(), bytes.data(), DType::kF32, std::as_bytes(std::span(values)).data(), rows.elements());
  copy_from_host(rows, bytes);
}

}  // namespace

void initialize(ops::Context& ctx, WeightStore& store, std::uint64_t seed) {
  for (Parameter& parameter : store.parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      initialize_part(ctx, parameter.stored(), part, parameter.spec.init, seed);
      if (parameter.has_view_of_its_own()) {
        initialize_part(ctx, parameter.tensor(), part, parameter.spec.init, seed);
      }
    }
    parameter.weight.changed();
  }
}

}  // namespace caravan::autograd
