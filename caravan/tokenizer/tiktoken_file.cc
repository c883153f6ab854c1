// tokenizer.model as tiktoken writes it: a line a token, its bytes in base64 and its rank.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/llama_tokens.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxRankedBytes = 1024;  // of one token
// As many splits of tokens into two tokens as no language's vocabulary has.
constexpr std::size_t kMaxMerges = std::size_t{1} << 21;
constexpr std::size_t kMaxComparedBytes = std::size_t{1} << 28;

int base64_value(char letter) {
  if (letter >= 'A' && letter <= 'Z') {
    return letter - 'A';
  }
  if (letter >= 'a' && letter <= 'z') {
    return letter - 'a' + 26;
  }
  if (letter >= '0' && letter <= '9') {
    return letter - '0' + 52;
  }
  return letter == '+' ? 62 : letter == '/' ? 63 : -1;
}

// The bytes, or nothing when the text is no base64 of RFC 4648 with its padding.
std::optional<std::string> from_base64(std::string_view text) {
  std::size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  if ((text.size() + padding) % 4 != 0 || text.size() % 4 == 1) {
    return std::nullopt;
  }
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char letter : text) {
    const int value = base64_value(letter);
    if (value < 0) {
      return std::nullopt;
    }
    bits = (bits << 6 | static_cast<std::uint32_t>(value)) & 0xFFFF;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes += static_cast<char>(bits >> held & 0xFF);
    }
  }
  return (bits & ((1U << held) - 1)) == 0 ? std::optional(bytes) : std::nullopt;
}

std::optional<std::int32_t> rank_of(std::string_view digits) {
  std::int64_t value = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9' || value > kMaxId) {
      return std::nullopt;
    }
    value = value * 10 + (digit - '0');
  }
  return digits.empty() || value > kMaxId ? std::nullopt : std::optional(static_cast<std::int32_t>(value));
}

std::string_view next_line(std::string_view text, std::size_t& at) {
  const std::size_t end = std::min(text.find('\n', at), text.size());
  std::string_view line = text.substr(at, end - at);
  at = end + 1;
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  return line;
}

class Reader {
 public:
  Reader(const std::string& source, Tokenizer::Table& table) : source_(source), table_(table) {}

  void read(std::string_view text) {
    table_.model.byte_ids.fill(-1);
    std::int64_t number = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::string_view line = next_line(text, at);
      ++number;
      if (!line.empty()) {
        add(line, number);
      }
    }
    check();
    table_.model.tokens.index();
    read_merges();
  }

  std::int32_t count() const { return count_; }

 private:
  [[noreturn]] void broken(const std::string& what) const { throw FormatError(fmt::format("{}: {}", source_, what)); }

  void add(std::string_view line, std::int64_t number) {
    const std::size_t space = line.find(' ');
    const auto bytes = space == std::string_view::npos ? std::nullopt : from_base64(line.substr(0, space));
    const auto rank = space == std::string_view::npos ? std::nullopt : rank_of(line.substr(space + 1));
    if (!bytes || bytes->empty() || !rank) {
      broken(fmt::format("line {} is not a token in base64, a space and a rank from 0 to {}: \"{}\"", grouped(number),
                         grouped(kMaxId), printable(line, 60)));
    }
    if (bytes->size() > kMaxRankedBytes) {
      broken(fmt::format("line {} has a token of more than {} bytes", grouped(number), grouped(kMaxRankedBytes)));
    }
    if (table_.model.tokens.has(*rank)) {
      broken(fmt::format("line {} has the rank {} of another", grouped(number), *rank));
    }
    table_.model.tokens.put(*rank, *bytes, /*searchable=*/true);
    if (bytes->size() == 1) {
      std::int32_t& id = table_.model.byte_ids[static_cast<unsigned char>(bytes->front())];
      if (id >= 0) {
        broken(fmt::format("line {} has the token of rank {} again", grouped(number), id));
      }
      id = *rank;
    }
    ++count_;
  }

  // Ranks are ids: special tokens go on behind the last.
  void check() const {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (table_.model.byte_ids[byte] < 0) {
        broken(fmt::format("there is no token for the byte 0x{:02X} alone", byte));
      }
    }
    for (std::int32_t rank = 0; rank < count_; ++rank) {
      if (!table_.model.tokens.has(rank)) {
        broken(fmt::format("there are {} tokens, but none of rank {}", grouped(count_), grouped(rank)));
      }
    }
  }

  // tiktoken merges the two neighbours whose bytes together have the smallest rank.
  void read_merges() {
    BpeModel& model = table_.model;
    model.ignore_merges = true;
    std::size_t merges = 0;
    std::size_t compared = 0;
    for (std::int32_t id = 0; id < count_; ++id) {
      const std::string_view bytes = model.tokens.bytes(id);
      if (model.tokens.find(bytes) != id) {
        broken(
            fmt::format("the tokens of rank {} and {} are the same", grouped(*model.tokens.find(bytes)), grouped(id)));
      }
      for (std::size_t at = 1; at < bytes.size(); ++at) {
        compared += bytes.size();
        const auto left = model.tokens.find(bytes.substr(0, at));
        const auto right = left ? model.tokens.find(bytes.substr(at)) : std::nullopt;
        if (right) {
          model.merges.put(*left, *right, {static_cast<std::uint32_t>(id), id});
          ++merges;
        }
      }
      if (merges > kMaxMerges || compared > kMaxComparedBytes) {
        broken(fmt::format("the tokens are made of each other in more than {} ways",
                           grouped(static_cast<std::int64_t>(merges))));
      }
    }
  }

  const std::string& source_;
  Tokenizer::Table& table_;
  std::int32_t count_ = 0;
};

