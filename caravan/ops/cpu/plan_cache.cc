#include "caravan/ops/cpu/plan_cache.h"

#include <algorithm>

#include "caravan/ops/args.h"
#include "caravan/ops/cpu/staging.h"

namespace caravan::ops {

struct PlanCache::Pack {
  dnnl::reorder::primitive_desc descriptor;
  dnnl::memory plain, packed, scratch;
  std::optional<dnnl::reorder> primitive;
};

PlanCache::PlanCache() : engine_(cpu::make_engine()), stream_(engine_) {}

const cpu::WeightLayout& PlanCache::layout_of(bool plain, DType dtype, std::int64_t in, std::int64_t out,
                                              cpu::Direction direction) {
  const LayoutKey key = {plain ? 1 : 0, static_cast<std::int64_t>(dtype), in, out,
                         static_cast<std::int64_t>(direction)};
  const auto found = layouts_.find(key);
  if (found != layouts_.end()) {
    return found->second;
  }
  ++made_;
  return layouts_
      .emplace(key, plain ? cpu::plain_weight_layout(dtype, in, out, direction)
                          : cpu::make_weight_layout(engine_, dtype, in, out, direction))
      .first->second;
}

const cpu::WeightLayout& PlanCache::layout(DType dtype, std::int64_t in, std::int64_t out, cpu::Direction direction) {
  return layout_of(false, dtype, in, out, direction);
}

const cpu::WeightLayout& PlanCache::plain_layout(DType dtype, std::int64_t in, std::int64_t out,
                                                 cpu::Direction direction) {
  return layout_of(true, dtype, in, out, direction);
}

cpu::Product& PlanCache::product(int threads, const cpu::ProductSpec& spec, const cpu::WeightLayout& layout) {
  // Directions whose layouts are stored alike may share a product: the strides tell.
  const dnnl_blocking_desc_t& blocking = layout.desc.data.format_desc.blocking;
  const ProductKey key = {threads,
                          spec.tokens,
                          static_cast<std::int64_t>(spec.x_dtype),
                          spec.x_stride,
                          spec.x_turned ? 1 : 0,
                          static_cast<std::int64_t>(spec.y_dtype),
                          spec.y_stride,
                          spec.rows,
                          spec.bias ? 1 : 0,
                          static_cast<std::int64_t>(spec.residual),
                          static_cast<std::int64_t>(layout.dtype),
                          layout.in,
                          layout.out,
                          layout.blocked ? 1 : 0,
                          blocking.strides[0],
                          blocking.strides[1]};
  std::unique_ptr<cpu::Product>& product = products_[key];
  if (product == nullptr) {
    product = std::make_unique<cpu::Product>(engine_, spec, layout);
    ++made_;
  }
  return *product;
}

PlanCache::Pack& PlanCache::pack_of(int threads, const cpu::WeightLayout& layout, std::int64_t count) {
  const PackKey key = {threads,    static_cast<std::int64_t>(layout.dtype),     layout.in,
                       layout.out, static_cast<std::int64_t>(layout.direction), layout.blocked ? 1 : 0,
                       count};
  std::shared_ptr<Pack>& pack = packs_[key];
  if (pack == nullptr) {
    auto made = std::make_shared<Pack>();
    const dnnl::memory::desc plain =
        layout.direction == cpu::Direction::kForward
            ? cpu::plain_weight_layout(layout.dtype, layout.in, count).desc
            : cpu::plain_weight_layout(layout.dtype, count, layout.out, layout.direction).desc;
    const dnnl::memory::desc rows = cpu::weight_rows_desc(layout, count);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    made->descriptor = {engine_, plain, engine_, rows, attributes};
    made->plain = dnnl::memory(plain, engine_, nullptr);
    made->packed = dnnl::memory(rows, engine_, nullptr);
    made->scratch = dnnl::memory(made->descriptor.scratchpad_desc(), engine_, nullptr);
    pack = std::move(made);
    ++made_;
  }
  return *pack;
}

std::int64_t PlanCache::pack_scratch_bytes(int threads, const cpu::WeightLayout& layout, std::int64_t count) {
  return static_cast<std::int64_t>(pack_of(threads, layout, count).descriptor.scratchpad_desc().get_size());
}

void PlanCache::pack(int threads, const cpu::WeightLayout& layout, std::int64_t count, const std::byte* plain,
                     std::byte* packed, std::byte* scratch) {
  Pack& pack = pack_of(threads, layout, count);
  pack.plain.set_data_handle(const_cast<std::byte*>(plain));
  pack.packed.set_data_handle(packed);
  pack.scratch.set_data_handle(scratch);
  if (!pack.primitive) {
    pack.primitive.emplace(pack.descriptor);
  }
  pack.primitive->execute(
      stream_, {{DNNL_ARG_FROM, pack.plain}, {DNNL_ARG_TO, pack.packed}, {DNNL_ARG_SCRATCHPAD, pack.scratch}});
  stream_.wait();
}

namespace cpu {
namespace {

// Rows of a weight that are widened to f32 at a time on their way into a blocked layout: bounds the scratch.
constexpr std::int64_t kWidenedRows = 16 * kWeightBlock;

std::byte* address_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.address() : nullptr;
}

Tensor scratch_of(Context& ctx, std::int64_t bytes) {
  return bytes > 0 ? ctx.allocate(DType::kU8, {bytes}, Segment::kWorkspace) : Tensor();
}

// Same dtype and plain rows at hand: one reorder.
void pack_whole(Context& ctx, const Tensor& plain, const WeightLayout& layout, const Tensor& packed) {
  PlanCache& plans = plans_of(ctx);
  with_onednn(ctx, "packing a weight", [&] {
    const Tensor scratch = scratch_of(ctx, plans.pack_scratch_bytes(ctx.threads, layout, layout.plain_rows()));
    if (!ctx.dry_run()) {
      plans.pack(ctx.threads, layout, layout.plain_rows(), plain.address(), packed.address(), address_or_null(scratch));
    }
  });
}

// Otherwise in pieces of rows: rounded, widened, and where the layout is blocked reordered, so that no copy of the whole
// stands beside the packed one.
void pack_pieces(Context& ctx, const Weight& weight, const WeightLayout& layout, const Tensor& packed) {
  PlanCache& plans = plans_of(ctx);
  const std::int64_t rows = layout.plain_rows();
  const std::int64_t most = std::min(kWidenedRows, rows);
  const auto piece_of = [&](bool wanted, DType dtype) {
    return wanted ? ctx.allocate(dtype, {most, layout.plain_columns()}, Segment::kWorkspace) : Tensor();
  };
  const Tensor rounded = piece_of(weight.is_rounded(), weight.dtype());
  const Tensor staged =
      piece_of(layout.blocked && !(rounded.defined() && rounded.dtype() == layout.dtype), layout.dtype);
  for (std::int64_t first = 0; first < rows; first += kWidenedRows) {
    const std::int64_t count = std::min(kWidenedRows, rows - first);
    std::byte* const there = packed.address() + weight_rows_offset(layout, first);
    Tensor piece = weight.source().row_range(first, first + count);
    if (rounded.defined()) {
      if (!ctx.dry_run()) {
        stage_rows(ctx, weight.dtype(), piece, rounded.address());
      }
      piece = rounded.row_range(0, count);
    }
    if (!ctx.dry_run() && (staged.defined() || !layout.blocked)) {
      stage_rows(ctx, layout.dtype, piece, layout.blocked ? staged.address() : there);
    }
    if (!layout.blocked) {
      continue;
    }
    with_onednn(ctx, "packing a weight", [&] {
      const Tensor scratch = scratch_of(ctx, plans.pack_scratch_bytes(ctx.threads, layout, count));
      if (!ctx.dry_run()) {
        plans.pack(ctx.threads, layout, count, (staged.defined() ? staged : piece).address(), there,
                   address_or_null(scratch));
      }
    });
  }
}

}  // namespace

PlanCache& plans_of(Context& ctx) {
  if (ctx.plans == nullptr) {
    ctx.plans = std::make_shared<PlanCache>();
  }
  return *ctx.plans;
}

std::int64_t plans_made(const PlanCache& plans) {
  return plans.made();
}

const std::byte* prepare_weight(Context& ctx, const Weight& weight, const WeightLayout& layout) {
  const bool same_dtype = weight.plain().defined() && weight.dtype() == layout.dtype;
  if (same_dtype && !layout.blocked) {
    return weight.plain().address();
  }
  const WeightUse use = layout.direction == Direction::kForward ? WeightUse::kForward : WeightUse::kBackward;
  auto found = weight.packed().find(layout.name);
  if (found == weight.packed().end()) {
    PackedWeight form{ctx.allocate(DType::kU8, {layout.bytes()}, Segment::kWeights)};
    if (same_dtype) {
      pack_whole(ctx, weight.plain(), layout, form.bytes);
    } else {
      pack_pieces(ctx, weight, layout, form.bytes);
    }
    found = weight.packed().emplace(layout.name, std::move(form)).first;
  }
  found->second.uses |= static_cast<unsigned>(use);
  return found->second.bytes.address();
}

}  // namespace cpu
}  // namespace caravan::ops
