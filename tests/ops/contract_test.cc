// What the headers of ops promise about their arguments, about no work, and about the dry run.
#include "tests/ops/contract.h"

#include <algorithm>
#include <cstdlib>

#include "caravan/base/threads.h"
#include "tests/ops/runs.h"

namespace caravan::ops::testing {
namespace {

TEST(LinearContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor x = floats(ctx, {4, 8});
  const Tensor y = floats(ctx, {4, 6});
  const Weight w(floats(ctx, {6, 8}));
  EXPECT_SHAPE_ERROR(linear(ctx, y, {}, w), "linear", "x", "found none");
  EXPECT_SHAPE_ERROR(linear(ctx, y, floats(ctx, {32}), w), "linear", "x", "f32 [32] on host");
  EXPECT_SHAPE_ERROR(linear(ctx, y, floats(ctx, {4, 8}, DType::kI32), w), "linear", "x", "i32 [4, 8] on host");
  EXPECT_SHAPE_ERROR(linear(ctx, y, floats(ctx, {4, 0}), Weight(floats(ctx, {6, 0}))), "linear", "x", "[4, 0]");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, Weight()), "linear", "w", "found none");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, Weight(floats(ctx, {6, 7}))), "linear", "w", "[6, 7]");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, Weight(floats(ctx, {6, 8}, DType::kBF16))), "linear", "w", "bf16");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, Weight(floats(ctx, {6, 9}).column_range(0, 8))), "linear", "w", "9 elements");
  EXPECT_SHAPE_ERROR(linear(ctx, floats(ctx, {4, 5}), x, w), "linear", "y", "[4, 5]");
  EXPECT_SHAPE_ERROR(linear(ctx, floats(ctx, {4, 6}, DType::kF64), x, w), "linear", "y", "f64");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, w, floats(ctx, {5})), "linear", "bias", "[5]");
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, w, {}, floats(ctx, {3, 6})), "linear", "residual", "[3, 6]");
}

TEST(LinearContract, TakesF32OutputOfHalvesOnlyAndAResidualOfItsDtype) {
  Context ctx = small_context();
  const Tensor x = floats(ctx, {4, 8}, DType::kBF16);
  const Weight w(floats(ctx, {6, 8}, DType::kBF16));
  const Tensor y = floats(ctx, {4, 6});
  EXPECT_NO_THROW(linear(ctx, y, x, w));
  EXPECT_SHAPE_ERROR(linear(ctx, y, x, w, {}, floats(ctx, {4, 6}, DType::kBF16)), "linear", "residual", "bf16");
  const Weight wide(floats(ctx, {6, 8}, DType::kF64));
  EXPECT_SHAPE_ERROR(linear(ctx, y, floats(ctx, {4, 8}, DType::kF64), wide), "linear", "y", "f32");
}

TEST(LinearContract, RefusesAliasesButTheResidualAsY) {
  Context ctx = small_context();
  const Tensor product = floats(ctx, {4, 16});
  const Weight w(floats(ctx, {8, 8}));
  const Tensor left = product.column_range(0, 8);
  const Tensor right = product.column_range(8, 16);
  EXPECT_NO_THROW(linear(ctx, left, right, w));
  EXPECT_NO_THROW(linear(ctx, left, right, w, {}, left));
  EXPECT_SHAPE_ERROR(linear(ctx, left, left, w), "linear", "y", "an overlap");
  EXPECT_SHAPE_ERROR(linear(ctx, left, product.column_range(7, 15), w), "linear", "y", "an overlap");
  EXPECT_SHAPE_ERROR(linear(ctx, right, floats(ctx, {4, 8}), w, {}, product.column_range(4, 12)), "linear", "residual",
                     "a partial overlap");
  // Rows of one matrix, one below the other.
  const Tensor rows = floats(ctx, {8, 8});
  EXPECT_NO_THROW(linear(ctx, rows.row_range(0, 4), rows.row_range(4, 8), w));
  EXPECT_SHAPE_ERROR(linear(ctx, rows.row_range(0, 4), rows.row_range(3, 7), w), "linear", "y", "an overlap");
}

