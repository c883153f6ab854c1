#include "caravan/bench/cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <span>
#include <utility>

#include "caravan/autograd/parameter.h"
#include "caravan/base/philox.h"
#include "caravan/ops/adamw.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"
#include "caravan/ops/swiglu.h"
#include "caravan/tensor/copy.h"

namespace caravan::bench {

namespace {

using ops::Accumulate;
using Make = std::function<Work(ops::Context&)>;

constexpr std::uint64_t kSeed = 1;

// Values in (-0.5, 0.5).  A block of them again and again: times do not depend on it, and a large tensor is soon full.
Tensor values(ops::Context& ctx, DType dtype, const Shape& shape) {
  constexpr std::int64_t kBlock = 1 << 16;
  const Tensor tensor = ctx.allocate(dtype, shape);
  const std::int64_t block = std::min(kBlock, tensor.elements());
  std::vector<float> floats(static_cast<std::size_t>(block));
  const RandomStream stream(kSeed, "bench.values");
  for (std::size_t i = 0; i < floats.size(); ++i) {
    floats[i] = static_cast<float>(stream.uniform(i)) - 0.5F;
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(block * size_of(dtype)));
  convert_elements(dtype, bytes.data(), DType::kF32, std::as_bytes(std::span(floats)).data(), block);
  const Tensor flat = tensor.reshape({tensor.elements()});
  for (std::int64_t begin = 0; begin < flat.rows(); begin += block) {
    const std::int64_t count = std::min(block, flat.rows() - begin);
    copy_from_host(flat.row_range(begin, begin + count),
                   std::span(bytes).first(static_cast<std::size_t>(count * size_of(dtype))));
  }
  return tensor;
}

// Token ids of a micro-batch, uniform over the vocabulary.
Tensor ids(ops::Context& ctx, const StepShape& s) {
  std::vector<std::int32_t> result(static_cast<std::size_t>(s.tokens()));
  const RandomStream stream(kSeed, "bench.ids");
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = static_cast<std::int32_t>(stream.uniform(i) * static_cast<double>(s.model.vocab_size));
  }
  return to_device(*ctx.allocator, result);
}

double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0.0;
  for (const Tensor& tensor : tensors) {
    bytes += tensor.defined() ? static_cast<double>(tensor.bytes()) : 0.0;
  }
  return bytes;
}

// Of norms, log-sum-exps, losses and gradients of weights.
DType wide(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

// The weight [out, in] of a product, and what a step folds into it.
struct Product {
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool bias = false;
  bool residual = false;

  double flops(std::int64_t tokens) const {
    return 2.0 * static_cast<double>(tokens) * static_cast<double>(in) * static_cast<double>(out);
  }
};

struct Products {
  Product qkv, output, gate_up, down, head;
};

Products products_of(const model::LlamaConfig& m) {
  const std::int64_t query = m.num_attention_heads * m.head_dim;
  const std::int64_t key = m.num_key_value_heads * m.head_dim;
  return {.qkv = {m.hidden_size, query + 2 * key, m.attention_bias, false},
          .output = {query, m.hidden_size, m.attention_bias, true},
          .gate_up = {m.hidden_size, 2 * m.intermediate_size, m.mlp_bias, false},
          .down = {m.intermediate_size, m.hidden_size, m.mlp_bias, true},
          .head = {m.hidden_size, m.vocab_size, false, false}};
}

// As training holds it: products pack it from the master.
ops::Weight weight(ops::Context& ctx, DType dtype, const Product& p) {
  return ops::Weight::rounded(values(ctx, wide(dtype), {p.out, p.in}), dtype);
}

double bytes_of(const ops::Weight& w) {
  return static_cast<double>(w.shape().elements()) * size_of(w.dtype());
}

Make linear(DType dtype, std::int64_t tokens, const Product& p) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor x = values(ctx, dtype, {tokens, p.in});
    const ops::Weight w = weight(ctx, dtype, p);
    const Tensor bias = p.bias ? values(ctx, dtype, {p.out}) : Tensor();
    const Tensor residual = p.residual ? values(ctx, dtype, {tokens, p.out}) : Tensor();
    const Tensor y = ctx.allocate(dtype, {tokens, p.out});
    return {[=, &ctx] { ops::linear(ctx, y, x, w, bias, residual); }, p.flops(tokens),
            bytes_of(w) + bytes_of({x, bias, residual, y})};
  };
}

