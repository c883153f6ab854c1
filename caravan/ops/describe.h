// The arguments of an op in words, for traces and for errors of a device: "bf16 [8, 64], bf16 [8, 32]", without their
// names, which C++ does not tell.  For the .cc files of ops only.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "caravan/ops/attention.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

namespace describing {

// Converts to whatever a field is: an aggregate has as many fields as it can be made of these.
struct Anything {
  template <typename T>
  operator T() const;  // never defined
};

inline constexpr std::size_t kMostFields = 12;

template <std::size_t>
using AnythingAt = Anything;

template <typename T, std::size_t... I>
constexpr bool is_made_of(std::index_sequence<I...>) {
  return requires {
    T{AnythingAt<I>{}...};
  };
}

// The most that it can be made of: with fewer, a field without a default would have no value.
template <typename T, std::size_t N = kMostFields>
constexpr std::size_t count_fields() {
  if constexpr (N == 0 || is_made_of<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    return count_fields<T, N - 1>();
  }
}

template <typename T, typename F>
void for_each_field(const T& object, F&& each) {
  constexpr std::size_t kFields = count_fields<T>();
  static_assert(kFields >= 1 && !is_made_of<T>(std::make_index_sequence<kMostFields + 1>{}));
  const auto all = [&](const auto&... fields) { (each(fields), ...); };
  if constexpr (kFields == 1) {
    const auto& [a] = object;
    all(a);
  } else if constexpr (kFields == 2) {
    const auto& [a, b] = object;
    all(a, b);
  } else if constexpr (kFields == 3) {
    const auto& [a, b, c] = object;
    all(a, b, c);
  } else if constexpr (kFields == 4) {
    const auto& [a, b, c, d] = object;
    all(a, b, c, d);
  } else if constexpr (kFields == 5) {
    const auto& [a, b, c, d, e] = object;
    all(a, b, c, d, e);
  } else if constexpr (kFields == 6) {
    const auto& [a, b, c, d, e, f] = object;
    all(a, b, c, d, e, f);
  } else if constexpr (kFields == 7) {
    const auto& [a, b, c, d, e, f, g] = object;
    all(a, b, c, d, e, f, g);
  } else if constexpr (kFields == 8) {
    const auto& [a, b, c, d, e, f, g, h] = object;
    all(a, b, c, d, e, f, g, h);
  } else if constexpr (kFields == 9) {
    const auto& [a, b, c, d, e, f, g, h, i] = object;
    all(a, b, c, d, e, f, g, h, i);
  } else if constexpr (kFields == 10) {
    const auto& [a, b, c, d, e, f, g, h, i, j] = object;
    all(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (kFields == 11) {
    const auto& [a, b, c, d, e, f, g, h, i, j, k] = object;
    all(a, b, c, d, e, f, g, h, i, j, k);
  } else {
    const auto& [a, b, c, d, e, f, g, h, i, j, k, l] = object;
    all(a, b, c, d, e, f, g, h, i, j, k, l);
  }
}

}  // namespace describing

// The types and shapes of the tensors that are there, in the order of the fields.
template <typename Args>
std::string describe(const Args& args) {
  std::string text;
  const auto add = [&](const std::string& one) { text += (text.empty() ? "" : ", ") + one; };
  describing::for_each_field(args, [&](const auto& field) {
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_same_v<Field, Tensor>) {
      if (field.defined()) {
        add(to_string(field.dtype()) + (" " + to_string(field.shape())));
      }
    } else if constexpr (std::is_same_v<Field, Weight>) {
      if (field.defined()) {
        add((field.is_in_blocks() ? "blocks" : to_string(field.dtype())) + (" " + to_string(field.shape())));
      }
    }
  });
  return text;
}

}  // namespace caravan::ops
