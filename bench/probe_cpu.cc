// Times single ops of the CPU backend.  probe_torch.py times the same cases, probe_cpu_vs_torch.sh prints the ratios.
//
//   probe_cpu [--threads N] [--seconds S] [--filter TEXT] [--clock wall|cpu]
//
// The cpu clock, with one thread, gives times that others on the machine disturb less.
//
// Prints a line a case: name, best seconds of a call, and its rate (G flop/s, or GB/s for the row ops).
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "caravan/ops/adamw.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/swiglu.h"
#include "caravan/tensor/copy.h"

namespace {

using namespace caravan;
using namespace caravan::ops;

struct Options {
  int threads = 0;
  double seconds = 1.0;
  std::string filter;
  std::string clock = "wall";
};

class Probe {
 public:
  explicit Probe(const Options& options) : options_(options), ctx_(make_context({.threads = options.threads})) {}

  Context& ctx() { return ctx_; }

  bool wanted(const std::string& name) const { return name.find(options_.filter) != std::string::npos; }

  // Values in (-0.5, 0.5), different from element to element.
  Tensor values(DType dtype, const Shape& shape) {
    const Tensor tensor = ctx_.allocate(dtype, shape);
    std::vector<float> floats(static_cast<std::size_t>(tensor.elements()));
    std::uint32_t state = 1;
    for (float& value : floats) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state >> 8) / 16777216.0F - 0.5F;
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
    convert_elements(dtype, bytes.data(), DType::kF32, reinterpret_cast<const std::byte*>(floats.data()),
                     tensor.elements());
    copy_from_host(tensor, bytes);
    return tensor;
  }

  // `work` in flop or bytes of one call.
  void time(const std::string& name, double work, const std::function<void()>& call) {
    call();
    call();
    double best = 1e30;
    double total = 0;
    for (int calls = 0; calls < 3 || total < options_.seconds; ++calls) {
      const double begin = now();
      call();
      const double took = now() - begin;
      best = took < best ? took : best;
      total += took;
    }
    std::printf("%s\t%.9f\t%.1f\n", name.c_str(), best, work / best / 1e9);
    std::fflush(stdout);
  }

