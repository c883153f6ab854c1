// AdamW over a store's parameters, and gradient clipping by the global norm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/autograd/parameter.h"
#include "caravan/ops/adamw.h"
#include "caravan/ops/context.h"

namespace caravan::optim {

// Which parameters the weight decay applies to.
enum class DecayScope {
  kAll,       // norms, biases and embeddings too, as torchtitan does
  kMatrices,  // matrices and embeddings alone
};

struct AdamWConfig {
  double lr = 8e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  DecayScope decay_scope = DecayScope::kAll;

  bool operator==(const AdamWConfig&) const = default;
};

// Throws ConfigError naming the field when a number is impossible.
void validate(const AdamWConfig& config);

// sum[0] += the square of the L2 norm over all gradients of the store but replicas, summed in f64 in the order of the
// parameters: the same bits for every thread count.  Ranks that hold parts of the gradients add their squares.
// sum: [1] f64.
void add_squared_gradients(ops::Context& ctx, const Tensor& sum, const autograd::WeightStore& store);
// The same sum, read by the host.  0 on the meta device.
double squared_gradient_norm(ops::Context& ctx, const autograd::WeightStore& store);

// First and second moments of every parameter with a gradient, in Segment::kOptimizer.
class Optimizer {
 public:
  Optimizer(ops::Context& ctx, autograd::WeightStore& store, const AdamWConfig& config);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One step: masters, moments and compute views are written, gradients are read and left.  lr_factor multiplies the
  // config's lr, gradient_scale the gradients (the clipping coefficient).
  void step(ops::Context& ctx, double lr_factor = 1.0, double gradient_scale = 1.0);
  // The same with the learning rate and the scale of a step's record (ops/step_record.h), where it says that the step is
  // applied; steps() counts on when the host has heard of it and says so by resume().
  void step(ops::Context& ctx, const Tensor& record);

  // Steps done so far.
  std::int64_t steps() const { return steps_; }
  // Goes on after that many steps, those of a checkpoint whose moments were written into moments().
  void resume(std::int64_t steps) { steps_ = steps; }

  struct Moments {
    autograd::Parameter* parameter;
    Tensor first;
    Tensor second;
  };
  // In the order of the parameters.
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  // With the record when it is defined.
  void move(ops::Context& ctx, ops::AdamW settings, const Tensor& record);

  autograd::WeightStore& store_;
  AdamWConfig config_;
  std::vector<Moments> moments_;
  std::int64_t steps_ = 0;
};

}  // namespace caravan::optim