Make linear_input_grad(DType dtype, std::int64_t tokens, const Product& p) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor dy = values(ctx, dtype, {tokens, p.out});
    const ops::Weight w = weight(ctx, dtype, p);
    const Tensor dx = ctx.allocate(dtype, {tokens, p.in});
    return {[=, &ctx] { ops::linear_input_grad(ctx, dx, dy, w, Accumulate::kStore); }, p.flops(tokens),
            bytes_of(w) + bytes_of({dy, dx})};
  };
}

Make linear_weight_grad(DType dtype, std::int64_t tokens, const Product& p, Accumulate accumulate) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor dy = values(ctx, dtype, {tokens, p.out});
    const Tensor x = values(ctx, dtype, {tokens, p.in});
    const Tensor dw = values(ctx, wide(dtype), {p.out, p.in});
    return {[=, &ctx] { ops::linear_weight_grad(ctx, dw, dy, x, accumulate); }, p.flops(tokens),
            bytes_of({dy, x, dw, accumulate == Accumulate::kAdd ? dw : Tensor()})};
  };
}

Make bias_grad(const StepShape& s, const Product& p) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor dy = values(ctx, s.dtype, {s.tokens(), p.out});
    const Tensor db = values(ctx, wide(s.dtype), {p.out});
    return {[=, &ctx] { ops::bias_grad(ctx, db, dy, Accumulate::kAdd); }, 0.0, bytes_of({dy, db, db})};
  };
}

enum class NormPart { kForward, kInputGrad, kWeightGrad };

Make rms_norm(const StepShape& s, NormPart part) {
  return [=](ops::Context& ctx) -> Work {
    const Shape shape{s.tokens(), s.model.hidden_size};
    const ops::NormRounding rounding = s.model.norm_rounding;
    const Tensor x = values(ctx, s.dtype, shape);
    const Tensor w = values(ctx, s.dtype, {s.model.hidden_size});
    const Tensor y = ctx.allocate(s.dtype, shape);
    const Tensor rstd = ctx.allocate(wide(s.dtype), {s.tokens()});
    const auto forward = [=, &ctx, eps = s.model.rms_norm_eps] { ops::rms_norm(ctx, y, rstd, x, w, eps, rounding); };
    if (part == NormPart::kForward) {
      return {forward, 0.0, bytes_of({x, w, y, rstd})};
    }
    forward();
    const Tensor dy = values(ctx, s.dtype, shape);
    if (part == NormPart::kInputGrad) {
      // Added to the residual's gradient, as in every block.
      const Tensor dx = values(ctx, s.dtype, shape);
      return {[=, &ctx] { ops::rms_norm_input_grad(ctx, dx, dy, x, rstd, w, Accumulate::kAdd); }, 0.0,
              bytes_of({dy, x, rstd, w, dx, dx})};
    }
    const Tensor dw = values(ctx, wide(s.dtype), {s.model.hidden_size});
    return {[=, &ctx] { ops::rms_norm_weight_grad(ctx, dw, dy, x, rstd, rounding, Accumulate::kAdd); }, 0.0,
            bytes_of({dy, x, rstd, dw, dw})};
  };
}

SequenceLayout layout_of(const StepShape& s) {
  return pack(std::vector<std::int64_t>(static_cast<std::size_t>(s.rows), s.seq_len));
}

struct Tables {
  Tensor cos, sin;
  Work work;  // that fills them
};