TEST(AnyContract, RefusesTensorsOfAnotherDeviceAndContextsWithoutAllocator) {
  Context host = small_context();
  Context meta = make_context({.dry_run = true, .memory_capacity = kCapacity});
  EXPECT_SHAPE_ERROR(swiglu(host, floats(host, {2, 4}), floats(meta, {2, 8})), "swiglu", "gate_up",
                     "f32 [2, 8] on meta");
  Context empty;
  EXPECT_NE(thrown<ShapeError>([&] {
              swiglu(empty, floats(host, {2, 4}), floats(host, {2, 8}));
            }).find("no allocator"),
            std::string::npos);
}

TEST(RmsNormContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor x = floats(ctx, {4, 8});
  const Tensor y = floats(ctx, {4, 8});
  const Tensor w = floats(ctx, {8});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
    rms_norm(ctx, a, b, c, d, 1e-5, NormRounding::kFused);
  };
  EXPECT_NO_THROW(call(x, {}, x, w));
  EXPECT_SHAPE_ERROR(call(floats(ctx, {4, 7}), {}, x, w), "rms_norm", "y", "[4, 7]");
  EXPECT_SHAPE_ERROR(call(y, {}, x, floats(ctx, {7})), "rms_norm", "w", "[7]");
  EXPECT_SHAPE_ERROR(call(y, {}, x, floats(ctx, {8}, DType::kBF16)), "rms_norm", "w", "bf16");
  EXPECT_SHAPE_ERROR(call(y, floats(ctx, {4}, DType::kF64), x, w), "rms_norm", "rstd", "f64");
  EXPECT_SHAPE_ERROR(call(y, floats(ctx, {3}), x, w), "rms_norm", "rstd", "[3]");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {4, 0}), {}, floats(ctx, {4, 0}), floats(ctx, {0})), "rms_norm", "x", "[4, 0]");
  const Tensor wide = floats(ctx, {4, 12});
  EXPECT_SHAPE_ERROR(call(wide.column_range(0, 8), {}, wide.column_range(4, 12), w), "rms_norm", "y",
                     "a partial overlap");
}

TEST(RopeContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor x = floats(ctx, {4, 24});
  const Tensor cos = floats(ctx, {4, 4});
  const Tensor sin = floats(ctx, {4, 4});
  const auto call = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
    rope(ctx, a, b, c, d, RopePairing::kRotateHalf);
  };
  EXPECT_NO_THROW(call(x, x, cos, sin));
  EXPECT_SHAPE_ERROR(call(x, x, floats(ctx, {4, 5}), floats(ctx, {4, 5})), "rope", "x", "[4, 24]");
  EXPECT_SHAPE_ERROR(call(x, x, floats(ctx, {3, 4}), floats(ctx, {3, 4})), "rope", "cos", "[3, 4]");
  EXPECT_SHAPE_ERROR(call(x, x, cos, floats(ctx, {4, 3})), "rope", "sin", "[4, 3]");
  EXPECT_SHAPE_ERROR(call(x, x, floats(ctx, {4, 4}, DType::kF64), floats(ctx, {4, 4}, DType::kF64)), "rope", "cos",
                     "f64");
  EXPECT_SHAPE_ERROR(call(floats(ctx, {4, 16}), x, cos, sin), "rope", "y", "[4, 16]");
}

TEST(RopeTablesContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor cos = floats(ctx, {2, 4});
  const Tensor sin = floats(ctx, {2, 4});
  const Tensor positions = from_ints(ctx, {0, 1});
  const Tensor kind = from_ints(ctx, {0, 0});
  const Tensor frequencies = from_doubles(ctx, DType::kF32, {1, 4}, {1, 0.1, 0.01, 0.001});
  const auto call = [&](const Tensor& c, const Tensor& s, const Tensor& p, const Tensor& f, const Tensor& k,
                        DType rounded_to = DType::kF32) { rope_tables(ctx, c, s, p, f, k, 1, rounded_to); };
  EXPECT_NO_THROW(call(cos, sin, positions, frequencies, kind));
  EXPECT_SHAPE_ERROR(call(floats(ctx, {2, 4}, DType::kBF16), sin, positions, frequencies, kind), "rope_tables", "cos",
                     "bf16");
  EXPECT_SHAPE_ERROR(call(cos, floats(ctx, {2, 3}), positions, frequencies, kind), "rope_tables", "sin", "[2, 3]");
  EXPECT_SHAPE_ERROR(call(cos, cos, positions, frequencies, kind), "rope_tables", "cos", "an overlap");
  EXPECT_SHAPE_ERROR(call(cos, sin, floats(ctx, {2}), frequencies, kind), "rope_tables", "positions", "f32");
  EXPECT_SHAPE_ERROR(call(cos, sin, positions, floats(ctx, {1, 3}), kind), "rope_tables", "frequencies", "[1, 3]");
  EXPECT_SHAPE_ERROR(call(cos, sin, positions, frequencies, from_ints(ctx, {0})), "rope_tables", "kind", "[1]");
  EXPECT_SHAPE_ERROR(call(cos, sin, positions, frequencies, kind, DType::kI32), "rope_tables", "rounded_to", "i32");
}

