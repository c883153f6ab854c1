// The tape under a whole model: halves apart, segments, accumulation, memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <string>
#include <thread>

#include "caravan/base/error.h"
#include "caravan/model/llama.h"
#include "caravan/model/presets.h"
#include "caravan/tensor/copy.h"
#include "tests/support/device.h"

namespace caravan::model {
namespace {

using autograd::CheckpointMode;
using autograd::SavePolicy;
using Ids = std::vector<std::int32_t>;
using Gradients = std::map<std::string, std::vector<double>>;

LlamaConfig config_with_contrast(bool tied = false) {
  LlamaConfig config = preset("tiny");
  config.initializer_range = 0.3;
  config.num_hidden_layers = 3;
  config.attention_bias = true;
  config.mlp_bias = true;
  config.tie_word_embeddings = tied;
  return config;
}

struct Batch {
  std::vector<std::int64_t> lengths;
  Ids ids, targets;
};

// Random-looking ids; the last target of a sequence, and every `ignored`-th one, counts for nothing.
Batch make_batch(const std::vector<std::int64_t>& lengths, int salt, int ignored) {
  Batch batch{lengths, {}, {}};
  for (const std::int64_t length : lengths) {
    for (std::int64_t i = 0; i < length; ++i) {
      batch.ids.push_back(static_cast<std::int32_t>((i * 37 + salt * 11 + i * i) % 131));
      const bool last = i + 1 == length;
      batch.targets.push_back(last || i % ignored == 0 ? ops::kIgnoredTarget
                                                       : static_cast<std::int32_t>((i * 53 + salt) % 131));
    }
  }
  return batch;
}

std::int64_t valid(const Batch& batch) {
  return std::ranges::count_if(batch.targets, [](std::int32_t t) { return t != ops::kIgnoredTarget; });
}

struct Trainee {
  ops::Context ops;
  std::unique_ptr<autograd::WeightStore> store;
  Llama llama;

  Trainee(const LlamaConfig& config, ops::Backend backend, DType dtype, bool dry_run = false, int threads = 1)
      : ops(ops::make_context({.backend = backend,
                               .dry_run = dry_run,
                               .threads = threads,
                               .memory_capacity = dry_run ? 0 : test::memory_capacity()})),
        store(autograd::WeightStore::for_training(ops, parameter_specs(config), dtype)),
        llama(config, *store) {
    if (!dry_run) {
      autograd::initialize(ops, *store, 7);
    }
    store->allocate_gradients(ops);
  }

  Tensor upload(const Ids& values) {
    const Tensor tensor = ops.allocate(DType::kI32, {static_cast<std::int64_t>(values.size())});
    copy_from_host(tensor, std::as_bytes(std::span(values)));
    return tensor;
  }

  // Forward over one micro-batch; returns the floating-point operations.
  void forward(autograd::Context& pass, const Batch& batch, double scale) {
    Value x{upload(batch.ids)};
    for (int unit = 0; unit < llama.units(); ++unit) {
      x = llama.forward_unit(pass, unit, x);
    }
    llama.token_losses(pass, x, upload(batch.targets), scale);
  }

  double run(const Batch& batch, double scale, const SavePolicy& policy = {}, bool split = false) {
    const SequenceLayout layout = pack(batch.lengths);
    autograd::Tape tape(ops);
    autograd::Context pass(ops, layout);
    pass.tape = &tape;
    pass.checkpointing = policy;
    forward(pass, batch, scale);
    if (split) {
      tape.backward_inputs(pass, {0, llama.units()});
      tape.backward_weights(pass, {0, llama.units()});
    } else {
      tape.backward(pass, {0, llama.units()});
    }
    return pass.flops;
  }

