// What the headers of ops promise about the arguments of backward ops, AdamW and elementwise ops, about no work, and
// about the dry run.
#include "caravan/ops/reading.h"
#include "tests/ops/contract.h"
#include "tests/ops/grad_runs.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

constexpr Accumulate kStore = Accumulate::kStore;
constexpr Accumulate kAdd = Accumulate::kAdd;

TEST(LinearInputGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor dx = floats(ctx, {4, 8});
  const Tensor dy = floats(ctx, {4, 6});
  const Weight w(floats(ctx, {6, 8}));
  const auto call = [&](const Tensor& a, const Tensor& b, const Weight& c) { linear_input_grad(ctx, a, b, c, kStore); };
  EXPECT_NO_THROW(call(dx, dy, w));
  EXPECT_SHAPE_ERROR(call(dx, {}, w), "linear_input_grad", "dy", "found none");
  EXPECT_SHAPE_ERROR(call(dx, floats(ctx, {4, 6}, DType::kI32), w), "linear_input_grad", "dy", "i32");
  EXPECT_SHAPE_ERROR(call(dx, dy, Weight()), "linear_input_grad", "w", "found none");
  EXPECT_SHAPE_ERROR(call(dx, dy, Weight(floats(ctx, {7, 8}))), "linear_input_grad", "w", "[7, 8]");
  EXPECT_SHAPE_ERROR(call(dx, dy, Weight(floats(ctx, {6, 8}, DType::kF16))), "linear_input_grad", "w", "f16");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {4, 7}), dy, w), "linear_input_grad", "dx", "[4, 7]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {4, 8}, DType::kF64), dy, w), "linear_input_grad", "dx", "f64");
  const Tensor product = floats(ctx, {4, 16});
  EXPECT_NO_THROW(call(product.column_range(0, 8), product.column_range(8, 14), w));
  EXPECT_SHAPE_ERROR(call(product.column_range(0, 8), product.column_range(7, 13), w), "linear_input_grad", "dx",
                     "an overlap");
}

TEST(LinearWeightGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor dw = floats(ctx, {6, 8});
  const Tensor dy = floats(ctx, {4, 6}, DType::kBF16);
  const Tensor x = floats(ctx, {4, 8}, DType::kBF16);
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c) { linear_weight_grad(ctx, a, b, c, kAdd); };
  EXPECT_NO_THROW(call(dw, dy, x));
  EXPECT_SHAPE_ERROR(call(dw, floats(ctx, {6}), x), "linear_weight_grad", "dy", "[6]");
  EXPECT_SHAPE_ERROR(call(dw, dy, floats(ctx, {3, 8}, DType::kBF16)), "linear_weight_grad", "x", "[3, 8]");
  EXPECT_SHAPE_ERROR(call(dw, dy, floats(ctx, {4, 8})), "linear_weight_grad", "x", "f32");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {8, 6}), dy, x), "linear_weight_grad", "dw", "[8, 6]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {6, 8}, DType::kBF16), dy, x), "linear_weight_grad", "dw", "bf16");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {6, 9}).column_range(0, 8), dy, x), "linear_weight_grad", "dw", "9 elements");
  EXPECT_SHAPE_ERROR(call(dw, floats(ctx, {4, 6}, DType::kF64), floats(ctx, {4, 8}, DType::kF64)), "linear_weight_grad",
                     "dw", "f32");
  const Tensor square = floats(ctx, {4, 4});
  EXPECT_SHAPE_ERROR(call(square, square, floats(ctx, {4, 4})), "linear_weight_grad", "dw", "an overlap");
}

TEST(BiasGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const auto call = [&](const Tensor& db, const Tensor& dy) { bias_grad(ctx, db, dy, kAdd); };
  EXPECT_NO_THROW(call(floats(ctx, {6}), floats(ctx, {4, 6}, DType::kF16)));
  EXPECT_SHAPE_ERROR(call(floats(ctx, {6}), floats(ctx, {4, 6}, DType::kU8)), "bias_grad", "dy", "u8");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {5}), floats(ctx, {4, 6})), "bias_grad", "db", "[5]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {6}), floats(ctx, {4, 6}, DType::kF64)), "bias_grad", "db", "f32");
  const Tensor dy = floats(ctx, {1, 6});
  EXPECT_SHAPE_ERROR(call(dy.reshape({6}), dy), "bias_grad", "db", "an overlap");
}