 private:
  // Seconds.
  double now() const {
    timespec time{};
    clock_gettime(options_.clock == "cpu" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  Options options_;
  Context ctx_;
};

void probe_linear(Probe& probe, DType dtype, std::int64_t tokens, std::int64_t in, std::int64_t out) {
  const std::string name = std::string("linear ") + to_string(dtype) + " " + std::to_string(tokens) + "x" +
                           std::to_string(in) + "x" + std::to_string(out);
  if (!probe.wanted(name)) {
    return;
  }
  const Tensor x = probe.values(dtype, {tokens, in});
  const Weight w(probe.values(dtype, {out, in}));
  const Tensor y = probe.ctx().allocate(dtype, {tokens, out});
  const double flop = 2.0 * static_cast<double>(tokens) * static_cast<double>(in) * static_cast<double>(out);
  probe.time(name, flop, [&] { linear(probe.ctx(), y, x, w); });
}

void probe_linear_grad(Probe& probe, DType dtype, std::int64_t tokens, std::int64_t in, std::int64_t out) {
  const std::string shape = std::string(to_string(dtype)) + " " + std::to_string(tokens) + "x" + std::to_string(in) +
                            "x" + std::to_string(out);
  const double flop = 2.0 * static_cast<double>(tokens) * static_cast<double>(in) * static_cast<double>(out);
  const Tensor dy = probe.values(dtype, {tokens, out});
  if (probe.wanted("linear_dx " + shape)) {
    const Weight w(probe.values(dtype, {out, in}));
    const Tensor dx = probe.ctx().allocate(dtype, {tokens, in});
    probe.time("linear_dx " + shape, flop, [&] { linear_input_grad(probe.ctx(), dx, dy, w, Accumulate::kStore); });
  }
  if (probe.wanted("linear_dw " + shape)) {
    const Tensor x = probe.values(dtype, {tokens, in});
    const Tensor dw = probe.values(DType::kF32, {out, in});
    probe.time("linear_dw " + shape, flop, [&] { linear_weight_grad(probe.ctx(), dw, dy, x, Accumulate::kAdd); });
  }
}

// `sequences` causal sequences of `length` tokens; or, with `keys` > 0, one query a sequence over that many keys.
void probe_attention(Probe& probe, DType dtype, std::int64_t sequences, std::int64_t length, std::int64_t kv_heads,
                     std::int64_t keys) {
  constexpr std::int64_t kHeads = 12;
  constexpr std::int64_t kHeadDim = 64;
  const std::string name = std::string(keys > 0 ? "decode " : "attention ") + to_string(dtype) + " " +
                           std::to_string(sequences) + "x" + std::to_string(keys > 0 ? keys : length) + " kv" +
                           std::to_string(kv_heads);
  if (!probe.wanted(name)) {
    return;
  }
  std::vector<AttentionRange> ranges;
  const std::int64_t key_length = keys > 0 ? keys : length;
  for (std::int64_t i = 0; i < sequences; ++i) {
    ranges.push_back({i * length, (i + 1) * length, i * key_length, (i + 1) * key_length, key_length - length});
  }
  const Tensor query = probe.values(dtype, {sequences * length, kHeads * kHeadDim});
  const Tensor key = probe.values(dtype, {sequences * key_length, kv_heads * kHeadDim});
  const Tensor value = probe.values(dtype, {sequences * key_length, kv_heads * kHeadDim});
  const Tensor out = probe.ctx().allocate(dtype, {sequences * length, kHeads * kHeadDim});
  const double flop = 4.0 * static_cast<double>(visible_pairs(ranges)) * kHeads * kHeadDim;
  probe.time(name, flop, [&] {
    attention(probe.ctx(), out, {}, query, key, value, {kHeads, kv_heads, kHeadDim}, ranges, 0.125);
  });
}

// The backward of `sequences` causal sequences; its rate counts five products of the visible pairs.
void probe_attention_grad(Probe& probe, DType dtype, std::int64_t sequences, std::int64_t length,
                          std::int64_t kv_heads) {
  constexpr std::int64_t kHeads = 12;
  constexpr std::int64_t kHeadDim = 64;
  const std::string name = std::string("attention_grad ") + to_string(dtype) + " " + std::to_string(sequences) + "x" +
                           std::to_string(length) + " kv" + std::to_string(kv_heads);
  if (!probe.wanted(name)) {
    return;
  }
  std::vector<AttentionRange> ranges;
  for (std::int64_t i = 0; i < sequences; ++i) {
    ranges.push_back({i * length, (i + 1) * length, i * length, (i + 1) * length, 0});
  }
  const std::int64_t tokens = sequences * length;
  const HeadShape heads{kHeads, kv_heads, kHeadDim};
  const Tensor query = probe.values(dtype, {tokens, kHeads * kHeadDim});
  const Tensor key = probe.values(dtype, {tokens, kv_heads * kHeadDim});
  const Tensor value = probe.values(dtype, {tokens, kv_heads * kHeadDim});
  const Tensor d_out = probe.values(dtype, {tokens, kHeads * kHeadDim});
  const Tensor out = probe.ctx().allocate(dtype, query.shape());
  const Tensor lse = probe.ctx().allocate(DType::kF32, {tokens, kHeads});
  const Tensor d_query = probe.ctx().allocate(dtype, query.shape());
  const Tensor d_key = probe.ctx().allocate(dtype, key.shape());
  const Tensor d_value = probe.ctx().allocate(dtype, key.shape());
  attention(probe.ctx(), out, lse, query, key, value, heads, ranges, 0.125);
  const double flop = 10.0 * static_cast<double>(visible_pairs(ranges)) * kHeads * kHeadDim;
  probe.time(name, flop, [&] {
    attention_grad(probe.ctx(), d_query, d_key, d_value, d_out, query, key, value, out, lse, heads, ranges, 0.125);
  });
}

// Forward, or forward and backward with the gradients of hidden rows and weight.
void probe_loss_head(Probe& probe, DType dtype, std::int64_t tokens, std::int64_t hidden, std::int64_t vocab,
                     bool grad) {
  const std::string name = std::string(grad ? "loss_head_grad " : "loss_head ") + to_string(dtype) + " " +
                           std::to_string(tokens) + "x" + std::to_string(hidden) + "x" + std::to_string(vocab);
  if (!probe.wanted(name)) {
    return;
  }
  const Tensor x = probe.values(dtype, {tokens, hidden});
  const Weight w(probe.values(dtype, {vocab, hidden}));
  const Tensor nll = probe.ctx().allocate(DType::kF32, {tokens});
  const Tensor targets = probe.ctx().allocate(DType::kI32, {tokens});
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * 31 % static_cast<std::size_t>(vocab));
  }
  copy_from_host(targets, std::as_bytes(std::span(ids)));
  const double flop = 2.0 * static_cast<double>(tokens) * static_cast<double>(hidden) * static_cast<double>(vocab);
  if (!grad) {
    probe.time(name, flop, [&] { loss_head(probe.ctx(), nll, x, w, targets); });
    return;
  }
  const Tensor dx = probe.ctx().allocate(dtype, {tokens, hidden});
  const Tensor dw = probe.values(DType::kF32, {vocab, hidden});
  const double scale = 1.0 / static_cast<double>(tokens);
  probe.time(name, 3 * flop, [&] { loss_head_with_grad(probe.ctx(), nll, dx, dw, x, w, targets, scale); });
}

