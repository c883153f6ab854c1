// The questions the front ends ask about their arguments.  For the .cc files of ops only.
#pragma once

#include <cstdint>
#include <string>

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

// The checks of one call.  Every failure is a ShapeError "<op>: argument <name>: expected ..., found ...".
class ArgumentCheck {
 public:
  // Throws ShapeError when the context has no allocator.
  ArgumentCheck(const Context& ctx, const char* op);

  // `tensor` is defined, lives on the context's device and has a compute float dtype, whatever its shape.
  void floats(const char* argument, const Tensor& tensor) const;
  // As floats(), with two axes.
  void float_matrix(const char* argument, const Tensor& tensor) const;
  // `tensor` is defined, lives on the context's device and has exactly this dtype and shape; rows may stand apart.
  void window(const char* argument, const Tensor& tensor, DType dtype, const Shape& shape) const;
  // As window(), and without gaps between the rows.
  void whole(const char* argument, const Tensor& tensor, DType dtype, const Shape& shape) const;
  // `weight` is blocks, or a tensor as float_matrix() wants it.
  void weight_matrix(const char* argument, const Weight& weight) const;
  // `weight` is numbers: blocks are for inference alone.
  void trainable(const char* argument, const Weight& weight) const;
  // A weight whose products are of `dtype`, of exactly this shape.
  void weight(const char* argument, const Weight& weight, DType dtype, const Shape& shape) const;
  // The two share no element.
  void disjoint(const char* argument, const Tensor& tensor, const char* other_argument, const Tensor& other) const;
  // The two are the same window or share no element.
  void same_or_disjoint(const char* argument, const Tensor& tensor, const char* other_argument,
                        const Tensor& other) const;
  // Anything else: throws unless `holds`.
  void require(bool holds, const char* argument, const std::string& expected, const std::string& found) const;

 private:
  void placed(const char* argument, const Tensor& tensor) const;
  [[noreturn]] void fail(const char* argument, const std::string& expected, const std::string& found) const;

  const char* op_;
  Device device_;
};

// The dtype of statistics that go with activations of `dtype`: f64 for f64, else f32.
DType statistics_dtype(DType dtype);

}  // namespace caravan::ops