TEST(RmsNormInputGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor dx = floats(ctx, {4, 8});
  const Tensor dy = floats(ctx, {4, 8});
  const Tensor x = floats(ctx, {4, 8});
  const Tensor rstd = floats(ctx, {4});
  const Tensor w = floats(ctx, {8});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d, const Tensor& e,
                        Accumulate accumulate = kStore) { rms_norm_input_grad(ctx, a, b, c, d, e, accumulate); };
  EXPECT_NO_THROW(call(dx, dy, x, rstd, w));
  EXPECT_SHAPE_ERROR(call(dx, dy, {}, rstd, w), "rms_norm_input_grad", "x", "none");
  EXPECT_SHAPE_ERROR(call(dx, floats(ctx, {4, 7}), x, rstd, w), "rms_norm_input_grad", "dy", "[4, 7]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {3, 8}), dy, x, rstd, w), "rms_norm_input_grad", "dx", "[3, 8]");
  EXPECT_SHAPE_ERROR(call(dx, dy, x, {}, w), "rms_norm_input_grad", "rstd", "none");
  EXPECT_SHAPE_ERROR(call(dx, dy, x, floats(ctx, {4}, DType::kF64), w), "rms_norm_input_grad", "rstd", "f64");
  EXPECT_SHAPE_ERROR(call(dx, dy, x, rstd, floats(ctx, {7})), "rms_norm_input_grad", "w", "[7]");
  EXPECT_NO_THROW(call(dy, dy, x, rstd, w));
  EXPECT_SHAPE_ERROR(call(dy, dy, x, rstd, w, kAdd), "rms_norm_input_grad", "dx", "an overlap");
  EXPECT_SHAPE_ERROR(call(x, dy, x, rstd, w), "rms_norm_input_grad", "dx", "an overlap");
  const Tensor product = floats(ctx, {4, 12});
  EXPECT_SHAPE_ERROR(call(product.column_range(0, 8), product.column_range(4, 12), x, rstd, w), "rms_norm_input_grad",
                     "dx", "a partial overlap");
}

TEST(RmsNormWeightGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor dw = floats(ctx, {8});
  const Tensor dy = floats(ctx, {4, 8}, DType::kF16);
  const Tensor x = floats(ctx, {4, 8}, DType::kF16);
  const Tensor rstd = floats(ctx, {4});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
    rms_norm_weight_grad(ctx, a, b, c, d, NormRounding::kFused, kStore);
  };
  EXPECT_NO_THROW(call(dw, dy, x, rstd));
  EXPECT_SHAPE_ERROR(call(dw, dy, floats(ctx, {4}), rstd), "rms_norm_weight_grad", "x", "[4]");
  EXPECT_SHAPE_ERROR(call(dw, floats(ctx, {4, 8}), x, rstd), "rms_norm_weight_grad", "dy", "f32");
  EXPECT_SHAPE_ERROR(call(dw, dy, x, floats(ctx, {5})), "rms_norm_weight_grad", "rstd", "[5]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {8}, DType::kF16), dy, x, rstd), "rms_norm_weight_grad", "dw", "f16");
  const Tensor four = floats(ctx, {4});
  const Tensor square = floats(ctx, {4, 4}, DType::kF16);
  EXPECT_SHAPE_ERROR(call(four, square, floats(ctx, {4, 4}, DType::kF16), four), "rms_norm_weight_grad", "dw",
                     "an overlap");
}