Tables rope_tables_of(ops::Context& ctx, const StepShape& s) {
  const std::int64_t half = s.model.head_dim / 2;
  const Tensor positions = to_device(*ctx.allocator, caravan::positions(layout_of(s)));
  const Tensor kind = to_device(*ctx.allocator, std::vector<std::int32_t>(static_cast<std::size_t>(s.tokens()), 0));
  const Tensor frequencies =
      to_device(*ctx.allocator, nn::rope_frequencies(s.model.rope, s.model.head_dim, s.seq_len), {1, half});
  const Tensor cos = ctx.allocate(wide(s.dtype), {s.tokens(), half});
  const Tensor sin = ctx.allocate(wide(s.dtype), {s.tokens(), half});
  const double scaling = nn::rope_attention_scaling(s.model.rope);
  const auto call = [=, &ctx, dtype = s.dtype] {
    ops::rope_tables(ctx, cos, sin, positions, frequencies, kind, scaling, dtype);
  };
  return {cos, sin, {call, 0.0, bytes_of({positions, kind, frequencies, cos, sin})}};
}

Make rope_tables(const StepShape& s) {
  return [=](ops::Context& ctx) { return rope_tables_of(ctx, s).work; };
}

// Query and key heads of the fused product, turned where they stand.
Make rope(const StepShape& s, bool inverse) {
  return [=](ops::Context& ctx) -> Work {
    const model::LlamaConfig& m = s.model;
    const Tables tables = rope_tables_of(ctx, s);
    tables.work.call();
    const Tensor qkv = values(ctx, s.dtype, {s.tokens(), products_of(m).qkv.out});
    const Tensor turned = qkv.column_range(0, (m.num_attention_heads + m.num_key_value_heads) * m.head_dim);
    return {[=, &ctx, cos = tables.cos, sin = tables.sin, pairing = m.rope_pairing] {
              ops::rope(ctx, turned, turned, cos, sin, pairing, inverse);
            },
            0.0, bytes_of({turned, turned, tables.cos, tables.sin})};
  };
}

Make attention(const StepShape& s, bool grad) {
  return [=](ops::Context& ctx) -> Work {
    const ops::HeadShape heads{s.model.num_attention_heads, s.model.num_key_value_heads, s.model.head_dim};
    const std::int64_t query = heads.heads * heads.head_dim;
    const std::int64_t key = heads.kv_heads * heads.head_dim;
    const std::vector<AttentionRange> ranges = causal_ranges(layout_of(s));
    const double scale = 1.0 / std::sqrt(static_cast<double>(heads.head_dim));
    const auto parts = [=](const Tensor& qkv) {
      return std::array<Tensor, 3>{qkv.column_range(0, query), qkv.column_range(query, query + key),
                                   qkv.column_range(query + key, query + 2 * key)};
    };
    const Tensor qkv = values(ctx, s.dtype, {s.tokens(), query + 2 * key});
    const Tensor out = ctx.allocate(s.dtype, {s.tokens(), query});
    const Tensor lse = ctx.allocate(wide(s.dtype), {s.tokens(), heads.heads});
    // Two products over the visible pairs; four in the backward, which also makes the scores again.
    const double flops = 4.0 * static_cast<double>(visible_pairs(ranges)) * static_cast<double>(query);
    const auto [q, k, v] = parts(qkv);
    const auto forward = [=, &ctx, q = q, k = k, v = v] {
      ops::attention(ctx, out, lse, q, k, v, heads, ranges, scale);
    };
    if (!grad) {
      return {forward, flops, bytes_of({qkv, out, lse})};
    }
    forward();
    const Tensor d_out = values(ctx, s.dtype, {s.tokens(), query});
    const Tensor d_qkv = ctx.allocate(s.dtype, qkv.shape());
    const auto [dq, dk, dv] = parts(d_qkv);
    return {[=, &ctx, q = q, k = k, v = v, dq = dq, dk = dk, dv = dv] {
              ops::attention_grad(ctx, dq, dk, dv, d_out, q, k, v, out, lse, heads, ranges, scale);
            },
            2.0 * flops, bytes_of({qkv, out, lse, d_out, d_qkv})};
  };
}

