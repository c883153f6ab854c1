#include "caravan/layout/sequence_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "caravan/base/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();

void require_int32(std::int64_t value, const char* what) {
  if (value > kInt32Max) {
    throw ShapeError(fmt::format("sequence layout: {} {} does not fit into 32 bits", what, value));
  }
}

}  // namespace

SequenceLayout pack(std::span<const std::int64_t> lengths, std::int64_t rows) {
  SequenceLayout layout;
  std::int64_t next = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 0) {
      throw ShapeError(fmt::format("pack: sequence {} has the negative length {}", i, lengths[i]));
    }
    layout.sequences.push_back({.begin = next, .length = lengths[i], .first_position = 0});
    if (__builtin_add_overflow(next, lengths[i], &next)) {
      throw ShapeError("pack: the lengths add up to more than 2^63");
    }
  }
  if (rows < 0 || (rows > 0 && next > rows)) {
    throw ShapeError(fmt::format("pack: the sequences have {} rows together, but the activations have {}", next, rows));
  }
  layout.rows = rows == 0 ? next : rows;
  return layout;
}

void check(const SequenceLayout& layout) {
  if (layout.rows < 0) {
    throw ShapeError(fmt::format("sequence layout: the number of rows is negative ({})", layout.rows));
  }
  std::int64_t previous_end = 0;
  for (std::size_t i = 0; i < layout.sequences.size(); ++i) {
    const Sequence& sequence = layout.sequences[i];
    if (sequence.begin < 0 || sequence.length < 0 || sequence.first_position < 0) {
      throw ShapeError(
          fmt::format("sequence layout: sequence {} has a negative member (begin {}, length {}, first "
                      "position {})",
                      i, sequence.begin, sequence.length, sequence.first_position));
    }
    if (sequence.begin < previous_end) {
      throw ShapeError(
          fmt::format("sequence layout: sequence {} begins at row {}, before row {} where the one before it "
                      "ends",
                      i, sequence.begin, previous_end));
    }
    if (sequence.begin > layout.rows || sequence.length > layout.rows - sequence.begin) {
      throw ShapeError(fmt::format("sequence layout: sequence {} (begin {}, length {}) leaves the {} rows", i,
                                   sequence.begin, sequence.length, layout.rows));
    }
    if (sequence.first_position > std::numeric_limits<std::int64_t>::max() - sequence.length) {
      throw ShapeError(fmt::format("sequence layout: sequence {} ends beyond position 2^63", i));
    }
    previous_end = sequence.begin + sequence.length;
  }
}

std::vector<std::int32_t> positions(const SequenceLayout& layout) {
  check(layout);
  std::vector<std::int32_t> result(static_cast<std::size_t>(layout.rows), -1);
  for (const Sequence& sequence : layout.sequences) {
    require_int32(sequence.first_position + sequence.length, "position");
    for (std::int64_t i = 0; i < sequence.length; ++i) {
      result[static_cast<std::size_t>(sequence.begin + i)] = static_cast<std::int32_t>(sequence.first_position + i);
    }
  }
  return result;
}

std::vector<std::int32_t> sequence_of_row(const SequenceLayout& layout) {
  check(layout);
  std::vector<std::int32_t> result(static_cast<std::size_t>(layout.rows), -1);
  for (std::size_t index = 0; index < layout.sequences.size(); ++index) {
    const Sequence& sequence = layout.sequences[index];
    require_int32(static_cast<std::int64_t>(index), "sequence index");
    std::fill_n(result.begin() + sequence.begin, sequence.length, static_cast<std::int32_t>(index));
  }
  return result;
}

std::vector<std::int32_t> cu_seqlens(const SequenceLayout& layout) {
  check(layout);
  std::vector<std::int32_t> offsets = {0};
  for (std::size_t i = 0; i < layout.sequences.size(); ++i) {
    const Sequence& sequence = layout.sequences[i];
    if (sequence.begin != offsets.back()) {
      throw ShapeError(fmt::format("cu_seqlens: padding stands before sequence {}, in rows [{}, {})", i, offsets.back(),
                                   sequence.begin));
    }
    require_int32(sequence.begin + sequence.length, "row");
    offsets.push_back(static_cast<std::int32_t>(sequence.begin + sequence.length));
  }
  return offsets;
}

std::int64_t longest(const SequenceLayout& layout) {
  std::int64_t result = 0;
  for (const Sequence& sequence : layout.sequences) {
    result = std::max(result, sequence.first_position + sequence.length);
  }
  return result;
}

}  // namespace caravan
