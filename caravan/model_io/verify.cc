#include "caravan/model_io/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "caravan/base/error.h"
#include "caravan/model_io/rope_rows.h"
#include "caravan/ops/linear.h"
#include "caravan/quant/quantize.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

constexpr std::int64_t kBlock = std::int64_t{1} << 20;  // elements compared at a time
constexpr std::int64_t kInputTokens = 16;
constexpr std::int64_t kWideBlock = std::int64_t{200} << 20;  // bytes of a unit in f32 above which it is run in bf16
constexpr std::int64_t kHeadBytes = std::int64_t{32} << 20;   // of the head at a time

struct Distance {
  double squares = 0.0;  // of the differences
  double length = 0.0;   // squares of the first

  void add(const float* a, const float* b, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const double difference = static_cast<double>(a[i]) - b[i];
      squares += difference * difference;
      length += static_cast<double>(a[i]) * a[i];
    }
  }
  double relative() const { return squares == 0.0 ? 0.0 : std::sqrt(squares / length); }
};

std::int64_t columns_of_part(const ParamPart& part) {
  return part.shape.rank() == 1 ? 1 : part.shape[1];
}

// Compares one part's rows in both files.
class PartCheck {
 public:
  PartCheck(const ModelFiles& source, const ModelFiles& result, std::size_t part, int threads)
      : source_(source),
        result_(result),
        part_(part),
        facts_(source.arrangement.parts[part]),
        from_(part_type(source, part)),
        to_(part_type(result, part)),
        columns_(columns_of_part(facts_)),
        threads_(threads) {}

  Distance run(bool& exact) {
    Distance distance;
    const std::int64_t rows = facts_.shape[0];
    const std::int64_t step = std::max<std::int64_t>(1, kBlock / columns_);
    for (std::int64_t row = 0; row < rows; row += step) {
      check_rows(row, std::min(rows, row + step), distance, exact);
    }
    return distance;
  }

 private:
  [[noreturn]] void refuse(std::int64_t row, const std::string& what) const {
    throw FormatError(fmt::format("{}: row {} of \"{}\" ({}) is not what it was made from ({}): {}; nothing was kept",
                                  result_.path.string(), row, facts_.name, quant::facts(to_).name,
                                  quant::facts(from_).name, what));
  }

  void check_rows(std::int64_t begin, std::int64_t end, Distance& distance, bool& exact) {
    const std::int64_t rows = end - begin;
    if (from_ == to_) {
      const auto bytes = static_cast<std::size_t>(rows * part_row_bytes(source_, part_));
      a_bytes_.resize(bytes);
      b_bytes_.resize(bytes);
      read_rows(source_, part_, begin, end, a_bytes_.data());
      read_rows(result_, part_, begin, end, b_bytes_.data());
      compare_bytes(begin);
      return;
    }
    const auto count = static_cast<std::size_t>(rows * columns_);
    a_.resize(count);
    b_.resize(count);
    read_floats(source_, part_, begin, end, a_.data(), a_bytes_, threads_);
    read_floats(result_, part_, begin, end, b_.data(), b_bytes_, threads_);
    if (std::memcmp(a_.data(), b_.data(), count * sizeof(float)) == 0 && from_ != quant::BlockType::kF64) {
      distance.add(a_.data(), b_.data(), rows * columns_);
      return;
    }
    exact = false;
    distance.add(a_.data(), b_.data(), rows * columns_);
    if (quant::plain_dtype(to_)) {
      check_rounded(begin, rows);
    } else {
      check_blocks(begin, rows);
    }
  }

  void compare_bytes(std::int64_t begin) const {
    const auto [a, b] = std::ranges::mismatch(a_bytes_, b_bytes_);
    if (a != a_bytes_.end()) {
      const std::int64_t row = begin + (a - a_bytes_.begin()) / part_row_bytes(source_, part_);
      refuse(row, fmt::format("byte {:#04x} became {:#04x}", std::to_integer<int>(*a), std::to_integer<int>(*b)));
    }
  }

  // Narrowed once, to nearest even.
  void check_rounded(std::int64_t begin, std::int64_t rows) {
    const DType to = *quant::plain_dtype(to_);
    const auto from = quant::plain_dtype(from_);
    std::vector<std::byte> expected(b_bytes_.size());
    convert_elements(to, expected.data(), from.value_or(DType::kF32),
                     from ? a_bytes_.data() : reinterpret_cast<const std::byte*>(a_.data()), rows * columns_);
    if (!std::ranges::equal(expected, b_bytes_)) {
      refuse(begin, fmt::format("some element of this and the next {} rows is not the rounded one", rows - 1));
    }
  }

