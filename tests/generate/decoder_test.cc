#include "caravan/generate/decoder.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/device.h"

namespace caravan::generate {
namespace {

// Both ways sum the same f64 products, in other orders: sums of a hundred terms, some ten of them in a row, far below
// 1e-11 of the result's scale.
constexpr double kF64Bound = 1e-11;
// The same in f32: an epsilon of 6e-8, 1e4 of which are the distance that two orders may grow to over three layers.
constexpr double kF32Bound = 1e-4;

using Ids = std::vector<std::int32_t>;

class EveryRope : public testing::TestWithParam<nn::RopeKind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, EveryRope,
                         testing::Values(nn::RopeKind::kDefault, nn::RopeKind::kLinear, nn::RopeKind::kDynamic,
                                         nn::RopeKind::kYarn, nn::RopeKind::kLongRope, nn::RopeKind::kLlama3),
                         [](const auto& info) { return nn::to_string(info.param); });

void compare_in_pieces(ops::Context& ctx, const TinyModel& model, const std::vector<std::size_t>& pieces,
                       double bound) {
  const Ids ids = random_ids(30, 61);
  Decoder decoder(ctx, *model.llama, {30});
  std::size_t begin = 0;
  for (const std::size_t piece : pieces) {
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto logits = decoder.extend({Ids(first, first + static_cast<std::ptrdiff_t>(piece))});
    begin += piece;
    const Ids whole(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(begin));
    EXPECT_LE(relative_error(to_doubles(logits.at(0)), uncached_logits(ctx, *model.llama, whole)), bound)
        << "after " << begin << " ids, the last " << piece << " of them new";
  }
}

const std::vector<std::vector<std::size_t>> kPieces = {
    {30},                                                                      // a prefill alone
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},  // steps from the first id
    {11, 1, 1, 1, 1},                                                          // steps across the limit of 12
    {12, 1, 12, 1},
    {5, 9, 2, 14},  // a prefill in pieces, one of them across the limit
    {20, 7, 3},     // all beyond it
};

TEST_P(EveryRope, CachedLogitsEqualUncachedOnesInF64) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(GetParam()), DType::kF64);
  for (const auto& pieces : kPieces) {
    compare_in_pieces(ctx, model, pieces, kF64Bound);
  }
}

TEST_P(EveryRope, CachedLogitsEqualUncachedOnesInF32) {
  ops::Context ctx = context_of(test::fast_backend());
  const TinyModel model = tiny_model(ctx, tiny_config(GetParam()), DType::kF32);
  for (const auto& pieces : kPieces) {
    compare_in_pieces(ctx, model, pieces, kF32Bound);
  }
}

TEST_P(EveryRope, SequencesOfUnlikeLengthsGoThroughOnePass) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(GetParam()), DType::kF64);
  Decoder decoder(ctx, *model.llama, {20, 20, 20});
  std::vector<Ids> sequences(3);
  std::uint64_t seed = 0;
  // Ids that each sequence gets in a pass; the limit of 12 is passed by each in another one.
  for (const std::vector<std::size_t>& counts :
       std::vector<std::vector<std::size_t>>{{3, 11, 0}, {1, 1, 5}, {1, 1, 9}, {0, 0, 1}, {10, 1, 1}, {1, 1, 1}}) {
    std::vector<Ids> fresh;
    for (std::size_t i = 0; i < 3; ++i) {
      fresh.push_back(random_ids(counts[i], 61, ++seed));
      sequences[i].insert(sequences[i].end(), fresh[i].begin(), fresh[i].end());
    }
    const std::vector<Tensor> logits = decoder.extend(fresh);
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_EQ(logits[i].defined(), counts[i] > 0);
      if (counts[i] > 0) {
        EXPECT_LE(relative_error(to_doubles(logits[i]), uncached_logits(ctx, *model.llama, sequences[i])), kF64Bound)
            << "sequence " << i << " of " << sequences[i].size();
      }
    }
  }
}