TEST(SwigluGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor dy = floats(ctx, {2, 4});
  const Tensor gate_up = floats(ctx, {2, 8});
  const Tensor wide = floats(ctx, {2, 20});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c) { swiglu_grad(ctx, a, b, c); };
  EXPECT_NO_THROW(call(gate_up, dy, gate_up));
  EXPECT_NO_THROW(call(wide.column_range(0, 8), dy, wide.column_range(8, 16)));
  EXPECT_SHAPE_ERROR(call(gate_up, {}, gate_up), "swiglu_grad", "dy", "none");
  EXPECT_SHAPE_ERROR(call(gate_up, wide.column_range(0, 4), gate_up), "swiglu_grad", "dy", "20 elements");
  EXPECT_SHAPE_ERROR(call(gate_up, dy, floats(ctx, {2, 7})), "swiglu_grad", "gate_up", "[2, 7]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {2, 8}, DType::kF64), dy, gate_up), "swiglu_grad", "d_gate_up", "f64");
  EXPECT_SHAPE_ERROR(call(wide.column_range(0, 8), dy, wide.column_range(4, 12)), "swiglu_grad", "d_gate_up",
                     "a partial overlap");
  EXPECT_SHAPE_ERROR(call(gate_up.row_range(0, 1), gate_up.row_range(0, 1).column_range(0, 4), floats(ctx, {1, 8})),
                     "swiglu_grad", "d_gate_up", "an overlap");
}

TEST(EmbeddingWeightGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor d_table = floats(ctx, {7, 4});
  const Tensor dy = floats(ctx, {2, 4}, DType::kBF16);
  const Tensor ids = from_ints(ctx, {0, -1});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c) { embedding_weight_grad(ctx, a, b, c); };
  EXPECT_NO_THROW(call(d_table, dy, ids));
  EXPECT_SHAPE_ERROR(call(d_table, {}, ids), "embedding_weight_grad", "dy", "none");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {7, 5}), dy, ids), "embedding_weight_grad", "d_table", "[7, 5]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {7, 4}, DType::kBF16), dy, ids), "embedding_weight_grad", "d_table", "bf16");
  EXPECT_SHAPE_ERROR(call(d_table, dy, from_ints(ctx, {0})), "embedding_weight_grad", "ids", "[1]");
  const Tensor rows = floats(ctx, {9, 4});
  EXPECT_SHAPE_ERROR(call(rows.row_range(0, 7), rows.row_range(6, 8), ids), "embedding_weight_grad", "d_table",
                     "an overlap");
}

TEST(EmbeddingWeightGradContract, NamesRowAndIdBeyondTheVocabularyOnEitherBackend) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    const Tensor d_table = ones(ctx, DType::kF32, {7, 4});
    const std::string sentence = thrown<InputError>([&] {
      embedding_weight_grad(ctx, d_table, ones(ctx, DType::kF32, {3, 4}), from_ints(ctx, {6, -1, 7}));
    });
    EXPECT_TRUE(sentence.starts_with("embedding: row 2: token id 7 is not below the vocabulary's 7")) << sentence;
    EXPECT_EQ(to_doubles(d_table), Doubles(28, 1)) << "written before the check";
  }
}

TEST(AttentionGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  struct Arguments {
    Tensor d_query, d_key, d_value, d_out, query, key, value, out, lse;
  };
  const Arguments good = {floats(ctx, {3, 32}), floats(ctx, {5, 16}), floats(ctx, {5, 16}),
                          floats(ctx, {3, 32}), floats(ctx, {3, 32}), floats(ctx, {5, 16}),
                          floats(ctx, {5, 16}), floats(ctx, {3, 32}), ones(ctx, DType::kF32, {3, 4})};
  const auto call = [&](const std::function<void(Arguments&)>& change, const HeadShape& heads = {4, 2, 8},
                        const std::vector<AttentionRange>& ranges = {{0, 3, 0, 5, 2}}) {
    Arguments a = good;
    change(a);
    attention_grad(ctx, a.d_query, a.d_key, a.d_value, a.d_out, a.query, a.key, a.value, a.out, a.lse, heads, ranges,
                   1);
  };
  const auto nothing = [](Arguments&) {};
  EXPECT_NO_THROW(call(nothing));
  EXPECT_SHAPE_ERROR(call(nothing, {4, 3, 8}), "attention_grad", "heads", "4 heads, 3 kv_heads");
  EXPECT_SHAPE_ERROR(call(nothing, {4, 2, 7}), "attention_grad", "query", "[3, 32]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.key = a.query; }), "attention_grad", "key", "[3, 32]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.value = a.value.row_range(0, 4); }), "attention_grad", "value", "[4, 16]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.out = {}; }), "attention_grad", "out", "none");
  EXPECT_SHAPE_ERROR(call([&](auto& a) {
                       a.d_out = floats(ctx, {3, 32}, DType::kF16);
                     }),
                     "attention_grad", "d_out", "f16");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.lse = {}; }), "attention_grad", "lse", "none");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.lse = floats(ctx, {3, 3}); }), "attention_grad", "lse", "[3, 3]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_query = {}; }), "attention_grad", "d_query", "none");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_key = floats(ctx, {4, 16}); }), "attention_grad", "d_key", "[4, 16]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_value = floats(ctx, {5, 8}); }), "attention_grad", "d_value", "[5, 8]");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_query = a.query; }), "attention_grad", "d_query", "an overlap");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_query = a.d_out; }), "attention_grad", "d_query", "an overlap");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_key = a.value; }), "attention_grad", "d_key", "an overlap");
  EXPECT_SHAPE_ERROR(call([&](auto& a) { a.d_value = a.d_key; }), "attention_grad", "d_key", "an overlap");
  const std::string sentence = thrown<ShapeError>([&] { call(nothing, {4, 2, 8}, {{0, 4, 0, 5, 0}}); });
  EXPECT_TRUE(sentence.starts_with("attention_grad: argument ranges: ")) << sentence;
}

