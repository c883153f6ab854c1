// Collectives inside a layer: what tensor, context and expert parallelism put between ops.
//
// A collective is two nodes, begin and end, and their adjoints swap: the gradient's exchange starts where the forward's
// ended. Today's communicators finish an exchange before they return, so begin does the work and end only marks the
// place where an executor may switch to a partner micro-batch.
//
//   kind            forward                       gradient
//   kCopy           x                             sum over ranks        before a column-split product
//   kReduce         sum over ranks                dy                    after a row-split product
//   kGatherRows     all ranks' rows               rank's rows, summed   sequence parallel to tensor parallel
//   kScatterRows    rank's rows of the sum        all ranks' rows       and back
// (Shoeybi et al. 2019, f and g; Korthikanti et al. 2022, g and g-bar.)
#pragma once

#include "caravan/autograd/context.h"
#include "caravan/autograd/value.h"
#include "caravan/comm/communicator.h"

namespace caravan::autograd {

enum class Collective { kCopy, kReduce, kGatherRows, kScatterRows };

// A value on its way through an exchange.
struct Pending {
  Value value;  // the result, once the exchange is done
  Collective kind = Collective::kCopy;
  comm::Communicator* ranks = nullptr;
};

// x: [rows, features], contiguous, of one shape on all ranks.  Every rank calls it.  `ranks` outlives the tape.
// Throws ShapeError when kScatterRows meets rows that the ranks do not divide, and what the communicator throws.
Pending collective_begin(Context& ctx, comm::Communicator& ranks, Collective kind, const Value& x);

// Result: x's shape, or with size() times (kGatherRows) or a size()-th of (kScatterRows) its rows.
Value collective_end(Context& ctx, const Pending& pending);

}  // namespace caravan::autograd
