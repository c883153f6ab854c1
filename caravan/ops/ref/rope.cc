#include "caravan/ops/rope.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// The tables are f32 values whatever they are stored in: transformers computes them so for models of any dtype.
float table_value(double unit, float scaling, DType rounded_to) {
  float value = static_cast<float>(unit) * scaling;
  with_float_type(rounded_to, [&]<typename R>() { value = static_cast<float>(load(round_to<R>(value))); });
  return value;
}

// S: the dtype of the tables.
template <typename S>
void run_tables_typed(const RopeTablesArgs& args) {
  const auto scaling = static_cast<float>(args.attention_scaling);
  const auto* positions = elements<const std::int32_t>(args.positions);
  const auto* kind = elements<const std::int32_t>(args.kind);
  const Rows<const float> frequencies(args.frequencies);
  const Rows<S> cos(args.cos);
  const Rows<S> sin(args.sin);

  for (std::int64_t t = 0; t < args.cos.rows(); ++t) {
    for (std::int64_t i = 0; i < args.cos.columns(); ++i) {
      if (positions[t] < 0) {
        cos[t][i] = S{1};
        sin[t][i] = S{0};
        continue;
      }
      const float angle = static_cast<float>(positions[t]) * frequencies[kind[t]][i];
      cos[t][i] = table_value(std::cos(static_cast<double>(angle)), scaling, args.rounded_to);
      sin[t][i] = table_value(std::sin(static_cast<double>(angle)), scaling, args.rounded_to);
    }
  }
}

void run_tables(Context&, const RopeTablesArgs& args, std::byte*) {
  check_kinds(args.kind, args.positions, args.frequencies.rows());
  if (args.cos.dtype() == DType::kF64) {
    run_tables_typed<double>(args);
  } else {
    run_tables_typed<float>(args);
  }
}

// S: the dtype of the tables.
template <typename T, typename S>
void run_typed(const RopeArgs& args) {
  const std::int64_t half = args.cos.columns();
  const std::int64_t heads = args.x.columns() / (2 * half);
  const Rows<const T> x(args.x);
  const Rows<T> y(args.y);
  const Rows<const S> cos(args.cos);
  const Rows<const S> sin(args.sin);

  for (std::int64_t t = 0; t < args.x.rows(); ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        const bool apart = args.pairing == RopePairing::kRotateHalf;
        const std::int64_t first = h * 2 * half + (apart ? i : 2 * i);
        const std::int64_t second = h * 2 * half + (apart ? i + half : 2 * i + 1);
        const double a = load(x[t][first]);
        const double b = load(x[t][second]);
        const double c = load(cos[t][i]);
        const double s = args.inverse ? -load(sin[t][i]) : load(sin[t][i]);
        y[t][first] = round_to<T>(a * c - b * s);
        y[t][second] = round_to<T>(b * c + a * s);
      }
    }
  }
}

void run(Context&, const RopeArgs& args, std::byte*) {
  with_float_type(args.x.dtype(), [&]<typename T>() {
    if (args.x.dtype() == DType::kF64) {
      run_typed<T, double>(args);
    } else {
      run_typed<T, float>(args);
    }
  });
}

constexpr Implementation<RopeTablesArgs> kTablesList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_tables}};
constexpr Implementation<RopeArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<RopeTablesArgs> rope_tables_list() {
  return kTablesList;
}
ImplementationList<RopeArgs> rope_list() {
  return kList;
}

}  // namespace caravan::ops::ref