  void check_blocks(std::int64_t begin, std::int64_t rows) {
    const std::int64_t block = quant::facts(to_).elements;
    for (std::int64_t i = 0; i < rows * columns_; i += block) {
      double squares = 0.0;
      for (std::int64_t j = i; j < i + block; ++j) {
        const double difference =
            static_cast<double>(a_[static_cast<std::size_t>(j)]) - b_[static_cast<std::size_t>(j)];
        squares += difference * difference;
      }
      const double allowed = quant::worst_distance(to_, a_.data() + i);
      if (!(std::sqrt(squares) <= allowed)) {
        refuse(begin + i / columns_, fmt::format("columns {} to {} are {:.3g} away, {:.3g} is possible", i % columns_,
                                                 i % columns_ + block - 1, std::sqrt(squares), allowed));
      }
    }
  }

  const ModelFiles& source_;
  const ModelFiles& result_;
  std::size_t part_;
  const ParamPart& facts_;
  quant::BlockType from_;
  quant::BlockType to_;
  std::int64_t columns_;
  int threads_;
  std::vector<std::byte> a_bytes_;
  std::vector<std::byte> b_bytes_;
  std::vector<float> a_;
  std::vector<float> b_;
};

// One model on the short input, a unit at a time.
class Runner {
 public:
  Runner(ops::Context& ctx, const ModelFiles& files) : ctx_(ctx), files_(files), config_(files.config.model) {
    const std::int64_t block =
        config_.hidden_size * (2 * config_.head_dim * (config_.num_attention_heads + config_.num_key_value_heads) +
                               3 * config_.intermediate_size);
    dtype_ = block * size_of(DType::kF32) > kWideBlock ? DType::kBF16 : DType::kF32;
  }

  // ids: those of the input.  Result: [tokens, hidden], before the first block.
  void embed(const std::vector<std::int32_t>& ids) {
    x_ = autograd::Value{ctx_.allocate(dtype_, {static_cast<std::int64_t>(ids.size()), config_.hidden_size})};
    const std::size_t part = part_index(files_, "model.embed_tokens.weight");
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      fill_rows(files_, part, ids[i], ids[i] + 1, x_.tensor.row_range(row, row + 1), config_.rope_pairing,
                ctx_.threads);
    }
  }

  // Units 1 to layers are blocks, layers + 1 the final norm.
  void unit(int index) {
    const SequenceLayout layout = pack(std::vector<std::int64_t>{x_.tensor.rows()});
    autograd::Context pass(ctx_, layout);
    std::vector<ParamSpec> specs = model::stage_specs(config_, {index, index + 1});
    const bool last = index == static_cast<int>(config_.num_hidden_layers) + 1;
    if (last) {  // the head comes in pieces
      std::erase_if(specs, [](const ParamSpec& spec) { return spec.name == "lm_head.weight"; });
    }
    autograd::WeightStore store(ctx_, specs, dtype_);
    for (const autograd::Parameter& parameter : store.parameters()) {
      for (const ParamPart& part : parameter.spec.parts) {
        fill_rows(files_, part_index(files_, part.name), 0, part.shape[0],
                  autograd::part_rows(parameter.tensor(), part), config_.rope_pairing, ctx_.threads);
      }
    }
    store.masters_changed(ctx_);
    if (last) {
      const nn::RmsNorm norm{&store.at("model.norm.weight"), config_.rms_norm_eps, config_.norm_rounding};
      x_ = norm.forward(pass, x_);
      return;
    }
    const model::Llama llama(config_, store, {index, index + 1});
    x_ = llama.forward_unit(pass, index, x_);
  }

  // Rows [begin, end) of the head applied to the last hidden state: [tokens, end - begin].
  std::vector<float> logits(std::int64_t begin, std::int64_t end) {
    const std::size_t part =
        part_index(files_, config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    const ops::Weight weight(ctx_.allocate(dtype_, {end - begin, config_.hidden_size}, Segment::kWeights));
    fill_rows(files_, part, begin, end, weight.plain(), config_.rope_pairing, ctx_.threads);
    const Tensor y = ctx_.allocate(DType::kF32, {x_.tensor.rows(), end - begin});
    ops::linear(ctx_, y, x_.tensor, weight);
    return to_floats(y);
  }

  std::vector<float> hidden() const { return to_floats(x_.tensor); }
  std::int64_t head_rows() const {
    return std::max<std::int64_t>(1, kHeadBytes / size_of(dtype_) / config_.hidden_size);
  }

 private:
  ops::Context& ctx_;
  const ModelFiles& files_;
  const model::LlamaConfig& config_;
  DType dtype_ = DType::kF32;
  autograd::Value x_;
};