TEST(RopeTablesContract, RefusesAKindWithoutFrequenciesOnEitherBackend) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    const Tensor cos = floats(ctx, {2, 1});
    const Tensor sin = floats(ctx, {2, 1});
    const Tensor frequencies = from_doubles(ctx, DType::kF32, {3, 1}, {1, 1, 1});
    const auto call = [&](const std::vector<std::int32_t>& kind) {
      rope_tables(ctx, cos, sin, from_ints(ctx, {4, -1}), frequencies, from_ints(ctx, kind), 1, DType::kF32);
    };
    EXPECT_NO_THROW(call({2, 99}));
    EXPECT_NE(thrown<ShapeError>([&] { call({3, 0}); }).find("row 0: kind 3"), std::string::npos);
    EXPECT_NE(thrown<ShapeError>([&] { call({-1, 0}); }).find("row 0: kind -1"), std::string::npos);
  }
}

TEST(AttentionContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor query = floats(ctx, {3, 32});
  const Tensor key = floats(ctx, {5, 16});
  const Tensor value = floats(ctx, {5, 16});
  const Tensor out = floats(ctx, {3, 32});
  const HeadShape heads{4, 2, 8};
  const std::vector<AttentionRange> ranges = {{0, 3, 0, 5, 2}};
  EXPECT_SHAPE_ERROR(attention(ctx, out, {}, query, key, value, {4, 3, 8}, ranges, 1), "attention", "heads",
                     "4 heads, 3 kv_heads");
  EXPECT_SHAPE_ERROR(attention(ctx, out, {}, query, key, value, {0, 0, 8}, ranges, 1), "attention", "heads", "0 heads");
  EXPECT_SHAPE_ERROR(attention(ctx, out, {}, query, key, value, {4, 2, 7}, ranges, 1), "attention", "query", "[3, 32]");
  EXPECT_SHAPE_ERROR(attention(ctx, out, {}, query, query, value, heads, ranges, 1), "attention", "key", "[3, 32]");
  EXPECT_SHAPE_ERROR(attention(ctx, out, {}, query, key, floats(ctx, {4, 16}), heads, ranges, 1), "attention", "value",
                     "[4, 16]");
  EXPECT_SHAPE_ERROR(attention(ctx, floats(ctx, {3, 32}, DType::kF16), {}, query, key, value, heads, ranges, 1),
                     "attention", "out", "f16");
  EXPECT_SHAPE_ERROR(attention(ctx, query, {}, query, key, value, heads, ranges, 1), "attention", "out", "an overlap");
  EXPECT_SHAPE_ERROR(attention(ctx, out, floats(ctx, {3, 3}), query, key, value, heads, ranges, 1), "attention", "lse",
                     "[3, 3]");
  for (const AttentionRange& wrong :
       {AttentionRange{0, 4, 0, 5, 0}, AttentionRange{0, 3, 0, 6, 0}, AttentionRange{0, 3, 0, 5, -1}}) {
    const std::string sentence =
        thrown<ShapeError>([&] { attention(ctx, out, {}, query, key, value, heads, {wrong}, 1); });
    EXPECT_TRUE(sentence.starts_with("attention: argument ranges: ")) << sentence;
  }
}