TEST(LossHeadWithGradContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor nll = floats(ctx, {2});
  const Tensor d_hidden = floats(ctx, {2, 4}, DType::kBF16);
  const Tensor dw = ones(ctx, DType::kF32, {7, 4});
  const Tensor hidden = ones(ctx, DType::kBF16, {2, 4});
  const Weight w(ones(ctx, DType::kBF16, {7, 4}));
  const Tensor targets = from_ints(ctx, {0, 1});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d, const Weight& e,
                        const Tensor& f) { loss_head_with_grad(ctx, a, b, c, d, e, f, 0.5); };
  EXPECT_NO_THROW(call(nll, d_hidden, dw, hidden, w, targets));
  EXPECT_NO_THROW(call(nll, d_hidden, {}, hidden, w, targets));
  EXPECT_SHAPE_ERROR(call(nll, d_hidden, dw, {}, w, targets), "loss_head_with_grad", "hidden", "none");
  EXPECT_SHAPE_ERROR(call(nll, d_hidden, dw, hidden, Weight(), targets), "loss_head_with_grad", "w", "none");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {3}), d_hidden, dw, hidden, w, targets), "loss_head_with_grad", "token_nll",
                     "[3]");
  EXPECT_SHAPE_ERROR(call(nll, d_hidden, dw, hidden, w, from_ints(ctx, {1})), "loss_head_with_grad", "targets", "[1]");
  EXPECT_SHAPE_ERROR(call(nll, {}, dw, hidden, w, targets), "loss_head_with_grad", "d_hidden", "none");
  EXPECT_SHAPE_ERROR(call(nll, floats(ctx, {2, 4}), dw, hidden, w, targets), "loss_head_with_grad", "d_hidden", "f32");
  EXPECT_SHAPE_ERROR(call(nll, d_hidden, floats(ctx, {7, 4}, DType::kBF16), hidden, w, targets), "loss_head_with_grad",
                     "dw", "bf16");
  EXPECT_SHAPE_ERROR(call(nll, d_hidden, floats(ctx, {4, 7}), hidden, w, targets), "loss_head_with_grad", "dw",
                     "[4, 7]");
  EXPECT_SHAPE_ERROR(call(nll, hidden, dw, hidden, w, targets), "loss_head_with_grad", "d_hidden", "an overlap");
  EXPECT_SHAPE_ERROR(call({}, d_hidden, dw, hidden, w, targets), "loss_head_with_grad", "token_nll", "none");
}

TEST(LossHeadWithGradContract, NamesRowAndTargetOutsideTheVocabularyOnEitherBackend) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    for (const DType dtype : kFloats) {
      const DType statistics = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
      const Tensor dw = ones(ctx, statistics, {7, 4});
      const std::string sentence = thrown<InputError>([&] {
        loss_head_with_grad(ctx, floats(ctx, {2}, statistics), floats(ctx, {2, 4}, dtype), dw, ones(ctx, dtype, {2, 4}),
                            Weight(ones(ctx, dtype, {7, 4})), from_ints(ctx, {6, 7}), 1);
      });
      EXPECT_TRUE(sentence.starts_with("loss head: row 1: target 7 is neither in [0, 7) nor -100")) << sentence;
      EXPECT_EQ(to_doubles(dw), Doubles(28, 1)) << "written before the check";
    }
  }
}

