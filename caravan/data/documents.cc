#include "caravan/data/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/data/shard.h"

namespace caravan::data {
namespace {

// Documents [first, last) of a shard, as far as they lie within its tokens [begin, end).
struct Part {
  std::shared_ptr<const Shard> shard;
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int32_t largest_id = -1;

  std::int64_t documents() const { return last - first; }
  std::int64_t tokens() const { return end - begin; }
};

Part whole(Shard shard) {
  Part part;
  part.last = shard.documents();
  part.end = static_cast<std::int64_t>(shard.tokens.size());
  part.largest_id = shard.largest_id;
  part.shard = std::make_shared<const Shard>(std::move(shard));
  return part;
}

void find_largest(Part& part) {
  const auto tokens =
      part.shard->tokens.subspan(static_cast<std::size_t>(part.begin), static_cast<std::size_t>(part.tokens()));
  part.largest_id = tokens.empty() ? -1 : *std::ranges::max_element(tokens);
}

// The part before its token `cut` (counted from the part's own first) and the rest; 0 < cut < tokens().
std::pair<Part, Part> cut_part(const Part& part, std::int64_t cut) {
  const auto offsets = part.shard->offsets;
  const std::int64_t at = part.begin + cut;
  Part before = part;
  Part after = part;
  before.end = at;
  after.begin = at;
  // The first document that begins at the cut or later: it, and what follows, is not before.
  const auto later = std::lower_bound(offsets.begin() + part.first + 1, offsets.begin() + part.last, at);
  before.last = later - offsets.begin();
  after.first = *later == at ? before.last : before.last - 1;
  find_largest(before);
  find_largest(after);
  return {before, after};
}

}  // namespace

struct Documents::State {
  std::vector<Part> parts;
  std::vector<std::int64_t> first_document = {0};  // of each part, and the number of all
  std::int64_t tokens = 0;
  std::int32_t largest_id = -1;
  std::string tokenizer;

  void add(const Part& part) {
    const std::string& other = part.shard->tokenizer;
    if (!other.empty() && !tokenizer.empty() && other != tokenizer) {
      throw InputError(
          fmt::format("{}: was made with the tokenizer {}, and what stands before it with {}; make all "
                      "shards of a data set with one tokenizer",
                      part.shard->source, other, tokenizer));
    }
    tokenizer = tokenizer.empty() ? other : tokenizer;
    if (part.documents() == 0) {
      return;
    }
    parts.push_back(part);
    first_document.push_back(first_document.back() + part.documents());
    tokens += part.tokens();
    largest_id = std::max(largest_id, part.largest_id);
  }
};

std::shared_ptr<const Documents::State> Documents::empty() {
  return std::make_shared<const State>();
}

Documents Documents::open(const std::vector<std::filesystem::path>& shards) {
  auto state = std::make_shared<State>();
  for (const std::filesystem::path& path : shards) {
    state->add(whole(open_shard(path)));
  }
  Documents result;
  result.state_ = std::move(state);
  return result;
}

Documents Documents::of(const std::vector<std::vector<std::int32_t>>& documents) {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> offsets = {0};
  for (const std::vector<std::int32_t>& document : documents) {
    tokens.insert(tokens.end(), document.begin(), document.end());
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  auto state = std::make_shared<State>();
  state->add(whole(make_shard(std::move(tokens), std::move(offsets))));
  Documents result;
  result.state_ = std::move(state);
  return result;
}

std::int64_t Documents::size() const {
  return state_->first_document.back();
}

std::int64_t Documents::tokens() const {
  return state_->tokens;
}

std::int32_t Documents::largest_id() const {
  return state_->largest_id;
}

const std::string& Documents::tokenizer() const {
  return state_->tokenizer;
}

std::span<const std::int32_t> Documents::operator[](std::int64_t index) const {
  const std::vector<std::int64_t>& first = state_->first_document;
  const auto next = std::upper_bound(first.begin(), first.end(), index);
  if (next == first.begin() || next == first.end()) {
    throw InputError(fmt::format("document {} was asked for, and there are {}", index, size()));
  }
  const Part& part = state_->parts[static_cast<std::size_t>(next - first.begin() - 1)];
  const std::size_t document = static_cast<std::size_t>(part.first + index - *(next - 1));
  const std::int64_t begin = std::max(part.shard->offsets[document], part.begin);
  const std::int64_t end = std::min(part.shard->offsets[document + 1], part.end);
  return part.shard->tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

std::pair<Documents, Documents> Documents::split(double fraction) const {
  if (!(fraction >= 0.0 && fraction <= 1.0)) {
    throw InputError(fmt::format("a share of {} cannot be split off; give a number from 0 to 1", fraction));
  }
  const std::int64_t cut = tokens() - std::llround(fraction * static_cast<double>(tokens()));
  auto before = std::make_shared<State>();
  auto after = std::make_shared<State>();
  std::int64_t seen = 0;
  for (const Part& part : state_->parts) {
    if (seen + part.tokens() <= cut) {
      before->add(part);
    } else if (seen >= cut) {
      after->add(part);
    } else {
      const auto [first, second] = cut_part(part, cut - seen);
      before->add(first);
      after->add(second);
    }
    seen += part.tokens();
  }
  std::pair<Documents, Documents> result;
  result.first.state_ = std::move(before);
  result.second.state_ = std::move(after);
  return result;
}

Documents Documents::concatenate(const std::vector<Documents>& sets) {
  auto state = std::make_shared<State>();
  for (const Documents& set : sets) {
    for (const Part& part : set.state_->parts) {
      state->add(part);
    }
  }
  Documents result;
  result.state_ = std::move(state);
  return result;
}

}  // namespace caravan::data