  Gradients gradients() {
    Gradients result;
    for (const autograd::Parameter& parameter : store->parameters()) {
      result[parameter.spec.name] = to_doubles(parameter.gradient);
    }
    return result;
  }
};

// Largest difference over the scale of each gradient.
double distance(const Gradients& a, const Gradients& b) {
  double worst = 0.0;
  for (const auto& [name, values] : a) {
    double scale = 0.0;
    double error = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      scale = std::max(scale, std::abs(values[i]));
      error = std::max(error, std::abs(values[i] - b.at(name)[i]));
    }
    EXPECT_GT(scale, 0.0) << name << " has no gradient";
    worst = std::max(worst, error / scale);
  }
  return worst;
}

const Batch kBatch = make_batch({19, 1, 40}, 3, 5);
const double kScale = 1.0 / 40.0;

// Every parameter, a few elements each: (L(w + h) - L(w - h)) / 2h in f64.
TEST(Training, GradientsAreTheLosssSlopes) {
  Trainee model(config_with_contrast(true), ops::Backend::kRef, DType::kF64);
  model.run(kBatch, kScale);
  const Gradients gradients = model.gradients();
  const SequenceLayout layout = pack(kBatch.lengths);
  const auto loss = [&] {
    autograd::Context pass(model.ops, layout);
    const Value hidden = model.llama.forward(pass, model.upload(kBatch.ids));
    double sum = 0.0;
    for (const double one : to_doubles(model.llama.token_losses(pass, hidden, model.upload(kBatch.targets)).tensor)) {
      sum += one;
    }
    return sum * kScale;
  };
  for (autograd::Parameter& parameter : model.store->parameters()) {
    std::vector<double> values = to_doubles(parameter.master);
    const std::vector<double>& gradient = gradients.at(parameter.spec.name);
    double scale = 0.0;
    for (const double one : gradient) {
      scale = std::max(scale, std::abs(one));
    }
    const auto write = [&] {
      copy_from_host(parameter.master, std::as_bytes(std::span(values)));
      model.store->masters_changed(model.ops);
    };
    for (std::size_t i = 0; i < values.size(); i += values.size() / 3 + 1) {
      const double before = values[i];
      const double h = 1e-5 * std::max(1.0, std::abs(before));
      values[i] = before + h;
      write();
      const double above = loss();
      values[i] = before - h;
      write();
      const double below = loss();
      values[i] = before;
      write();
      // Truncation of order h^2 and cancellation of order 1e-16 / h, both near 1e-10.
      EXPECT_NEAR(gradient[i], (above - below) / (2.0 * h), 1e-7 * std::max(scale, 1e-2)) << parameter.spec.name << i;
    }
  }
}

TEST(Training, HalvesRunApartGiveTheSameBits) {
  for (const auto& [backend, dtype] :
       {std::pair{ops::Backend::kRef, DType::kF64}, {test::fast_backend(), DType::kF32}}) {
    Trainee whole(config_with_contrast(), backend, dtype);
    Trainee split(config_with_contrast(), backend, dtype);
    whole.run(kBatch, kScale);
    split.run(kBatch, kScale, {}, true);
    EXPECT_EQ(whole.gradients(), split.gradients()) << ops::to_string(backend);
  }
}

TEST(Training, WeightGradientsAreZeroBeforeTheirHalf) {
  Trainee model(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  const SequenceLayout layout = pack(kBatch.lengths);
  autograd::Tape tape(model.ops);
  autograd::Context pass(model.ops, layout);
  pass.tape = &tape;
  model.forward(pass, kBatch, kScale);
  tape.backward_inputs(pass, {0, model.llama.units()});
  for (const auto& [name, values] : model.gradients()) {
    const bool zero = std::ranges::all_of(values, [](double v) { return v == 0.0; });
    // The loss head makes its gradient in the forward pass.
    EXPECT_EQ(zero, name != "lm_head.weight") << name;
  }
  tape.backward_weights(pass, {0, model.llama.units()});
  Trainee whole(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  whole.run(kBatch, kScale);
  EXPECT_EQ(model.gradients(), whole.gradients());
}

TEST(Training, UnitsMayGoBackOneByOne) {
  Trainee model(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  Trainee whole(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  const SequenceLayout layout = pack(kBatch.lengths);
  autograd::Tape tape(model.ops);
  autograd::Context pass(model.ops, layout);
  pass.tape = &tape;
  model.forward(pass, kBatch, kScale);
  EXPECT_THROW(tape.backward_weights(pass, {1, 2}), ShapeError);
  for (int unit = model.llama.units() - 1; unit >= 0; --unit) {
    tape.backward_inputs(pass, {unit, unit + 1});
  }
  for (int unit = 0; unit < model.llama.units(); ++unit) {
    tape.backward_weights(pass, {unit, unit + 1});
  }
  EXPECT_EQ(tape.saved_bytes(), 0) << autograd::print_tape(tape);
  whole.run(kBatch, kScale);
  EXPECT_EQ(model.gradients(), whole.gradients());
}

TEST(Training, UnitsOutOfOrderAreRefused) {
  Trainee model(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  const SequenceLayout layout = pack(kBatch.lengths);
  autograd::Tape tape(model.ops);
  autograd::Context pass(model.ops, layout);
  pass.tape = &tape;
  model.forward(pass, kBatch, kScale);
  EXPECT_THROW(tape.backward_inputs(pass, {0, 2}), ShapeError);
  EXPECT_THROW(tape.backward(pass, {1, 2}), ShapeError);
  // Both halves after one of them alone: nothing is lost.
  tape.backward_inputs(pass, {0, model.llama.units()});
  tape.backward(pass, {0, model.llama.units()});
  Trainee whole(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  whole.run(kBatch, kScale);
  EXPECT_EQ(model.gradients(), whole.gradients());
}

struct PolicyCase {
  const char* name;
  SavePolicy policy;
};

const std::vector<PolicyCase> kPolicies = {
    {"full", {CheckpointMode::kFull}},
    {"every_second", {CheckpointMode::kEveryNth, 2}},
    {"selective", {CheckpointMode::kSelective}},
    {"selective_attention", {CheckpointMode::kSelective, 2, {"attention"}}},
    {"selective_everything", {CheckpointMode::kSelective, 2, {"attention", "linear", "rms_norm", "swiglu"}}},
};

class Checkpointing : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Policies, Checkpointing, testing::Range(std::size_t{0}, kPolicies.size()),
                         [](const auto& info) { return std::string(kPolicies[info.param].name); });

TEST_P(Checkpointing, GivesTheBitsOfNone) {
  for (const auto& [backend, dtype] :
       {std::pair{ops::Backend::kRef, DType::kF64}, {test::fast_backend(), DType::kBF16}}) {
    Trainee none(config_with_contrast(), backend, dtype);
    Trainee checkpointed(config_with_contrast(), backend, dtype);
    none.run(kBatch, kScale);
    checkpointed.run(kBatch, kScale, kPolicies[GetParam()].policy);
    EXPECT_EQ(none.gradients(), checkpointed.gradients()) << ops::to_string(backend);
  }
}

// Products and attention of one block, counted from the config alone.
TEST_P(Checkpointing, RecomputesWhatItsPolicySays) {
  const LlamaConfig config = config_with_contrast();
  const SavePolicy policy = kPolicies[GetParam()].policy;
  Trainee none(config, ops::Backend::kRef, DType::kF32);
  Trainee checkpointed(config, ops::Backend::kRef, DType::kF32);
  const double extra = checkpointed.run(kBatch, kScale, policy) - none.run(kBatch, kScale);
  const double tokens = static_cast<double>(kBatch.ids.size());
  const double h = static_cast<double>(config.hidden_size);
  const double f = static_cast<double>(config.intermediate_size);
  const double qkv = 2.0 * tokens * h * static_cast<double>((4 + 2 * 2) * config.head_dim);
  const double output = 2.0 * tokens * h * h;
  const double gate_up = 2.0 * tokens * h * 2.0 * f;
  const double down = 2.0 * tokens * f * h;
  double pairs = 0.0;
  for (const std::int64_t length : kBatch.lengths) {
    pairs += static_cast<double>(length * (length + 1) / 2);
  }
  const double attention = 4.0 * pairs * h;
  const std::map<std::string, double> expected = {
      {"full", 3.0 * (qkv + attention + output + gate_up + down)},
      {"every_second", qkv + attention + output + gate_up + down},
      {"selective", 3.0 * (output + down)},
      {"selective_attention", 3.0 * (qkv + output + gate_up + down)},
      {"selective_everything", 3.0 * (output + down)},
  };
  EXPECT_DOUBLE_EQ(extra, expected.at(kPolicies[GetParam()].name));
}

TEST_P(Checkpointing, UsesTheMemoryThatItsDryRunSays) {
  const auto use = [&](bool dry_run) {
    Trainee model(config_with_contrast(), test::fast_backend(), DType::kBF16, dry_run, 2);
    model.run(kBatch, kScale, kPolicies[GetParam()].policy);
    return model.ops.allocator->use();
  };
  const MemoryUse real = use(false);
  const MemoryUse planned = use(true);
  EXPECT_EQ(real.peak_bytes, planned.peak_bytes);
  EXPECT_EQ(real.high_water, planned.high_water);
}

TEST(Training, FullCheckpointingNeedsLessMemory) {
  LlamaConfig config = config_with_contrast();
  config.num_hidden_layers = 12;
  const Batch batch = make_batch({200}, 1, 7);
  const auto peak = [&](const SavePolicy& policy) {
    Trainee model(config, ops::Backend::kRef, DType::kF32, /*dry_run=*/true);
    model.run(batch, kScale, policy);
    return model.ops.allocator->use().segments[static_cast<std::size_t>(Segment::kActivations)].peak_bytes;
  };
  const std::int64_t none = peak({});
  const std::int64_t full = peak({CheckpointMode::kFull});
  const std::int64_t selective = peak({CheckpointMode::kSelective});
  EXPECT_LT(4 * full, none);
  EXPECT_LT(selective, none);
  EXPECT_GT(selective, full);
}

TEST(Training, MicroBatchesAddUpToOneBatch) {
  const Batch first = make_batch({19, 7}, 3, 5);
  const Batch second = make_batch({33}, 4, 2);  // far fewer valid targets
  Batch both = first;
  both.lengths.insert(both.lengths.end(), second.lengths.begin(), second.lengths.end());
  both.ids.insert(both.ids.end(), second.ids.begin(), second.ids.end());
  both.targets.insert(both.targets.end(), second.targets.begin(), second.targets.end());
  const double scale = 1.0 / static_cast<double>(valid(both));
  Trainee together(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  Trainee apart(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  together.run(both, scale);
  apart.run(first, scale);
  apart.run(second, scale);
  EXPECT_LE(distance(together.gradients(), apart.gradients()), 1e-12);
  // Means of unequal counts would not add up: the test can see it.
  Trainee wrong(config_with_contrast(), ops::Backend::kRef, DType::kF64);
  wrong.run(first, 0.5 / static_cast<double>(valid(first)));
  wrong.run(second, 0.5 / static_cast<double>(valid(second)));
  EXPECT_GT(distance(together.gradients(), wrong.gradients()), 1e-2);
}

TEST(Training, TwoTrainersInTwoThreadsGiveTheBitsOfEach) {
  const Batch other = make_batch({25, 14}, 8, 3);
  const auto alone = [](const Batch& batch) {
    Trainee model(config_with_contrast(), test::fast_backend(), DType::kF32);
    model.run(batch, kScale);
    return model.gradients();
  };
  const Gradients a = alone(kBatch);
  const Gradients b = alone(other);
  Gradients a_beside;
  Gradients b_beside;
  std::thread one([&] { a_beside = alone(kBatch); });
  std::thread two([&] { b_beside = alone(other); });
  one.join();
  two.join();
  EXPECT_EQ(a, a_beside);
  EXPECT_EQ(b, b_beside);
}

TEST(Training, NodesKnowTheirCost) {
  Trainee model(config_with_contrast(), ops::Backend::kRef, DType::kF32);
  const SequenceLayout layout = pack(kBatch.lengths);
  autograd::Tape tape(model.ops);
  autograd::Context pass(model.ops, layout);
  pass.tape = &tape;
  model.forward(pass, kBatch, kScale);
  double flops = 0.0;
  for (const autograd::Tape::Entry& entry : tape.entries()) {
    flops += entry.node->cost().forward;
    EXPECT_GT(entry.node->cost().bytes, 0.0) << entry.node->name();
  }
  EXPECT_DOUBLE_EQ(flops, pass.flops);
  // The first product: x [60, 32], qkv weight [64, 32], bias [64], result [60, 64], in f32.
  const autograd::Cost qkv = tape.entries().at(2).node->cost();
  EXPECT_DOUBLE_EQ(qkv.bytes, 4.0 * (60 * 32 + 64 * 32 + 64 + 60 * 64));
  EXPECT_DOUBLE_EQ(qkv.forward, 2.0 * 60 * 32 * 64);
  EXPECT_DOUBLE_EQ(qkv.weight_grad, qkv.forward);
}

TEST(Training, PrintsItsTape) {
  Trainee model(config_with_contrast(), ops::Backend::kRef, DType::kF32);
  const SequenceLayout layout = pack(kBatch.lengths);
  autograd::Tape tape(model.ops);
  autograd::Context pass(model.ops, layout);
  pass.tape = &tape;
  model.forward(pass, kBatch, kScale);
  const std::string text = autograd::print_tape(tape);
  for (const char* word : {"embedding", "rms_norm", "linear", "rope", "attention", "swiglu", "loss_head", "[60, 32]"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
}

}  // namespace
}  // namespace caravan::model