void probe_rows(Probe& probe, DType dtype, std::int64_t tokens, std::int64_t features) {
  const std::string shape =
      std::string(to_string(dtype)) + " " + std::to_string(tokens) + "x" + std::to_string(features);
  const double element = static_cast<double>(tokens) * static_cast<double>(features) * size_of(dtype);
  if (probe.wanted("rms_norm " + shape)) {
    const Tensor x = probe.values(dtype, {tokens, features});
    const Tensor w = probe.values(dtype, {features});
    const Tensor y = probe.ctx().allocate(dtype, {tokens, features});
    probe.time("rms_norm " + shape, 2 * element,
               [&] { rms_norm(probe.ctx(), y, {}, x, w, 1e-5, NormRounding::kHuggingFace); });
  }
  if (probe.wanted("swiglu " + shape)) {
    const Tensor gate_up = probe.values(dtype, {tokens, 2 * features});
    const Tensor y = probe.ctx().allocate(dtype, {tokens, features});
    probe.time("swiglu " + shape, 3 * element, [&] { swiglu(probe.ctx(), y, gate_up); });
  }
}

void probe_row_grads(Probe& probe, DType dtype, std::int64_t tokens, std::int64_t features) {
  const std::string shape =
      std::string(to_string(dtype)) + " " + std::to_string(tokens) + "x" + std::to_string(features);
  const double element = static_cast<double>(tokens) * static_cast<double>(features) * size_of(dtype);
  if (probe.wanted("rms_norm_grad " + shape)) {
    const Tensor x = probe.values(dtype, {tokens, features});
    const Tensor dy = probe.values(dtype, {tokens, features});
    const Tensor w = probe.values(dtype, {features});
    const Tensor rstd = probe.values(DType::kF32, {tokens});
    const Tensor dx = probe.ctx().allocate(dtype, {tokens, features});
    const Tensor dw = probe.values(DType::kF32, {features});
    probe.time("rms_norm_grad " + shape, 5 * element, [&] {
      rms_norm_input_grad(probe.ctx(), dx, dy, x, rstd, w, Accumulate::kStore);
      rms_norm_weight_grad(probe.ctx(), dw, dy, x, rstd, NormRounding::kHuggingFace, Accumulate::kAdd);
    });
  }
  if (probe.wanted("swiglu_grad " + shape)) {
    const Tensor gate_up = probe.values(dtype, {tokens, 2 * features});
    const Tensor dy = probe.values(dtype, {tokens, features});
    const Tensor d_gate_up = probe.ctx().allocate(dtype, gate_up.shape());
    probe.time("swiglu_grad " + shape, 5 * element, [&] { swiglu_grad(probe.ctx(), d_gate_up, dy, gate_up); });
  }
}

void probe_adamw(Probe& probe, std::int64_t elements) {
  const std::string name = "adamw f32 " + std::to_string(elements);
  if (!probe.wanted(name)) {
    return;
  }
  const Tensor master = probe.values(DType::kF32, {elements});
  const Tensor m = probe.values(DType::kF32, {elements});
  const Tensor gradient = probe.values(DType::kF32, {elements});
  const Tensor v = probe.ctx().allocate(DType::kF32, {elements});
  zero(probe.ctx(), v);
  probe.time(name, 28.0 * static_cast<double>(elements), [&] { adamw(probe.ctx(), master, m, v, gradient, {}); });
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--threads") == 0) {
      options.threads = std::stoi(argv[i + 1]);
    } else if (std::strcmp(argv[i], "--seconds") == 0) {
      options.seconds = std::stod(argv[i + 1]);
    } else if (std::strcmp(argv[i], "--filter") == 0) {
      options.filter = argv[i + 1];
    } else if (std::strcmp(argv[i], "--clock") == 0) {
      options.clock = argv[i + 1];
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  Probe probe(parse(argc, argv));
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    probe_linear(probe, dtype, 4096, 768, 2048);
    probe_linear(probe, dtype, 4096, 4096, 768);
    probe_linear(probe, dtype, 1, 4096, 768);
    for (const std::int64_t kv_heads : {12, 4}) {
      probe_attention(probe, dtype, 1, 1024, kv_heads, 0);
      probe_attention(probe, dtype, 1, 4096, kv_heads, 0);
      probe_attention(probe, dtype, 4, 1024, kv_heads, 0);
      probe_attention(probe, dtype, 1, 1, kv_heads, 4096);
    }
    probe_loss_head(probe, dtype, 1024, 768, 32000, false);
    probe_rows(probe, dtype, 4096, 768);
    probe_rows(probe, dtype, 4096, 2048);

    probe_linear_grad(probe, dtype, 4096, 768, 2048);
    probe_linear_grad(probe, dtype, 4096, 2048, 768);
    for (const std::int64_t kv_heads : {12, 4}) {
      probe_attention_grad(probe, dtype, 1, 1024, kv_heads);
      probe_attention_grad(probe, dtype, 1, 4096, kv_heads);
      probe_attention_grad(probe, dtype, 4, 1024, kv_heads);
    }
    probe_loss_head(probe, dtype, 1024, 768, 32000, true);
    probe_row_grads(probe, dtype, 4096, 768);
    probe_row_grads(probe, dtype, 4096, 2048);
  }
  probe_adamw(probe, 16 << 20);
  return 0;
}
