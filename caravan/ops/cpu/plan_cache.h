// What a context keeps between calls: oneDNN's engine and stream, weight layouts, products and reorders.
#pragma once

#include <array>
#include <map>
#include <memory>

#include "caravan/ops/cpu/product.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

class PlanCache {
 public:
  PlanCache();

  // Plans made since the cache was new: layouts, products, reorders.
  std::int64_t made() const { return made_; }

  // The blocked layout that suits products with this weight, or the plain one.
  const cpu::WeightLayout& layout(DType dtype, std::int64_t in, std::int64_t out,
                                  cpu::Direction direction = cpu::Direction::kForward);
  const cpu::WeightLayout& plain_layout(DType dtype, std::int64_t in, std::int64_t out,
                                        cpu::Direction direction = cpu::Direction::kForward);

  // Call inside with_onednn(): a product is planned for the thread count of the moment, which is part of its key.
  cpu::Product& product(int threads, const cpu::ProductSpec& spec, const cpu::WeightLayout& layout);

  // Reorders a piece of `count` plain rows into the layout.  Call inside with_onednn().
  void pack(int threads, const cpu::WeightLayout& layout, std::int64_t count, const std::byte* plain, std::byte* packed,
            std::byte* scratch);
  std::int64_t pack_scratch_bytes(int threads, const cpu::WeightLayout& layout, std::int64_t count);

  dnnl::stream& stream() { return stream_; }

 private:
  using LayoutKey = std::array<std::int64_t, 5>;
  using ProductKey = std::array<std::int64_t, 16>;
  using PackKey = std::array<std::int64_t, 7>;
  struct Pack;

  const cpu::WeightLayout& layout_of(bool plain, DType dtype, std::int64_t in, std::int64_t out,
                                     cpu::Direction direction);
  Pack& pack_of(int threads, const cpu::WeightLayout& layout, std::int64_t count);

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<LayoutKey, cpu::WeightLayout> layouts_;
  std::map<ProductKey, std::unique_ptr<cpu::Product>> products_;
  std::map<PackKey, std::shared_ptr<Pack>> packs_;
  std::int64_t made_ = 0;
};

namespace cpu {

// The context's cache, made on first use.
PlanCache& plans_of(Context& ctx);

// The storage of `weight` in a layout: its plain form where that is the layout, otherwise a packed form, made now if it
// is not there (on the meta device: allocated only).  Allocates from Segment::kWeights.
const std::byte* prepare_weight(Context& ctx, const Weight& weight, const WeightLayout& layout);

}  // namespace cpu
}  // namespace caravan::ops