// Ids all over the vocabulary, each once where there are enough.
std::vector<std::int32_t> short_input(const model::LlamaConfig& config) {
  const std::int64_t tokens = std::min(kInputTokens, nn::max_sequence_length(config.rope));
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>((2 * i + 1) * config.vocab_size / (2 * tokens)));
  }
  return ids;
}

void compare_states(const std::string& where, const std::vector<float>& a, const std::vector<float>& b, bool exact,
                    const ModelFiles& result, double& worst) {
  const auto count = static_cast<std::int64_t>(a.size());
  if (first_non_finite(DType::kF32, reinterpret_cast<const std::byte*>(a.data()), count) >= 0) {
    return;  // the source itself has no numbers there; its weights were compared
  }
  Distance distance;
  distance.add(a.data(), b.data(), count);
  const bool same = std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  if (exact && !same) {
    throw FormatError(
        fmt::format("{}: {} differs by {:.3g} of its length although all weights are equal: the two "
                    "configurations disagree; nothing was kept",
                    result.path.string(), where, distance.relative()));
  }
  if (!same && !(distance.relative() < 1.0)) {
    throw FormatError(
        fmt::format("{}: {} is {:.3g} of its length away from the source's: the result is another model; "
                    "nothing was kept",
                    result.path.string(), where, distance.relative()));
  }
  worst = std::max(worst, distance.relative());
}

void compare_runs(ops::Context& ctx, const ModelFiles& source, const ModelFiles& result, Verification& out) {
  const model::LlamaConfig& config = source.config.model;
  const std::vector<std::int32_t> ids = short_input(config);
  out.positions = static_cast<std::int64_t>(ids.size());
  Runner a(ctx, source);
  Runner b(ctx, result);
  a.embed(ids);
  b.embed(ids);
  compare_states("the embedding", a.hidden(), b.hidden(), out.exact, result, out.hidden_error);
  for (int unit = 1; unit <= static_cast<int>(config.num_hidden_layers) + 1; ++unit) {
    a.unit(unit);
    b.unit(unit);
    compare_states(fmt::format("the hidden state after unit {}", unit), a.hidden(), b.hidden(), out.exact, result,
                   out.hidden_error);
  }
  Distance all;
  for (std::int64_t row = 0; row < config.vocab_size; row += a.head_rows()) {
    const std::int64_t end = std::min(config.vocab_size, row + a.head_rows());
    const std::vector<float> x = a.logits(row, end);
    const std::vector<float> y = b.logits(row, end);
    all.add(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
    if (out.exact && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) != 0) {
      double ignored = 0.0;
      compare_states(fmt::format("a logit of tokens {} to {}", row, end - 1), x, y, true, result, ignored);
    }
  }
  out.logit_error = all.relative();
  if (std::isfinite(all.length) && !(out.logit_error < 1.0)) {
    throw FormatError(
        fmt::format("{}: the logits are {:.3g} of their length away from the source's: the result is "
                    "another model; nothing was kept",
                    result.path.string(), out.logit_error));
  }
}

// The function itself must be the same; what only training looks at may be lost on the way.
void compare_configs(const ModelFiles& source, const ModelFiles& result) {
  model::LlamaConfig a = source.config.model;
  model::LlamaConfig b = result.config.model;
  a.initializer_range = b.initializer_range = 0.0;
  a.pad_token_id = b.pad_token_id = -1;
  if (a.vocab_size != b.vocab_size || a.hidden_size != b.hidden_size || a.num_hidden_layers != b.num_hidden_layers ||
      a.num_attention_heads != b.num_attention_heads || a.num_key_value_heads != b.num_key_value_heads ||
      a.head_dim != b.head_dim || a.intermediate_size != b.intermediate_size ||
      a.tie_word_embeddings != b.tie_word_embeddings) {
    throw FormatError(
        fmt::format("{}: the sizes that were read back are not the source's; nothing was kept", result.path.string()));
  }
}

}  // namespace

Verification verify_conversion(ops::Context& ctx, const ModelFiles& source, const ModelFiles& result,
                               const Progress& progress) {
  compare_configs(source, result);
  Verification out;
  const std::int64_t total = total_bytes(source) + total_bytes(result);
  std::int64_t done = 0;
  for (std::size_t part = 0; part < source.arrangement.parts.size(); ++part) {
    const ParamPart& facts = source.arrangement.parts[part];
    const double error = PartCheck(source, result, part, ctx.threads).run(out.exact).relative();
    if (error > out.weight_error || out.worst_part.empty()) {
      out.weight_error = error;
      out.worst_part = facts.name;
    }
    out.weights += facts.shape.elements();
    done += facts.shape[0] * (part_row_bytes(source, part) + part_row_bytes(result, part));
    if (progress) {
      progress(done, total);
    }
  }
  compare_runs(ctx, source, result, out);
  return out;
}

}  // namespace caravan::model_io
