// Which rows of a packed activation belong to which sequence.
//
// Activations are [tokens, features] everywhere.  A padded batch, a packed training row, a prefill of many prompts and
// a decode step differ in their SequenceLayout and in nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace caravan {

// Rows [begin, begin + length) hold one sequence, whose first row has position `first_position` (above zero when
// earlier tokens of it stand in a cache).
struct Sequence {
  std::int64_t begin = 0;
  std::int64_t length = 0;
  std::int64_t first_position = 0;

  bool operator==(const Sequence&) const = default;
};

// Sequences stand in row order and do not overlap; rows of no sequence are padding.
struct SequenceLayout {
  std::vector<Sequence> sequences;
  std::int64_t rows = 0;  // rows of the activations, padding included

  bool operator==(const SequenceLayout&) const = default;
};

// The sequences one after the other from row 0, and padding after them up to `rows` (0: no padding).
// Throws ShapeError when a length is negative or the sum exceeds `rows`.
SequenceLayout pack(std::span<const std::int64_t> lengths, std::int64_t rows = 0);

// Throws ShapeError when sequences overlap, are out of order, have negative members or leave [0, rows).
void check(const SequenceLayout& layout);

// Position of every row inside its sequence, -1 for padding.  [rows]
std::vector<std::int32_t> positions(const SequenceLayout& layout);

// Index of every row's sequence, -1 for padding.  [rows]
std::vector<std::int32_t> sequence_of_row(const SequenceLayout& layout);

// Row offsets of the sequences as attention libraries want them: [sequences + 1], only for layouts without gaps.
// Throws ShapeError where padding stands before or between sequences (at the end it may), or rows pass 32 bits.
std::vector<std::int32_t> cu_seqlens(const SequenceLayout& layout);

// The longest total length (first_position + length), 0 without sequences.
std::int64_t longest(const SequenceLayout& layout);

}  // namespace caravan