TEST(SwigluContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor wide = floats(ctx, {2, 12});
  EXPECT_SHAPE_ERROR(swiglu(ctx, floats(ctx, {2, 4}), floats(ctx, {2, 9})), "swiglu", "gate_up", "[2, 9]");
  EXPECT_SHAPE_ERROR(swiglu(ctx, floats(ctx, {2, 4}), floats(ctx, {2, 8}, DType::kBF16)), "swiglu", "gate_up", "bf16");
  EXPECT_SHAPE_ERROR(swiglu(ctx, wide.column_range(0, 4), wide.column_range(4, 12)), "swiglu", "y", "12 elements");
  const Tensor gate_up = floats(ctx, {2, 8});
  EXPECT_SHAPE_ERROR(swiglu(ctx, gate_up.row_range(0, 1).column_range(0, 4), gate_up.row_range(0, 1)), "swiglu", "y",
                     "an overlap");
}

TEST(EmbeddingContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor table = floats(ctx, {7, 4});
  const Tensor ids = from_ints(ctx, {0, 1});
  EXPECT_SHAPE_ERROR(embedding(ctx, floats(ctx, {2, 5}), table, ids), "embedding", "y", "[2, 5]");
  EXPECT_SHAPE_ERROR(embedding(ctx, floats(ctx, {2, 4}, DType::kF16), table, ids), "embedding", "y", "f16");
  EXPECT_SHAPE_ERROR(embedding(ctx, floats(ctx, {3, 4}), table, ids), "embedding", "ids", "[2]");
  EXPECT_SHAPE_ERROR(embedding(ctx, floats(ctx, {2, 4}), table, floats(ctx, {2})), "embedding", "ids", "f32");
}

TEST(EmbeddingContract, NamesRowAndIdBeyondTheVocabularyOnEitherBackend) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    for (const DType dtype : kFloats) {
      const Tensor table = floats(ctx, {7, 4}, dtype);
      const std::string sentence = thrown<InputError>([&] {
        embedding(ctx, floats(ctx, {3, 4}, dtype), table, from_ints(ctx, {6, -1, 7}));
      });
      EXPECT_TRUE(sentence.starts_with("embedding: row 2: token id 7 is not below the vocabulary's 7")) << sentence;
    }
  }
}

TEST(LossHeadContract, NamesTheArgumentThatDoesNotFit) {
  Context ctx = small_context();
  const Tensor hidden = floats(ctx, {2, 4});
  const Weight w(floats(ctx, {7, 4}));
  const Tensor nll = floats(ctx, {2});
  const Tensor targets = from_ints(ctx, {0, 1});
  EXPECT_SHAPE_ERROR(loss_head(ctx, nll, floats(ctx, {2, 5}), w, targets), "loss_head", "w", "[7, 4]");
  EXPECT_SHAPE_ERROR(loss_head(ctx, nll, hidden, Weight(), targets), "loss_head", "w", "none");
  EXPECT_SHAPE_ERROR(loss_head(ctx, nll, hidden, Weight(floats(ctx, {0, 4})), targets), "loss_head", "w", "[0, 4]");
  EXPECT_SHAPE_ERROR(loss_head(ctx, floats(ctx, {3}), hidden, w, targets), "loss_head", "token_nll", "[3]");
  EXPECT_SHAPE_ERROR(loss_head(ctx, floats(ctx, {2}, DType::kF64), hidden, w, targets), "loss_head", "token_nll",
                     "f64");
  EXPECT_SHAPE_ERROR(loss_head(ctx, nll, hidden, w, from_ints(ctx, {0})), "loss_head", "targets", "[1]");
}

TEST(LossHeadContract, NamesRowAndTargetOutsideTheVocabularyOnEitherBackend) {
  Context ctx = small_context();
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    ctx.backend = backend;
    for (const DType dtype : kFloats) {
      const Maker make{ctx, dtype, dtype};
      const Tensor hidden = make.input("hidden", 2, 4, 1).view;
      const Weight w(make.input("w", 7, 4, 1).view);
      const Tensor nll = floats(ctx, {2}, make.statistics());
      const auto call = [&](std::int32_t target) {
        return thrown<InputError>([&] { loss_head(ctx, nll, hidden, w, from_ints(ctx, {6, target})); });
      };
      EXPECT_TRUE(call(7).starts_with("loss head: row 1: target 7 is neither in [0, 7) nor -100")) << call(7);
      EXPECT_TRUE(call(-1).starts_with("loss head: row 1: target -1")) << call(-1);
      EXPECT_EQ(call(kIgnoredTarget), "nothing was thrown");
    }
  }
}

