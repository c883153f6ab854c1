#include "caravan/layout/attention_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "caravan/base/error.h"

namespace caravan {
namespace {

void require_no_cache(const SequenceLayout& layout, const char* function) {
  check(layout);
  for (std::size_t i = 0; i < layout.sequences.size(); ++i) {
    if (layout.sequences[i].first_position > 0) {
      throw ShapeError(fmt::format("{}: sequence {} begins at position {}, so its earlier keys are not in these rows",
                                   function, i, layout.sequences[i].first_position));
    }
  }
}

bool inside(std::int64_t begin, std::int64_t end, std::int64_t rows) {
  return 0 <= begin && begin <= end && end <= rows;
}

}  // namespace

std::vector<AttentionRange> causal_ranges(const SequenceLayout& layout) {
  require_no_cache(layout, "causal_ranges");
  std::vector<AttentionRange> ranges;
  for (const Sequence& sequence : layout.sequences) {
    const std::int64_t end = sequence.begin + sequence.length;
    if (sequence.length > 0) {
      ranges.push_back({sequence.begin, end, sequence.begin, end, 0});
    }
  }
  return ranges;
}

std::vector<AttentionRange> chunked_ranges(const SequenceLayout& layout, std::int64_t chunk) {
  if (chunk < 1) {
    throw ShapeError(fmt::format("chunked_ranges: a chunk of {} positions", chunk));
  }
  require_no_cache(layout, "chunked_ranges");
  std::vector<AttentionRange> ranges;
  for (const Sequence& sequence : layout.sequences) {
    std::int64_t length = 0;
    for (std::int64_t first = 0; first < sequence.length; first += length) {
      length = std::min(chunk, sequence.length - first);
      const std::int64_t begin = sequence.begin + first;
      ranges.push_back({begin, begin + length, begin, begin + length, 0});
    }
  }
  return ranges;
}

std::int64_t visible_pairs(const std::vector<AttentionRange>& ranges) {
  std::int64_t pairs = 0;
  for (const AttentionRange& range : ranges) {
    const std::int64_t queries = range.query_end - range.query_begin;
    const std::int64_t keys = range.key_end - range.key_begin;
    // Query i sees min(i + diagonal + 1, keys) keys: a staircase of `rising` steps, then all keys.
    const std::int64_t rising = std::clamp<std::int64_t>(keys - std::min(range.diagonal, keys), 0, queries);
    if (rising > 0) {
      pairs += rising * (range.diagonal + 1) + rising * (rising - 1) / 2;
    }
    pairs += (queries - rising) * keys;
  }
  return pairs;
}

void check(const std::vector<AttentionRange>& ranges, std::int64_t query_rows, std::int64_t key_rows) {
  const auto refuse = [&ranges](std::size_t index, const std::string& reason) {
    throw ShapeError(fmt::format("attention range {} ({}): {}", index, to_string(ranges[index]), reason));
  };
  std::optional<AttentionRange> occupied;  // the last range that has queries
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const AttentionRange& range = ranges[i];
    if (!inside(range.query_begin, range.query_end, query_rows)) {
      refuse(i, fmt::format("its queries leave the {} query rows", query_rows));
    }
    if (!inside(range.key_begin, range.key_end, key_rows)) {
      refuse(i, fmt::format("its keys leave the {} key rows", key_rows));
    }
    if (range.diagonal < 0) {
      refuse(i, "its diagonal is negative");
    }
    if (i > 0 && range.query_begin < ranges[i - 1].query_begin) {
      refuse(i, "it stands after a range of later queries");
    }
    if (range.query_begin == range.query_end) {
      continue;
    }
    const bool same_queries =
        occupied && occupied->query_begin == range.query_begin && occupied->query_end == range.query_end;
    if (occupied && !same_queries && range.query_begin < occupied->query_end) {
      refuse(i, fmt::format("it shares some but not all queries with {}", to_string(*occupied)));
    }
    occupied = range;
  }
}

std::string to_string(const AttentionRange& range) {
  return fmt::format("q[{},{}) k[{},{}) +{}", range.query_begin, range.query_end, range.key_begin, range.key_end,
                     range.diagonal);
}

}  // namespace caravan