Make swiglu(const StepShape& s, bool grad) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor gate_up = values(ctx, s.dtype, {s.tokens(), 2 * s.model.intermediate_size});
    const Tensor y = values(ctx, s.dtype, {s.tokens(), s.model.intermediate_size});
    if (!grad) {
      return {[=, &ctx] { ops::swiglu(ctx, y, gate_up); }, 0.0, bytes_of({gate_up, y})};
    }
    // A step writes the gradient over gate_up; here gate_up has to stay.
    const Tensor d_gate_up = ctx.allocate(s.dtype, gate_up.shape());
    return {[=, &ctx] { ops::swiglu_grad(ctx, d_gate_up, y, gate_up); }, 0.0, bytes_of({gate_up, y, d_gate_up})};
  };
}

Make embedding(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor table = values(ctx, s.dtype, {s.model.vocab_size, s.model.hidden_size});
    const Tensor tokens = ids(ctx, s);
    const Tensor y = ctx.allocate(s.dtype, {s.tokens(), s.model.hidden_size});
    return {[=, &ctx] { ops::embedding(ctx, y, table, tokens); }, 0.0, bytes_of({tokens, y, y})};
  };
}

Make embedding_weight_grad(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor d_table = values(ctx, wide(s.dtype), {s.model.vocab_size, s.model.hidden_size});
    const Tensor tokens = ids(ctx, s);
    const Tensor dy = values(ctx, s.dtype, {s.tokens(), s.model.hidden_size});
    // As many rows of the table are added to as there are tokens.
    const double rows = static_cast<double>(dy.elements()) * size_of(d_table.dtype());
    return {
        [=, &ctx, padding = s.model.pad_token_id] { ops::embedding_weight_grad(ctx, d_table, dy, tokens, padding); },
        0.0, bytes_of({tokens, dy}) + 2.0 * rows};
  };
}

Make loss_head(const StepShape& s, bool grad) {
  return [=](ops::Context& ctx) -> Work {
    const Product head = products_of(s.model).head;
    const Tensor hidden = values(ctx, s.dtype, {s.tokens(), head.in});
    const ops::Weight w(values(ctx, s.dtype, {head.out, head.in}));
    const Tensor targets = ids(ctx, s);
    const Tensor nll = ctx.allocate(wide(s.dtype), {s.tokens()});
    const double flops = head.flops(s.tokens());
    if (!grad) {
      return {[=, &ctx] { ops::loss_head(ctx, nll, hidden, w, targets); }, flops,
              bytes_of({hidden, w.plain(), targets, nll})};
    }
    const Tensor d_hidden = ctx.allocate(s.dtype, hidden.shape());
    const Tensor dw = values(ctx, wide(s.dtype), {head.out, head.in});
    const double scale = 1.0 / static_cast<double>(s.tokens() * s.micro_batches);
    return {[=, &ctx] { ops::loss_head_with_grad(ctx, nll, d_hidden, dw, hidden, w, targets, scale); }, 3.0 * flops,
            bytes_of({hidden, w.plain(), targets, nll, d_hidden, dw, dw})};
  };
}

// A tensor a stored parameter.
std::vector<Tensor> for_each_parameter(ops::Context& ctx, const StepShape& s, DType dtype) {
  std::vector<Tensor> result;
  for (const ParamSpec& spec : model::parameter_specs(s.model)) {
    if (spec.alias_of.empty()) {
      result.push_back(values(ctx, dtype, spec.shape));
    }
  }
  return result;
}

double bytes_of_all(const std::vector<Tensor>& tensors) {
  double bytes = 0.0;
  for (const Tensor& tensor : tensors) {
    bytes += static_cast<double>(tensor.bytes());
  }
  return bytes;
}

