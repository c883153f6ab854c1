#include "caravan/data/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/data/shards.h"

namespace caravan::data {

struct Documents::State {
  std::vector<std::span<const std::int32_t>> documents;
  std::vector<std::shared_ptr<const void>> owners;
  std::int64_t tokens = 0;
  std::int32_t largest_id = -1;
  std::string tokenizer;
};

Documents Documents::open(const std::vector<std::filesystem::path>& shards) {
  auto state = std::make_shared<State>();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const Shard shard = open_shard(shards[i]);
    if (i > 0 && shard.tokenizer != state->tokenizer) {
      throw InputError(fmt::format("{}: made by another tokenizer than {}; ids of two tokenizers cannot be mixed",
                                   shards[i].string(), shards[0].string()));
    }
    state->tokenizer = shard.tokenizer;
    state->owners.push_back(shard.owner);
    state->tokens += static_cast<std::int64_t>(shard.tokens.size());
    state->largest_id = std::max(state->largest_id, shard.largest_id);
    for (std::size_t d = 0; d + 1 < shard.offsets.size(); ++d) {
      state->documents.push_back(
          shard.tokens.subspan(static_cast<std::size_t>(shard.offsets[d]),
                               static_cast<std::size_t>(shard.offsets[d + 1] - shard.offsets[d])));
    }
  }
  Documents result;
  result.state_ = std::move(state);
  return result;
}

Documents Documents::of(const std::vector<std::vector<std::int32_t>>& documents) {
  auto state = std::make_shared<State>();
  for (const std::vector<std::int32_t>& document : documents) {
    const auto kept = std::make_shared<const std::vector<std::int32_t>>(document);
    state->owners.push_back(kept);
    state->documents.emplace_back(*kept);
    state->tokens += static_cast<std::int64_t>(kept->size());
    for (const std::int32_t id : *kept) {
      state->largest_id = std::max(state->largest_id, id);
    }
  }
  Documents result;
  result.state_ = std::move(state);
  return result;
}

std::int64_t Documents::size() const {
  return static_cast<std::int64_t>(state_->documents.size());
}

std::int64_t Documents::tokens() const {
  return state_->tokens;
}

std::span<const std::int32_t> Documents::operator[](std::int64_t index) const {
  return state_->documents[static_cast<std::size_t>(index)];
}

std::int32_t Documents::largest_id() const {
  return state_->largest_id;
}

const std::string& Documents::tokenizer() const {
  return state_->tokenizer;
}

std::pair<Documents, Documents> Documents::split(double fraction) const {
  auto first = std::make_shared<State>(State{{}, state_->owners, 0, state_->largest_id, state_->tokenizer});
  auto second = std::make_shared<State>(*first);
  const auto rest = static_cast<std::int64_t>(static_cast<double>(state_->tokens) * fraction);
  std::int64_t left = state_->tokens - rest;
  for (const std::span<const std::int32_t> document : state_->documents) {
    const auto length = static_cast<std::int64_t>(document.size());
    const std::int64_t taken = std::min(left, length);
    if (taken > 0) {
      first->documents.push_back(document.first(static_cast<std::size_t>(taken)));
    }
    if (taken < length) {
      second->documents.push_back(document.subspan(static_cast<std::size_t>(taken)));
    }
    left -= taken;
  }
  first->tokens = state_->tokens - rest;
  second->tokens = rest;
  Documents before;
  before.state_ = std::move(first);
  Documents after;
  after.state_ = std::move(second);
  return {before, after};
}

Documents Documents::concatenate(const std::vector<Documents>& sets) {
  auto state = std::make_shared<State>();
  for (const Documents& set : sets) {
    state->documents.insert(state->documents.end(), set.state_->documents.begin(), set.state_->documents.end());
    state->owners.insert(state->owners.end(), set.state_->owners.begin(), set.state_->owners.end());
    state->tokens += set.state_->tokens;
    state->largest_id = std::max(state->largest_id, set.state_->largest_id);
    state->tokenizer = set.state_->tokenizer;
  }
  Documents result;
  result.state_ = std::move(state);
  return result;
}

}  // namespace caravan::data