TEST(ElementwiseContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor x = floats(ctx, {2, 4});
  EXPECT_SHAPE_ERROR(add(ctx, {}, x, x), "add", "y", "none");
  EXPECT_SHAPE_ERROR(add(ctx, floats(ctx, {2, 4}, DType::kI32), x, x), "add", "y", "i32");
  EXPECT_SHAPE_ERROR(add(ctx, x, floats(ctx, {4, 2}), x), "add", "a", "[4, 2]");
  EXPECT_SHAPE_ERROR(add(ctx, x, x, floats(ctx, {2, 4}, DType::kBF16)), "add", "b", "bf16");
  const Tensor wide = floats(ctx, {2, 8});
  EXPECT_NO_THROW(add(ctx, x, x, x));
  EXPECT_SHAPE_ERROR(add(ctx, wide.column_range(0, 4), wide.column_range(2, 6), x), "add", "y", "a partial overlap");
  EXPECT_SHAPE_ERROR(add(ctx, wide.column_range(0, 4), x, wide.column_range(2, 6)), "add", "y", "a partial overlap");

  EXPECT_SHAPE_ERROR(convert(ctx, {}, x), "convert", "y", "none");
  EXPECT_SHAPE_ERROR(convert(ctx, floats(ctx, {2, 4}, DType::kF8E4M3), x), "convert", "y", "f8e4m3");
  EXPECT_SHAPE_ERROR(convert(ctx, x, floats(ctx, {2, 4}, DType::kI64)), "convert", "x", "i64");
  EXPECT_SHAPE_ERROR(convert(ctx, x, floats(ctx, {8}, DType::kBF16)), "convert", "x", "[8]");
  EXPECT_SHAPE_ERROR(convert(ctx, x, x), "convert", "y", "an overlap");

  EXPECT_SHAPE_ERROR(zero(ctx, {}), "zero", "y", "none");
  Context meta = make_context({.dry_run = true, .memory_capacity = kCapacity});
  EXPECT_SHAPE_ERROR(zero(ctx, floats(meta, {2})), "zero", "y", "on meta");
  const Tensor ids = from_ints(ctx, {3, 4});
  zero(ctx, ids);
  EXPECT_EQ(to_doubles(ids), (Doubles{0, 0}));
}

TEST(AdamWContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor master = ones(ctx, DType::kF32, {2, 4});
  const Tensor m = ones(ctx, DType::kF32, {2, 4});
  const Tensor v = ones(ctx, DType::kF32, {2, 4});
  const Tensor gradient = ones(ctx, DType::kF32, {2, 4});
  EXPECT_NO_THROW(adamw(ctx, master, m, v, gradient, {}));
  EXPECT_SHAPE_ERROR(adamw(ctx, {}, m, v, gradient, {}), "adamw", "master", "none");
  EXPECT_SHAPE_ERROR(adamw(ctx, floats(ctx, {2, 4}, DType::kBF16), m, v, gradient, {}), "adamw", "master", "bf16");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, floats(ctx, {8}), v, gradient, {}), "adamw", "m", "[8]");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, floats(ctx, {2, 4}, DType::kF64), gradient, {}), "adamw", "v", "f64");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, v, floats(ctx, {2, 5}).column_range(0, 4), {}), "adamw", "gradient",
                     "5 elements");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, m, gradient, {}), "adamw", "m", "an overlap");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, v, master, {}), "adamw", "master", "an overlap");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, v, gradient, {.step = 0}), "adamw", "settings", "step 0");
  EXPECT_SHAPE_ERROR(adamw(ctx, master, m, v, gradient, {}, floats(ctx, {kStepFields})), "adamw", "record", "f32");
}