Make sum_of_squares(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const std::vector<Tensor> gradients = for_each_parameter(ctx, s, wide(s.dtype));
    const Tensor sum = ctx.allocate(DType::kF64, {1});
    return {[=, &ctx] {
              ops::zero(ctx, sum);
              for (const Tensor& gradient : gradients) {
                ops::add_sum_of_squares(ctx, sum, gradient);
              }
            },
            0.0, bytes_of_all(gradients)};
  };
}

// The losses of a micro-batch.
Make add_sum(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const Tensor losses = ctx.allocate(wide(s.dtype), {s.tokens()});
    ops::zero(ctx, losses);
    const Tensor sum = ctx.allocate(DType::kF64, {1});
    ops::zero(ctx, sum);
    return {[=, &ctx] { ops::add_sum(ctx, sum, losses); }, 0.0, static_cast<double>(losses.bytes())};
  };
}

Make decide_step() {
  return [=](ops::Context& ctx) -> Work {
    const Tensor record = ctx.allocate(DType::kF64, {ops::kStepFields});
    ops::zero(ctx, record);
    return {[=, &ctx] { ops::decide_step(ctx, record, {}); }, 0.0, 2.0 * static_cast<double>(record.bytes())};
  };
}

Make adamw(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const std::vector<Tensor> masters = for_each_parameter(ctx, s, wide(s.dtype));
    const std::vector<Tensor> gradients = for_each_parameter(ctx, s, wide(s.dtype));
    const std::vector<Tensor> first = for_each_parameter(ctx, s, wide(s.dtype));
    const std::vector<Tensor> second = for_each_parameter(ctx, s, wide(s.dtype));
    for (const Tensor& one : second) {
      ops::zero(ctx, one);  // squares are not negative
    }
    // Masters and moments are read and written, gradients read.
    return {[=, &ctx] {
              for (std::size_t i = 0; i < masters.size(); ++i) {
                ops::adamw(ctx, masters[i], first[i], second[i], gradients[i], {});
              }
            },
            0.0, 7.0 * bytes_of_all(masters)};
  };
}

// The compute views that training keeps beside the masters, made from them again.
Make convert(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const std::shared_ptr<autograd::WeightStore> store =
        autograd::WeightStore::for_training(ctx, model::parameter_specs(s.model), s.dtype);
    double bytes = 0.0;
    for (const autograd::Parameter& parameter : store->parameters()) {
      ops::zero(ctx, parameter.master);
      bytes += parameter.has_view_of_its_own() ? bytes_of({parameter.master, parameter.tensor()}) : 0.0;
    }
    return {[=, &ctx] { store->masters_changed(ctx); }, 0.0, bytes};
  };
}

Make zero(const StepShape& s) {
  return [=](ops::Context& ctx) -> Work {
    const std::vector<Tensor> gradients = for_each_parameter(ctx, s, wide(s.dtype));
    return {[=, &ctx] {
              for (const Tensor& gradient : gradients) {
                ops::zero(ctx, gradient);
              }
            },
            0.0, bytes_of_all(gradients)};
  };
}

}  // namespace