void add_special(const std::string& content, std::int32_t id, Tokenizer::Table& table) {
  table.model.tokens.put(id, content, /*searchable=*/false);
  table.odd_ids.emplace(content, id);
  table.special.insert(id);
  table.raw_added.add(content, {.id = id, .content = content, .special = true});
}

// The names that tokenizer_config.json gives to the ids behind the ranks; transformers fills gaps in this way too.
bool add_numbered(const NamedTokens& named, std::int32_t count, Tokenizer::Table& table, const std::string& source) {
  std::int32_t next = count;
  for (const NamedToken& one : named.numbered) {
    if (one.token.id < count) {
      continue;
    }
    if (table.odd_ids.contains(one.token.content)) {
      throw FormatError(
          fmt::format("{} is {}, which has another id already", one.where, shown_token(one.token.content)));
    }
    if (one.token.id > next + kMaxReservedTokens) {
      throw FormatError(fmt::format("{} has the id {}, far behind the {} tokens of {}", one.where,
                                    grouped(one.token.id), grouped(next), source));
    }
    for (; next < one.token.id; ++next) {
      add_special(fmt::format("<|reserved_token_{}|>", next), next, table);
    }
    add_special(one.token.content, one.token.id, table);
    next = one.token.id + 1;
  }
  return next > count;
}

}  // namespace

bool looks_like_tiktoken(std::string_view text) {
  std::size_t at = 0;
  const std::string_view line = next_line(text.substr(0, 4 * kMaxRankedBytes), at);
  const std::size_t space = line.find(' ');
  return space != std::string_view::npos && from_base64(line.substr(0, space)) && rank_of(line.substr(space + 1));
}

void read_tiktoken(std::string_view text, const std::string& source, const NamedTokens& named,
                   Tokenizer::Table& table) {
  Reader reader(source, table);
  reader.read(text);
  const std::int32_t count = reader.count();
  const bool is_llama4 = count == kLlama4Ranks;
  table.steps.push_back(
      {.kind = is_llama4 ? SplitStep::Kind::kO200k : SplitStep::Kind::kLlama3, .pattern = {}, .mark = {}});
  if (!add_numbered(named, count, table, source)) {
    std::int32_t next = count;
    for (const std::string& name : is_llama4 ? llama4_special_tokens() : llama3_special_tokens()) {
      add_special(name, next++, table);
    }
  }
  const auto id = [&](const std::optional<NamedToken>& token, const char* otherwise) {
    const std::string content = token ? token->token.content : otherwise;
    const auto known = table.id_of(content);
    if (token && !known) {
      throw FormatError(fmt::format("{} is {}, which is no token of {}", token->where, shown_token(content), source));
    }
    return known;
  };
  table.bos = id(named.bos, "<|begin_of_text|>");
  table.eos = id(named.eos, "<|end_of_text|>");
  table.pad = id(named.pad, is_llama4 ? "<|finetune_right_pad|>" : "<|finetune_right_pad_id|>");
  table.add_bos = named.add_bos.value_or(true);
  table.add_eos = named.add_eos.value_or(true);
  if (table.bos && table.add_bos) {
    table.prefix.push_back(*table.bos);
  }
  if (table.eos && named.add_eos.value_or(false)) {
    table.suffix.push_back(*table.eos);
  }
}

}  // namespace caravan::tokenizer