TEST(StepRecordContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  EXPECT_SHAPE_ERROR(decide_step(ctx, floats(ctx, {kStepFields}), {}), "decide_step", "record", "f32");
  EXPECT_SHAPE_ERROR(decide_step(ctx, floats(ctx, {3}, DType::kF64), {}), "decide_step", "record", "[3]");
  const Tensor sum = from_doubles(ctx, DType::kF64, {1}, {0});
  EXPECT_SHAPE_ERROR(add_sum(ctx, floats(ctx, {1}), floats(ctx, {4})), "add_sum", "sum", "f32");
  EXPECT_SHAPE_ERROR(add_sum(ctx, sum, from_ints(ctx, {1})), "add_sum", "x", "i32");
  EXPECT_SHAPE_ERROR(add_sum(ctx, sum, floats(ctx, {2, 5}).column_range(0, 4)), "add_sum", "x", "5 elements");
  EXPECT_SHAPE_ERROR(add_sum(ctx, sum, sum), "add_sum", "sum", "an overlap");
}

TEST(SumOfSquaresContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor sum = from_doubles(ctx, DType::kF64, {1}, {0});
  EXPECT_SHAPE_ERROR(add_sum_of_squares(ctx, floats(ctx, {1}), floats(ctx, {4})), "add_sum_of_squares", "sum", "f32");
  EXPECT_SHAPE_ERROR(add_sum_of_squares(ctx, floats(ctx, {2}, DType::kF64), floats(ctx, {4})), "add_sum_of_squares",
                     "sum", "[2]");
  EXPECT_SHAPE_ERROR(add_sum_of_squares(ctx, sum, from_ints(ctx, {1})), "add_sum_of_squares", "x", "i32");
  EXPECT_SHAPE_ERROR(add_sum_of_squares(ctx, sum, floats(ctx, {2, 5}).column_range(0, 4)), "add_sum_of_squares", "x",
                     "5 elements");
  EXPECT_SHAPE_ERROR(add_sum_of_squares(ctx, sum, sum), "add_sum_of_squares", "sum", "an overlap");
}

TEST(SumWordsContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor sum = ctx.allocate(DType::kI64, {1});
  EXPECT_SHAPE_ERROR(sum_words(ctx, floats(ctx, {1}), floats(ctx, {4})), "sum_words", "sum", "f32");
  EXPECT_SHAPE_ERROR(sum_words(ctx, sum, floats(ctx, {3})), "sum_words", "x", "8 bytes");
  EXPECT_SHAPE_ERROR(sum_words(ctx, sum, floats(ctx, {2, 5}).column_range(0, 4)), "sum_words", "x", "5 elements");
  EXPECT_SHAPE_ERROR(sum_words(ctx, sum, {}), "sum_words", "x", "none");
  EXPECT_SHAPE_ERROR(sum_words(ctx, sum, sum), "sum_words", "sum", "an overlap");
}

TEST(NoTokens, LeaveZerosWhenStoringAndNothingElseWhenAdding) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    for (const Accumulate accumulate : {kStore, kAdd}) {
      const double expected = accumulate == kStore ? 0 : 1;
      const Tensor dw = ones(ctx, DType::kF32, {3, 2});
      linear_weight_grad(ctx, dw, floats(ctx, {0, 3}), floats(ctx, {0, 2}), accumulate);
      EXPECT_EQ(to_doubles(dw), Doubles(6, expected));
      const Tensor db = ones(ctx, DType::kF32, {3});
      bias_grad(ctx, db, floats(ctx, {0, 3}), accumulate);
      EXPECT_EQ(to_doubles(db), Doubles(3, expected));
      const Tensor norm = ones(ctx, DType::kF32, {2});
      rms_norm_weight_grad(ctx, norm, floats(ctx, {0, 2}), floats(ctx, {0, 2}), floats(ctx, {0}), NormRounding::kFused,
                           accumulate);
      EXPECT_EQ(to_doubles(norm), Doubles(2, expected));
      const Tensor dx = ones(ctx, DType::kF32, {4, 2});
      linear_input_grad(ctx, dx, floats(ctx, {4, 0}), Weight(floats(ctx, {0, 2})), accumulate);
      EXPECT_EQ(to_doubles(dx), Doubles(8, expected)) << "no outputs";
    }
    const Tensor d_key = ones(ctx, DType::kF32, {3, 8});
    const Tensor d_value = ones(ctx, DType::kF32, {3, 8});
    const Tensor none = floats(ctx, {0, 8});
    attention_grad(ctx, none, d_key, d_value, none, none, floats(ctx, {3, 8}), floats(ctx, {3, 8}), none,
                   floats(ctx, {0, 1}), {1, 1, 8}, {}, 1);
    EXPECT_EQ(to_doubles(d_key), Doubles(24, 0)) << "no queries";
    EXPECT_EQ(to_doubles(d_value), Doubles(24, 0)) << "no queries";
    const Tensor dw = ones(ctx, DType::kF32, {3, 2});
    loss_head_with_grad(ctx, floats(ctx, {0}), floats(ctx, {0, 2}), dw, floats(ctx, {0, 2}),
                        Weight(floats(ctx, {3, 2})), floats(ctx, {0}, DType::kI32), 1);
    embedding_weight_grad(ctx, dw, floats(ctx, {0, 2}), floats(ctx, {0}, DType::kI32));
    EXPECT_EQ(to_doubles(dw), Doubles(6, 1));
  }
}