TEST(ContextContract, IsMadeForThisMachine) {
  const Context ctx = make_context({.memory_capacity = kCapacity});
  EXPECT_EQ(ctx.threads, usable_cores());
  EXPECT_EQ(ctx.isa, usable_isa());
  EXPECT_EQ(ctx.allocator->use().capacity, kCapacity);
  EXPECT_FALSE(ctx.dry_run());
  EXPECT_TRUE(make_context({.dry_run = true, .memory_capacity = kCapacity}).dry_run());
  EXPECT_EQ(plans_made(ctx), 0);
  EXPECT_STREQ(to_string(Backend::kCpu), "cpu");
  EXPECT_STREQ(to_string(Backend::kRef), "ref");
  EXPECT_THROW(make_context({.threads = -1}), InputError);
}

TEST(ContextContract, PrintsEachDistinctChoiceOnceWhenAskedToExplain) {
  ::setenv("CARAVAN_EXPLAIN", "1", 1);
  Context ctx = small_context();
  ::unsetenv("CARAVAN_EXPLAIN");
  ctx.backend = Backend::kRef;
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    run(Maker{ctx, DType::kF32, DType::kF32}, SwigluCase{.tokens = 2, .features = 4});
  }
  run(Maker{ctx, DType::kF32, DType::kF32}, EmbeddingCase{.tokens = 2, .vocab = 3, .hidden = 4});
  const std::string printed = ::testing::internal::GetCapturedStderr();
  const auto count = [&](const std::string& start) {
    int found = 0;
    for (std::size_t at = printed.find(start); at != std::string::npos; at = printed.find(start, at + 1)) {
      ++found;
    }
    return found;
  };
  EXPECT_EQ(count("caravan: swiglu: ref"), 1) << printed;
  EXPECT_EQ(count("caravan: embedding: ref"), 1) << printed;
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 2) << printed;
}

TEST(ContextContract, ReportsTheRefusalsBeforeAChoice) {
  Context ctx = small_context();
  std::vector<Choice> choices;
  ctx.on_choice = [&](const Choice& choice) { choices.push_back(choice); };
  run(Maker{ctx, DType::kF64, DType::kF64}, LinearCase{.tokens = 2, .in = 3, .out = 4});
  ASSERT_EQ(choices.size(), 1U);
  EXPECT_EQ(choices[0].op, "linear");
  EXPECT_EQ(choices[0].implementation, "ref");
  EXPECT_FALSE(choices[0].refusals.empty());
}

TEST(ContextContract, TellsHowLongEachCallTookAndNothingOfADryRun) {
  const auto swiglu_of = [](Context& ctx, std::int64_t tokens) {
    std::vector<Timing> timings;
    ctx.on_timed = [&](const Timing& timing) { timings.push_back(timing); };
    swiglu(ctx, floats(ctx, {tokens, 64}), ones(ctx, DType::kF32, {tokens, 128}));
    ctx.on_timed = nullptr;
    return timings;
  };
  Context ctx = small_context();
  const std::vector<Timing> timings = swiglu_of(ctx, 100);
  ASSERT_EQ(timings.size(), 1U);
  EXPECT_STREQ(timings[0].op, "swiglu");
  EXPECT_GT(timings[0].run, 0.0);
  EXPECT_GE(timings[0].prepare, 0.0);
  EXPECT_TRUE(swiglu_of(ctx, 0).empty()) << "nothing is dispatched where there is nothing to compute";
  Context dry = make_context({.dry_run = true, .threads = 1});
  EXPECT_TRUE(swiglu_of(dry, 100).empty());
}