std::vector<Case> step_cases(const StepShape& s) {
  const Products p = products_of(s.model);
  const std::int64_t once = s.micro_batches;  // of each micro-batch
  const std::int64_t layers = s.model.num_hidden_layers * once;
  const std::int64_t norms = 2 * layers + once;
  const std::int64_t again =
      2 * layers;  // norms that the backward makes again for qkv's and gate_up's weight gradients
  const std::int64_t t = s.tokens();
  constexpr Accumulate kAdd = Accumulate::kAdd;
  std::vector<Case> cases = {
      {"zero", 1, zero(s)},
      {"embedding", once, embedding(s)},
      {"rope_tables", once, rope_tables(s)},
      {"rms_norm", norms + again, rms_norm(s, NormPart::kForward)},
      {"linear qkv", layers, linear(s.dtype, t, p.qkv)},
      {"rope forward", layers, rope(s, /*inverse=*/false)},
      {"attention", layers, attention(s, /*grad=*/false)},
      {"linear output", layers, linear(s.dtype, t, p.output)},
      {"linear gate_up", layers, linear(s.dtype, t, p.gate_up)},
      {"swiglu", 2 * layers, swiglu(s, /*grad=*/false)},
      {"linear down", layers, linear(s.dtype, t, p.down)},
      {"loss_head", 0, loss_head(s, /*grad=*/false)},
      {"loss_head_with_grad", once, loss_head(s, /*grad=*/true)},
      {"linear_input_grad down", layers, linear_input_grad(s.dtype, t, p.down)},
      {"linear_weight_grad down", layers, linear_weight_grad(s.dtype, t, p.down, kAdd)},
      {"swiglu_grad", layers, swiglu(s, /*grad=*/true)},
      {"linear_input_grad gate_up", layers, linear_input_grad(s.dtype, t, p.gate_up)},
      {"linear_weight_grad gate_up", layers, linear_weight_grad(s.dtype, t, p.gate_up, kAdd)},
      {"linear_input_grad output", layers, linear_input_grad(s.dtype, t, p.output)},
      {"linear_weight_grad output", layers, linear_weight_grad(s.dtype, t, p.output, kAdd)},
      {"attention_grad", layers, attention(s, /*grad=*/true)},
      {"rope backward", layers, rope(s, /*inverse=*/true)},
      {"linear_input_grad qkv", layers, linear_input_grad(s.dtype, t, p.qkv)},
      {"linear_weight_grad qkv", layers, linear_weight_grad(s.dtype, t, p.qkv, kAdd)},
      {"rms_norm_input_grad", norms, rms_norm(s, NormPart::kInputGrad)},
      {"rms_norm_weight_grad", norms, rms_norm(s, NormPart::kWeightGrad)},
      {"embedding_weight_grad", once, embedding_weight_grad(s)},
      {"add_sum", once, add_sum(s)},
      {"add_sum_of_squares", 1, sum_of_squares(s)},
      {"decide_step", 1, decide_step()},
      {"adamw", 1, adamw(s)},
  };
  if (s.dtype != wide(s.dtype)) {
    cases.push_back({"convert", 1, convert(s)});
  }
  for (const auto& [name, product] : {std::pair{"bias_grad qkv", p.qkv},
                                      {"bias_grad output", p.output},
                                      {"bias_grad gate_up", p.gate_up},
                                      {"bias_grad down", p.down}}) {
    if (product.bias) {
      cases.push_back({name, layers, bias_grad(s, product)});
    }
  }
  return cases;
}

std::vector<Case> product_cases(const StepShape& s) {
  constexpr std::int64_t kHeadTokens = 4096;  // logits of more would fill memory and run no faster
  const Products p = products_of(s.model);
  const std::int64_t layers = s.model.num_hidden_layers * s.micro_batches;
  const std::int64_t pieces = (s.tokens() + kHeadTokens - 1) / kHeadTokens;
  const std::int64_t head_tokens = (s.tokens() + pieces - 1) / pieces;
  struct Row {
    const char* name;
    Product product;
    std::int64_t calls, tokens;
  };
  std::vector<Case> cases;
  for (const Row& row : {Row{"qkv", p.qkv, layers, s.tokens()}, Row{"output", p.output, layers, s.tokens()},
                         Row{"gate_up", p.gate_up, layers, s.tokens()}, Row{"down", p.down, layers, s.tokens()},
                         Row{"head", p.head, pieces * s.micro_batches, head_tokens}}) {
    const Product plain{row.product.in, row.product.out};
    const std::string name = row.name;
    cases.push_back({"linear " + name, row.calls, linear(s.dtype, row.tokens, plain)});
    cases.push_back({"linear_input_grad " + name, row.calls, linear_input_grad(s.dtype, row.tokens, plain)});
    cases.push_back(
        {"linear_weight_grad " + name, row.calls, linear_weight_grad(s.dtype, row.tokens, plain, Accumulate::kStore)});
  }
  return cases;
}

}  // namespace caravan::bench