void run_every_backward_op(Context& ctx, DType dtype) {
  const DType statistics = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const auto gradient = [&](const Shape& shape) { return ones(ctx, statistics, shape); };
  const auto activations = [&](const Shape& shape) { return ones(ctx, dtype, shape); };
  const std::vector<AttentionRange> ranges = {{0, 20, 0, 20, 0}, {20, 30, 20, 30, 0}};
  const Weight qkv(activations({128, 70}));
  const Weight head(activations({499, 70}));
  const Tensor x = activations({33, 70});
  const Tensor product = activations({33, 128});
  const Tensor zeros = from_ints(ctx, std::vector<std::int32_t>(33, 0));
  const Tensor dw = gradient({128, 70});
  const Tensor d_head = gradient({499, 70});
  const Tensor dx = activations({33, 70});
  loss_head_with_grad(ctx, gradient({33}), dx, d_head, x, head, zeros, 1.0 / 33);
  loss_head_with_grad(ctx, gradient({33}), dx, {}, x, head, zeros, 1.0 / 33);
  const Tensor d_product = activations({33, 128});
  swiglu_grad(ctx, d_product, activations({33, 64}), product);
  attention_grad(ctx, d_product.column_range(0, 64), d_product.column_range(64, 96), d_product.column_range(96, 128),
                 activations({33, 64}), product.column_range(0, 64), product.column_range(64, 96),
                 product.column_range(96, 128), activations({33, 64}), gradient({33, 4}), {4, 2, 16}, ranges, 0.25);
  for (const Accumulate accumulate : {kStore, kAdd}) {
    linear_input_grad(ctx, dx, d_product, qkv, accumulate);
    linear_input_grad(ctx, dx, product.column_range(0, 70), Weight(activations({70, 70})), accumulate);
    linear_weight_grad(ctx, dw, d_product, x, accumulate);
    linear_weight_grad(ctx, gradient({70, 70}), d_product.column_range(3, 73), product.column_range(5, 75), accumulate);
    linear_weight_grad(ctx, dw, d_product.row_range(0, 0), x.row_range(0, 0), accumulate);
    bias_grad(ctx, gradient({128}), d_product, accumulate);
    rms_norm_input_grad(ctx, dx, activations({33, 70}), x, gradient({33}), activations({70}), accumulate);
    rms_norm_weight_grad(ctx, gradient({70}), dx, x, gradient({33}), NormRounding::kHuggingFace, accumulate);
  }
  embedding_weight_grad(ctx, d_head, dx, zeros);
  add(ctx, dx, dx, x);
  convert(ctx, floats(ctx, {33, 70}, DType::kBF16), gradient({33, 70}));
  zero(ctx, product.column_range(1, 100));
  add_sum_of_squares(ctx, ones(ctx, DType::kF64, {1}), d_head);
  adamw(ctx, gradient({499, 70}), gradient({499, 70}), gradient({499, 70}), d_head, {});
}

TEST(DryRun, HoldsWhatARealBackwardHoldsToTheByte) {
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    for (const DType dtype : kFloats) {
      SCOPED_TRACE(std::string(to_string(backend)) + " " + to_string(dtype));
      expect_dry_run_predicts(backend, [&](Context& ctx) { run_every_backward_op(ctx, dtype); });
    }
  }
}

}  // namespace
}  // namespace caravan::ops::testing
