#include "caravan/ops/elementwise.h"

#include <cstring>

#include "caravan/ops/args.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

void run_add(Context&, const AddArgs& args, std::byte*) {
  with_float_type(args.y.dtype(), [&]<typename T>() {
    const Rows<const T> a(args.a);
    const Rows<const T> b(args.b);
    const Rows<T> y(args.y);
    for (std::int64_t r = 0; r < args.y.rows(); ++r) {
      for (std::int64_t i = 0; i < args.y.columns(); ++i) {
        y[r][i] = round_to<T>(load(a[r][i]) + load(b[r][i]));
      }
    }
  });
}

template <typename Y, typename X>
void convert_typed(const ConvertArgs& args) {
  const Rows<const X> x(args.x);
  const Rows<Y> y(args.y);
  for (std::int64_t r = 0; r < args.y.rows(); ++r) {
    for (std::int64_t i = 0; i < args.y.columns(); ++i) {
      y[r][i] = round_to<Y>(load(x[r][i]));
    }
  }
}

void run_convert(Context&, const ConvertArgs& args, std::byte*) {
  with_float_type(args.y.dtype(), [&]<typename Y>() {
    with_float_type(args.x.dtype(), [&]<typename X>() { convert_typed<Y, X>(args); });
  });
}

void run_zero(Context&, const ZeroArgs& args, std::byte*) {
  // Zero is all bits zero in every dtype but e8m0, whose least power stands for it.
  const std::int64_t size = size_of(args.y.dtype());
  for (std::int64_t r = 0; r < args.y.rows(); ++r) {
    std::memset(args.y.address() + r * args.y.row_stride() * size, 0,
                static_cast<std::size_t>(args.y.columns() * size));
  }
}

constexpr Implementation<AddArgs> kAddList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_add}};
constexpr Implementation<ConvertArgs> kConvertList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_convert}};
constexpr Implementation<ZeroArgs> kZeroList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_zero}};

}  // namespace

ImplementationList<AddArgs> add_list() {
  return kAddList;
}
ImplementationList<ConvertArgs> convert_list() {
  return kConvertList;
}
ImplementationList<ZeroArgs> zero_list() {
  return kZeroList;
}

}  // namespace caravan::ops::ref
