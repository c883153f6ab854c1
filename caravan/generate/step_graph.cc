#include "caravan/generate/step_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "caravan/base/error.h"
#include "caravan/ops/decoding.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"

namespace caravan::generate {
namespace {

// Appends where a tensor says, and tells how many rows there are by another one.
class CountedCache final : public autograd::KvCache {
 public:
  CountedCache(const DenseCache& cache, const Tensor& rows, const Tensor& begins, const Tensor& lengths,
               std::int64_t max_length)
      : cache_(cache), rows_(rows), begins_(begins), lengths_(lengths), max_length_(max_length) {}

  View extend(ops::Context& ctx, int layer, const SequenceLayout& /*layout*/, const Tensor& key,
              const Tensor& value) override {
    ops::append_rows(ctx, cache_.keys(layer), key, rows_);
    ops::append_rows(ctx, cache_.values(layer), value, rows_);
    return {cache_.keys(layer), cache_.values(layer), {}, begins_, lengths_, max_length_};
  }

 private:
  const DenseCache& cache_;
  Tensor rows_, begins_, lengths_;
  std::int64_t max_length_;
};

std::int64_t longest_of(const DenseCache& cache) {
  std::int64_t longest = 1;
  for (std::size_t i = 0; i < cache.sequences(); ++i) {
    longest = std::max(longest, cache.capacity(i));
  }
  return longest;
}

Tensor ints(ops::Context& ctx, const Shape& shape) {
  const Tensor tensor = ctx.allocate(DType::kI32, shape);
  ops::zero(ctx, tensor);
  return tensor;
}

// Row i of a [rows, columns] tensor as a vector.
Tensor row_of(const Tensor& matrix, std::int64_t i) {
  return matrix.row_range(i, i + 1).reshape({matrix.columns()});
}

}  // namespace

bool steps_can_be_recorded(const model::LlamaConfig& config, std::int64_t from, std::int64_t to) {
  return nn::same_frequencies(config.rope, config.head_dim, from, to);
}

StepGraph::StepGraph(ops::Context& ctx, const model::Llama& model, DenseCache& cache, Choice choice)
    : ctx_(&ctx),
      model_(&model),
      cache_(&cache),
      choice_(choice),
      sequences_(static_cast<std::int64_t>(cache.sequences())),
      max_length_(longest_of(cache)),
      ids_(ints(ctx, {sequences_})),
      counters_(ints(ctx, {3, sequences_})),
      begins_(ints(ctx, {sequences_})),
      held_(cache.sequences(), 0),
      chosen_(ids_) {
  std::vector<std::int32_t> begins;
  for (std::size_t i = 0; i < cache.sequences(); ++i) {
    begins.push_back(static_cast<std::int32_t>(cache.begin(i)));
  }
  copy_from_host(begins_, std::as_bytes(std::span(begins)));
  // The tables of one sequence of full length: a step takes its positions' rows.
  SequenceLayout whole;
  whole.rows = max_length_;
  whole.sequences.push_back({0, max_length_, 0});
  autograd::Context pass(ctx, whole);
  const autograd::RotaryTables& tables = model.rope().tables(pass, model.dtype());
  cos_ = tables.cos;
  sin_ = tables.sin;
  if (choice_ == Choice::kByHost) {
    logits_ =
        ctx.allocate(model.dtype() == DType::kF64 ? DType::kF64 : DType::kF32, {sequences_, model.config().vocab_size});
  }
}

void StepGraph::begin(const std::vector<std::int64_t>& held, const std::vector<std::int32_t>& next) {
  if (held.size() != held_.size() || next.size() != held_.size()) {
    throw ShapeError(
        fmt::format("StepGraph: {} lengths and {} ids for {} sequences", held.size(), next.size(), held_.size()));
  }
  held_ = held;
  std::vector<std::int32_t> counters;
  for (const std::int64_t length : held) {
    counters.push_back(static_cast<std::int32_t>(length));
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    counters.push_back(static_cast<std::int32_t>(cache_->begin(i) + held[i]));
  }
  for (const std::int64_t length : held) {
    counters.push_back(static_cast<std::int32_t>(length + 1));
  }
  copy_from_host(counters_, std::as_bytes(std::span(counters)));
  copy_from_host(ids_, std::as_bytes(std::span(next)));
}

void StepGraph::draw_by(const std::vector<SamplingOptions>& options, const std::vector<std::uint64_t>& streams,
                        const std::vector<std::int64_t>& positions) {
  if (options.size() != held_.size()) {
    throw ShapeError(fmt::format("StepGraph: {} ways to draw for {} sequences", options.size(), held_.size()));
  }
  if (!drawing_) {
    drawing_.emplace(*ctx_, sequences_);
  }
  drawing_->set(options, streams, positions);
}

// One step's ops.
void StepGraph::run(ops::Context& ctx) {
  const Tensor positions = row_of(counters_, 0);
  SequenceLayout layout;
  layout.rows = sequences_;
  for (std::int64_t i = 0; i < sequences_; ++i) {
    layout.sequences.push_back({i, 1, 0});
  }
  autograd::Context pass(ctx, layout);
  CountedCache cache(*cache_, row_of(counters_, 1), begins_, row_of(counters_, 2), max_length_);
  pass.cache = &cache;
  const auto rows_of = [&](const Tensor& table) {
    const Tensor rows = ctx.allocate(table.dtype(), {sequences_, table.columns()});
    ops::embedding(ctx, rows, table, positions);
    return rows;
  };
  pass.rotary.emplace(std::pair{static_cast<const void*>(&model_->rope()), model_->dtype()},
                      autograd::RotaryTables{rows_of(cos_), rows_of(sin_)});
  const autograd::Value hidden = model_->forward(pass, ids_);
  const Tensor logits = model_->logits(pass, hidden.tensor);
  if (choice_ == Choice::kGreedy) {
    ops::argmax(ctx, ids_, logits);
  } else if (choice_ == Choice::kSampled) {
    drawing_->draw(ctx, ids_, logits);
    ops::count_up(ctx, drawing_->positions());
  } else {
    ops::convert(ctx, logits_, logits);
  }
  ops::count_up(ctx, counters_.reshape({counters_.elements()}));
}

void StepGraph::start() {
  for (std::size_t i = 0; i < held_.size(); ++i) {
    if (held_[i] >= cache_->capacity(i)) {
      throw ShapeError(fmt::format("StepGraph: sequence {} has filled its {} rows", i, cache_->capacity(i)));
    }
    cache_->set_held(i, ++held_[i]);
  }
  if (graph_ == nullptr) {
    // Once as it is: it makes the plans and packs the weights that a recording may not make.
    run(*ctx_);
    graph_ = std::make_unique<ops::Graph>(*ctx_, [this](ops::Context& ctx) { run(ctx); });
  } else {
    graph_->run();
  }
}

void StepGraph::step() {
  start();
  chosen_.post();
  ++under_way_;
}

void StepGraph::step(const std::vector<std::int32_t>& ids) {
  copy_from_host(ids_, std::as_bytes(std::span(ids)));
  start();
}

std::vector<std::int32_t> StepGraph::take() {
  --under_way_;
  return chosen_.take();
}

std::vector<std::int32_t> StepGraph::take_ahead(std::int64_t wanted) {
  constexpr std::int64_t kAhead = 2;
  while (under_way_ < std::min(wanted, kAhead)) {
    step();
  }
  return take();
}

}  // namespace caravan::generate
