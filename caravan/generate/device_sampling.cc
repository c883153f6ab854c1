#include "caravan/generate/device_sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/tensor/copy.h"

namespace caravan::generate {
namespace {

template <typename T>
void fill(const Tensor& tensor, const std::vector<T>& values) {
  copy_from_host(tensor, std::as_bytes(std::span(values)));
}

}  // namespace

DeviceSampling::DeviceSampling(ops::Context& ctx, std::int64_t sequences)
    : rows_{ctx.allocate(DType::kF64, {sequences}), ctx.allocate(DType::kI32, {sequences}),
            ctx.allocate(DType::kF64, {sequences}), ctx.allocate(DType::kI64, {sequences, 2}),
            ctx.allocate(DType::kI32, {sequences})} {}

void DeviceSampling::set(const std::vector<SamplingOptions>& options, const std::vector<std::uint64_t>& streams,
                         const std::vector<std::int64_t>& positions) {
  const auto sequences = static_cast<std::size_t>(rows_.positions.elements());
  if (options.size() != sequences || streams.size() != sequences || positions.size() != sequences) {
    throw ShapeError(fmt::format("drawing for {} sequences: {} options, {} streams and {} positions", sequences,
                                 options.size(), streams.size(), positions.size()));
  }
  std::vector<double> temperature, top_p;
  std::vector<std::int32_t> top_k, places;
  std::vector<std::uint64_t> bits;
  for (std::size_t i = 0; i < sequences; ++i) {
    const SamplingOptions& one = options[i];
    validate(one);
    temperature.push_back(one.do_sample ? one.temperature : 0.0);
    top_p.push_back(one.top_p);
    top_k.push_back(static_cast<std::int32_t>(std::min<std::int64_t>(one.top_k, INT32_MAX)));
    places.push_back(static_cast<std::int32_t>(positions[i]));
    const RandomStream random = sampling_stream(one, streams[i]);
    bits.insert(bits.end(), {random.seed(), random.name_hash()});
  }
  fill(rows_.temperature, temperature);
  fill(rows_.top_p, top_p);
  fill(rows_.top_k, top_k);
  fill(rows_.positions, places);
  fill(rows_.streams, bits);
}

void DeviceSampling::draw(ops::Context& ctx, const Tensor& ids, const Tensor& logits) const {
  ops::sample_ids(ctx, ids, logits, rows_);
}

std::int32_t sample_row(ops::Context& ctx, const Tensor& logits, const SamplingOptions& options, std::uint64_t stream,
                        std::int64_t position) {
  if (ctx.backend != ops::Backend::kCuda) {
    return sample(to_floats(logits), options, stream, position);
  }
  DeviceSampling drawing(ctx, 1);
  drawing.set({options}, {stream}, {position});
  const Tensor id = ctx.allocate(DType::kI32, {1});
  drawing.draw(ctx, id, logits.reshape({1, logits.elements()}));
  const auto drawn = static_cast<std::int32_t>(to_doubles(id).front());
  // What is wrong with them is told where they are read.
  return drawn >= 0 ? drawn : sample(to_floats(logits), options, stream, position);
}

}  // namespace caravan::generate
