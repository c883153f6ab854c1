#include "caravan/ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"
#include "caravan/ops/sampling_arithmetic.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

struct Candidate {
  std::int32_t id;
  float logit;
  std::uint64_t weight;
};

std::uint64_t total_of(const std::vector<Candidate>& candidates) {
  std::uint64_t total = 0;
  for (const Candidate& one : candidates) {
    total += one.weight;
  }
  return total;
}

std::vector<Candidate> candidates_of(std::span<const float> row, float largest, double temperature,
                                     std::int64_t top_k) {
  float least = -INFINITY;
  if (top_k > 0 && top_k < static_cast<std::int64_t>(row.size())) {
    std::vector<float> sorted(row.begin(), row.end());
    std::ranges::nth_element(sorted, sorted.begin() + (top_k - 1), std::greater<>());
    least = sorted[static_cast<std::size_t>(top_k - 1)];
  }
  std::vector<Candidate> result;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i] >= least && row[i] != -INFINITY) {
      // Equal infinities would give NaN.
      const double below = row[i] == largest ? 0.0 : static_cast<double>(row[i]) - static_cast<double>(largest);
      result.push_back({static_cast<std::int32_t>(i), row[i],
                        static_cast<std::uint64_t>(std::exp(below / temperature) * kSamplingUnit)});
    }
  }
  return result;
}

void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  std::ranges::stable_sort(candidates, {}, &Candidate::logit);
  const std::uint64_t limit = sampling_limit(top_p, total_of(candidates));
  std::uint64_t sum = 0;
  std::size_t gone = 0;
  while (sum + candidates[gone].weight <= limit) {
    sum += candidates[gone++].weight;
  }
  candidates.erase(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(gone));
  std::ranges::sort(candidates, {}, &Candidate::id);
}

struct RowParameters {
  double temperature, top_p;
  std::int64_t top_k, position;
  std::uint64_t seed, name_hash;
};

std::int32_t drawn(std::span<const float> row, const RowParameters& by) {
  if (std::ranges::any_of(row, [](float logit) { return std::isnan(logit); })) {
    return -1;
  }
  const auto largest = std::ranges::max_element(row);
  if (*largest == -INFINITY) {
    return -1;
  }
  if (by.temperature == 0.0) {
    return static_cast<std::int32_t>(largest - row.begin());
  }
  std::vector<Candidate> candidates = candidates_of(row, *largest, by.temperature, by.top_k);
  if (by.top_p < 1.0) {
    keep_top_p(candidates, by.top_p);
  }
  const std::uint64_t target =
      sampling_target(by.seed, by.name_hash, static_cast<std::uint64_t>(by.position), total_of(candidates));
  std::uint64_t sum = 0;
  const auto found =
      std::ranges::find_if(candidates, [&](const Candidate& one) { return (sum += one.weight) > target; });
  return found->id;
}

template <typename T>
std::vector<T> values_of(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.elements()));
  copy_to_host(std::as_writable_bytes(std::span(values)), tensor);
  return values;
}

// Where the parameters are host memory.
void by_values(const SampleIdsArgs& args) {
  const std::vector<float> logits = to_floats(args.logits);
  const auto temperature = values_of<double>(args.by.temperature);
  const auto top_k = values_of<std::int32_t>(args.by.top_k);
  const auto top_p = values_of<double>(args.by.top_p);
  const auto streams = values_of<std::uint64_t>(args.by.streams);
  const auto positions = values_of<std::int32_t>(args.by.positions);
  const auto vocab = static_cast<std::size_t>(args.logits.columns());
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < temperature.size(); ++i) {
    ids.push_back(drawn(std::span(logits).subspan(i * vocab, vocab),
                        {temperature[i], top_p[i], top_k[i], positions[i], streams[2 * i], streams[2 * i + 1]}));
  }
  copy_from_host(args.ids, std::as_bytes(std::span(ids)));
}

}  // namespace

void sample_ids(Context& ctx, const Tensor& ids, const Tensor& logits, const SamplingRows& by) {
  const ArgumentCheck check(ctx, "sample_ids");
  check.float_matrix("logits", logits);
  check.require(size_of(logits.dtype()) >= 4, "logits", "f32 or f64", to_string(logits));
  check.whole("logits", logits, logits.dtype(), logits.shape());
  check.require(logits.columns() > 0, "logits", "at least one column", to_string(logits));
  check.whole("ids", ids, DType::kI32, {logits.rows()});
  check.whole("temperature", by.temperature, DType::kF64, {logits.rows()});
  check.whole("top_k", by.top_k, DType::kI32, {logits.rows()});
  check.whole("top_p", by.top_p, DType::kF64, {logits.rows()});
  check.whole("streams", by.streams, DType::kI64, {logits.rows(), 2});
  check.whole("positions", by.positions, DType::kI32, {logits.rows()});
  check.disjoint("ids", ids, "logits", logits);
  if (logits.rows() == 0) {
    return;
  }
  const SampleIdsArgs args{ids, logits, by};
  if (ctx.backend == Backend::kCuda) {
    dispatch<SampleIdsArgs>(ctx, "sample_ids", cuda::sample_ids_list(), args);
  } else if (!ctx.dry_run()) {
    by_values(args);
  }
}

}  // namespace caravan::ops
