#include "caravan/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"
#include "caravan/tensor/copy.h"

namespace caravan::optim {

namespace {

void require(bool holds, const char* field, double value, const char* expected) {
  if (!holds) {
    throw ConfigError(fmt::format("optimizer: {} must be {}, found {}", field, expected, value));
  }
}

double decay_of(const AdamWConfig& config, DecayGroup group) {
  const bool decays =
      config.decay_scope == DecayScope::kAll || group == DecayGroup::kMatrix || group == DecayGroup::kEmbedding;
  return decays ? config.weight_decay : 0.0;
}

}  // namespace

void validate(const AdamWConfig& config) {
  require(std::isfinite(config.lr) && config.lr >= 0.0, "lr", config.lr, "a number of at least 0");
  require(config.beta1 >= 0.0 && config.beta1 < 1.0, "beta1", config.beta1, "at least 0 and below 1");
  require(config.beta2 >= 0.0 && config.beta2 < 1.0, "beta2", config.beta2, "at least 0 and below 1");
  require(std::isfinite(config.eps) && config.eps >= 0.0, "eps", config.eps, "a number of at least 0");
  require(std::isfinite(config.weight_decay) && config.weight_decay >= 0.0, "weight_decay", config.weight_decay,
          "a number of at least 0");
}

void add_squared_gradients(ops::Context& ctx, const Tensor& sum, const autograd::WeightStore& store) {
  for (const autograd::Parameter& parameter : store.parameters()) {
    if (parameter.gradient.defined() && !parameter.spec.replica) {
      ops::add_sum_of_squares(ctx, sum, parameter.gradient);
    }
  }
}

double squared_gradient_norm(ops::Context& ctx, const autograd::WeightStore& store) {
  const Tensor sum = ctx.allocate(DType::kF64, {1}, Segment::kWorkspace);
  ops::zero(ctx, sum);
  add_squared_gradients(ctx, sum, store);
  return ctx.dry_run() ? 0.0 : to_doubles(sum).front();
}

Optimizer::Optimizer(ops::Context& ctx, autograd::WeightStore& store, const AdamWConfig& config)
    : store_(store), config_(config) {
  validate(config_);
  for (autograd::Parameter& parameter : store.parameters()) {
    if (!parameter.gradient.defined() || !parameter.master.defined()) {
      continue;
    }
    const auto zeros = [&] {
      const Tensor moment = ctx.allocate(parameter.master.dtype(), parameter.spec.shape, Segment::kOptimizer);
      ops::zero(ctx, moment);
      return moment;
    };
    moments_.push_back({&parameter, zeros(), zeros()});
  }
}

void Optimizer::step(ops::Context& ctx, double lr_factor, double gradient_scale) {
  ++steps_;
  ops::AdamW settings;
  settings.lr = config_.lr * lr_factor;
  settings.step = steps_;
  settings.gradient_scale = gradient_scale;
  move(ctx, settings, {});
}

void Optimizer::step(ops::Context& ctx, const Tensor& record) {
  move(ctx, {}, record);
}

void Optimizer::move(ops::Context& ctx, ops::AdamW settings, const Tensor& record) {
  settings.beta1 = config_.beta1;
  settings.beta2 = config_.beta2;
  settings.eps = config_.eps;
  for (const Moments& one : moments_) {
    settings.weight_decay = decay_of(config_, one.parameter->spec.decay);
    if (record.defined()) {
      ops::adamw(ctx, one.parameter->master, one.first, one.second, one.parameter->gradient, settings, record);
    } else {
      ops::adamw(ctx, one.parameter->master, one.first, one.second, one.parameter->gradient, settings);
    }
  }
  store_.masters_changed(ctx);
}

}  // namespace caravan::optim