TEST(ContextContract, CountsTheTimeOfCallsInsideACallOnce) {
  Context ctx = small_context();
  std::vector<std::string> told;
  ctx.on_timed = [&](const Timing& timing) { told.emplace_back(timing.op); };
  // The products of a rounded weight convert it as they pack it.
  const Weight w = Weight::rounded(ones(ctx, DType::kF32, {64, 64}), DType::kBF16);
  const Tensor x = ones(ctx, DType::kBF16, {32, 64});
  linear(ctx, floats(ctx, {32, 64}, DType::kBF16), x, w);
  EXPECT_EQ(told, (std::vector<std::string>{"linear"}));
  linear(ctx, floats(ctx, {32, 64}, DType::kBF16), x, w);
  EXPECT_EQ(told, (std::vector<std::string>{"linear", "linear"})) << "the listener is there again";
}

TEST(WeightContract, DropsItsPackedFormsWhenThePlainOneChanged) {
  Context ctx = small_context();
  Weight w(floats(ctx, {2, 2}));
  const Weight copy = w;
  w.packed().emplace("blocked", PackedWeight{floats(ctx, {2, 2})});
  EXPECT_EQ(copy.packed().size(), 1U);
  w.changed();
  EXPECT_TRUE(copy.packed().empty());
  EXPECT_FALSE(Weight().defined());
}

void run_every_op(Context& ctx, DType dtype) {
  const DType statistics = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Weight qkv(ones(ctx, dtype, {128, 70}));
  const Weight head(ones(ctx, dtype, {499, 70}));
  const Tensor x = floats(ctx, {33, 70}, dtype);
  embedding(ctx, x, head.plain(), from_ints(ctx, std::vector<std::int32_t>(33, 498)));
  const Tensor normal = floats(ctx, {33, 70}, dtype);
  rms_norm(ctx, normal, floats(ctx, {33}, statistics), x, ones(ctx, dtype, {70}), 1e-5, NormRounding::kHuggingFace);
  const Tensor product = floats(ctx, {33, 128}, dtype);
  linear(ctx, product, normal, qkv, ones(ctx, dtype, {128}));
  linear(ctx, product, normal, qkv, {}, product);
  const Tensor cos = floats(ctx, {33, 8}, statistics);
  const Tensor sin = floats(ctx, {33, 8}, statistics);
  const Tensor zeros = from_ints(ctx, std::vector<std::int32_t>(33, 0));
  rope_tables(ctx, cos, sin, zeros, ones(ctx, DType::kF32, {1, 8}), zeros, 1, dtype);
  rope(ctx, product.column_range(0, 96), product.column_range(0, 96), cos, sin, RopePairing::kRotateHalf);
  const Tensor mixed = floats(ctx, {33, 64}, dtype);
  attention(ctx, mixed, floats(ctx, {33, 4}, statistics), product.column_range(0, 64), product.column_range(64, 96),
            product.column_range(96, 128), {4, 2, 16}, {{0, 20, 0, 20, 0}, {20, 30, 20, 30, 0}}, 0.25);
  swiglu(ctx, floats(ctx, {33, 64}, dtype), product);
  loss_head(ctx, floats(ctx, {33}, statistics), x, head, zeros);
}

TEST(DryRun, HoldsWhatARealRunHoldsToTheByte) {
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    for (const DType dtype : kFloats) {
      SCOPED_TRACE(std::string(to_string(backend)) + " " + to_string(dtype));
      expect_dry_run_predicts(backend, [&](Context& ctx) { run_every_op(ctx, dtype); });
    }
  }
}

TEST(DryRun, AccountsTheWorkspaceOfTheChosenImplementation) {
  Context meta = make_context({.backend = Backend::kRef, .dry_run = true, .memory_capacity = kCapacity});
  const Tensor hidden = floats(meta, {2, 4});
  loss_head(meta, floats(meta, {2}), hidden, Weight(floats(meta, {499, 4})), floats(meta, {2}, DType::kI32));
  const SegmentUse workspace = meta.allocator->use().segments[static_cast<std::size_t>(Segment::kWorkspace)];
  EXPECT_EQ(workspace.live_bytes, 0);
  // A double a word of the vocabulary, 3992 bytes, to the next multiple of the alignment.
  EXPECT_EQ(workspace.peak_bytes, 63 * OffsetAllocator::kAlignment);
}

}  // namespace
}  // namespace caravan::ops::testing