TEST_P(EveryRope, GoesOnFromAPrefixAndRunsOnlyWhatIsNew) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(GetParam()), DType::kF64);
  Decoder decoder(ctx, *model.llama, {20});
  Ids ids = random_ids(20, 61);
  decoder.extend({ids});
  // Cut to a prefix and other ids behind it: beyond the limit of 12 where frequencies change, across it, below it.
  for (const std::size_t kept : {17U, 8U, 3U, 0U}) {
    decoder.keep(0, static_cast<std::int64_t>(kept));
    const std::int64_t before = decoder.ids_run();
    const Ids fresh = random_ids(2, 61, kept + 7);
    ids.resize(kept);
    ids.insert(ids.end(), fresh.begin(), fresh.end());
    const std::vector<Tensor> logits = decoder.extend({fresh});
    EXPECT_LE(relative_error(to_doubles(logits.at(0)), uncached_logits(ctx, *model.llama, ids)), kF64Bound) << kept;
    EXPECT_EQ(decoder.sequence(0), ids);
    const bool by_length = GetParam() == nn::RopeKind::kDynamic || GetParam() == nn::RopeKind::kLongRope;
    // Dynamic and longrope: the whole sequence where the frequencies are other ones than before the cut.
    EXPECT_TRUE(decoder.ids_run() - before == 2 || by_length) << kept;
    EXPECT_LE(decoder.ids_run() - before, static_cast<std::int64_t>(ids.size())) << kept;
  }
  EXPECT_THROW(decoder.keep(0, 3), ShapeError);
  EXPECT_THROW(decoder.keep(0, -1), ShapeError);
}

TEST(Decoder, TakesMoreIdsOnceItsRoomHasGrown) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  Decoder decoder(ctx, *model.llama, {5});
  const Ids ids = random_ids(20, 61);
  decoder.extend({Ids(ids.begin(), ids.begin() + 5)});
  decoder.reserve({20});
  const auto logits = decoder.extend({Ids(ids.begin() + 5, ids.end())});
  EXPECT_LE(relative_error(to_doubles(logits.at(0)), uncached_logits(ctx, *model.llama, ids)), kF64Bound);
}

// The bound is not a wide one: what a cache might get wrong is far beyond it.
TEST(Decoder, ALostRowWouldBeSeen) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  const Ids ids = random_ids(20, 61);
  const Ids without_first(ids.begin() + 1, ids.end());
  EXPECT_GT(relative_error(uncached_logits(ctx, *model.llama, without_first), uncached_logits(ctx, *model.llama, ids)),
            1e-3);
}

TEST(Decoder, MakesNoPlanAndNeedsNoMoreMemoryAfterWarmUp) {
  ops::Context ctx = context_of(test::fast_backend());
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF32);
  Decoder decoder(ctx, *model.llama, {48});
  const Ids ids = random_ids(48, 61);
  decoder.extend({Ids(ids.begin(), ids.begin() + 20)});
  decoder.extend({{ids[20]}});
  decoder.extend({{ids[21]}});
  const std::int64_t plans = ops::plans_made(ctx);
  const std::int64_t live = ctx.allocator->use().live_bytes;
  ctx.allocator->reset_peaks();
  decoder.extend({{ids[22]}});
  const std::int64_t peak = ctx.allocator->use().peak_bytes;
  for (std::size_t i = 23; i < ids.size(); ++i) {
    decoder.extend({{ids[i]}});
  }
  EXPECT_EQ(ops::plans_made(ctx), plans);
  EXPECT_EQ(ctx.allocator->use().live_bytes, live);
  EXPECT_EQ(ctx.allocator->use().peak_bytes, peak);
}

TEST(Decoder, HoldsItsCacheAndADryRunSaysTheSame) {
  const auto peak_of = [](bool dry_run) {
    ops::Context ctx = context_of(test::fast_backend(), dry_run);
    const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kYarn), DType::kBF16);
    Decoder decoder(ctx, *model.llama, {40});
    decoder.extend({random_ids(30, 61)});
    decoder.extend({{7}});
    const MemoryUse use = ctx.allocator->use();
    EXPECT_EQ(use.segments[static_cast<std::size_t>(Segment::kKvCache)].peak_bytes,
              DenseCache::bytes(Decoder::cache_shape(*model.llama), 40));
    return use.peak_bytes;
  };
  EXPECT_EQ(peak_of(true), peak_of(false));
}

TEST(Decoder, ACacheAndATapeDoNotGoTogether) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  DenseCache cache(ctx, Decoder::cache_shape(*model.llama), {4});
  const SequenceLayout layout = pack(std::vector<std::int64_t>{2});
  autograd::Context pass(ctx, layout);
  autograd::Tape tape(ctx);
  pass.tape = &tape;
  pass.cache = &cache;
  EXPECT_THROW(model.llama->forward(pass, to_device(*ctx.allocator, Ids{1, 2})), ShapeError);
}

}  // namespace
}  // namespace caravan::generate
