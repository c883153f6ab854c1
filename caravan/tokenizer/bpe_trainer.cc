#include "caravan/tokenizer/bpe_trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/split.h"
#include "caravan/tokenizer/utf8.h"
#include "caravan/tokenizer/word_counts.h"

namespace caravan::tokenizer {

namespace {

constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
constexpr std::int64_t kProgressEvery = 64;

using Pair = std::pair<std::int32_t, std::int32_t>;

struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    const std::uint64_t key =
        std::uint64_t{static_cast<std::uint32_t>(pair.first)} << 32 | static_cast<std::uint32_t>(pair.second);
    return static_cast<std::size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15 >> 7);
  }
};

struct Word {
  std::vector<std::int32_t> symbols;
  std::int64_t count = 0;
};

struct PairUse {
  std::int64_t count = 0;
  std::vector<std::uint32_t> words;  // that hold it, or held it; may repeat
};

// The vocabulary as it grows: spelled tokens in the order of their ids, and the merges that made them.
struct Vocabulary {
  std::vector<std::string> tokens;
  std::unordered_map<std::string, std::int32_t> ids;
  std::vector<Pair> merges;

  // The token's id; a new one when it is not there yet.
  std::int32_t add(const std::string& token) {
    const auto [place, is_new] = ids.try_emplace(token, static_cast<std::int32_t>(tokens.size()));
    if (is_new) {
      tokens.push_back(token);
    }
    return place->second;
  }
};

// Learns merges: the counts of pairs are kept up to date by looking only at the words that hold the pair merged.
class Learner {
 public:
  Learner(const WordCounts& counts, Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    words_.reserve(counts.size());
    for (std::size_t i = 0; i < counts.size(); ++i) {
      Word word;
      word.count = counts.count(i);
      for (const char byte : counts.word(i)) {
        word.symbols.push_back(vocabulary_.ids.at(spelling_of({&byte, 1})));
      }
      words_.push_back(std::move(word));
    }
    for (std::uint32_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        change({word.symbols[i], word.symbols[i + 1]}, word.count, w);
      }
    }
    offer_changed();
  }

  // Merges the most frequent pair.  False when none is left that is frequent enough.
  bool step(std::int64_t min_frequency) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const auto use = uses_.find(top.pair);
      const std::int64_t count = use == uses_.end() ? 0 : use->second.count;
      if (count != top.count) {  // it changed since
        if (count > 0) {
          queue_.push({count, top.pair});
        }
        continue;
      }
      if (count < std::max<std::int64_t>(min_frequency, 1)) {
        return false;
      }
      merge(top.pair, std::move(use->second.words));
      return true;
    }
    return false;
  }

 private:
  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {  // the top of the queue: most frequent, then smallest ids
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void change(const Pair& pair, std::int64_t by, std::uint32_t word) {
    PairUse& use = uses_[pair];
    use.count += by;
    if (by > 0) {
      if (use.words.empty() || use.words.back() != word) {
        use.words.push_back(word);
      }
      changed_.push_back(pair);
    }
  }

  void offer_changed() {
    std::sort(changed_.begin(), changed_.end());
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
    for (const Pair& pair : changed_) {
      if (const std::int64_t count = uses_.at(pair).count; count > 0) {
        queue_.push({count, pair});
      }
    }
    changed_.clear();
  }

  void merge(const Pair& pair, std::vector<std::uint32_t> words) {
    const auto token = [&](std::int32_t id) { return vocabulary_.tokens[static_cast<std::size_t>(id)]; };
    const std::int32_t merged = vocabulary_.add(token(pair.first) + token(pair.second));
    vocabulary_.merges.push_back(pair);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    for (const std::uint32_t word : words) {
      merge_in_word(pair, merged, word);
    }
    uses_.erase(pair);
    offer_changed();
  }

  // Replaces the pair from the left; the neighbours' pairs go and come with it.
  void merge_in_word(const Pair& pair, std::int32_t merged, std::uint32_t number) {
    std::vector<std::int32_t>& symbols = words_[number].symbols;
    const std::int64_t count = words_[number].count;
    std::size_t written = 0;
    for (std::size_t i = 0; i < symbols.size();) {
      if (i + 1 == symbols.size() || symbols[i] != pair.first || symbols[i + 1] != pair.second) {
        symbols[written++] = symbols[i++];
        continue;
      }
      if (written > 0) {
        change({symbols[written - 1], pair.first}, -count, number);
        change({symbols[written - 1], merged}, count, number);
      }
      if (i + 2 < symbols.size()) {
        change({pair.second, symbols[i + 2]}, -count, number);
        change({merged, symbols[i + 2]}, count, number);
      }
      symbols[written++] = merged;
      i += 2;
    }
    symbols.resize(written);
  }

  Vocabulary& vocabulary_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairUse, PairHash> uses_;
  std::vector<Pair> changed_;
  std::priority_queue<Candidate> queue_;
};

Json special_token(const std::string& content, std::int32_t id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json pre_tokenizer(SplitPattern pattern) {
  if (pattern == SplitPattern::kGpt2) {
    return byte_level(true);
  }
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kLlama3Pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
}

// As Llama 3 has it: BOS before every text, nothing behind it.
Json post_processor(const std::string& bos, const Vocabulary& vocabulary) {
  Json plain = byte_level(true);
  if (bos.empty()) {
    return plain;
  }
  const auto piece = [](const char* kind, const std::string& id, int type) {
    return Json{{kind, {{"id", id}, {"type_id", type}}}};
  };
  Json entry = {{"id", bos}, {"ids", Json::array({vocabulary.ids.at(bos)})}, {"tokens", Json::array({bos})}};
  Json around = {{"type", "TemplateProcessing"},
                 {"single", Json::array({piece("SpecialToken", bos, 0), piece("Sequence", "A", 0)})},
                 {"pair", Json::array({piece("SpecialToken", bos, 0), piece("Sequence", "A", 0),
                                       piece("SpecialToken", bos, 1), piece("Sequence", "B", 1)})},
                 {"special_tokens", {{bos, std::move(entry)}}}};
  return {{"type", "Sequence"}, {"processors", Json::array({std::move(plain), std::move(around)})}};
}

std::string tokenizer_json(const TrainOptions& options, const Vocabulary& vocabulary) {
  Json added = Json::array();
  for (const std::string& token : options.special_tokens) {
    added.push_back(special_token(token, vocabulary.ids.at(token)));
  }
  Json::object_t vocab;
  vocab.reserve(vocabulary.tokens.size());
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    // The vector below the ordered map: the map's own insertion searches all keys.
    static_cast<Json::object_t::Container&>(vocab).emplace_back(vocabulary.tokens[id], id);
  }
  Json merges = Json::array();
  for (const auto& [left, right] : vocabulary.merges) {
    merges.push_back(Json::array(
        {vocabulary.tokens[static_cast<std::size_t>(left)], vocabulary.tokens[static_cast<std::size_t>(right)]}));
  }
  Json json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = std::move(added);
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = pre_tokenizer(options.pattern);
  json["post_processor"] = post_processor(options.bos, vocabulary);
  json["decoder"] = byte_level(true);
  Json& model = json["model"];
  model["type"] = "BPE";
  for (const char* unused : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    model[unused] = nullptr;
  }
  for (const char* off : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
    model[off] = false;
  }
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  return json.dump(1) + "\n";
}

std::string config_json(const TrainOptions& options) {
  Json json;
  for (const auto& [name, token] : {std::pair("bos_token", options.bos), std::pair("eos_token", options.eos)}) {
    if (!token.empty()) {
      json[name] = token;
    }
  }
  json["clean_up_tokenization_spaces"] = false;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  return json.dump(1) + "\n";
}

void check(const TrainOptions& options) {
  std::vector<std::string> specials = options.special_tokens;
  std::sort(specials.begin(), specials.end());
  if (std::adjacent_find(specials.begin(), specials.end()) != specials.end()) {
    throw InputError("a special token is given twice");
  }
  for (const std::string& token : specials) {
    const bool text = !token.empty() && !first_invalid_byte(token);
    const auto bytes = text ? spelled_bytes(token) : std::nullopt;
    if (!text || (bytes && bytes->size() == 1)) {
      throw InputError(
          fmt::format("the special token \"{}\" is empty, not UTF-8 or a single byte's name", printable(token, 60)));
    }
  }
  for (const std::string& token : {options.bos, options.eos}) {
    if (!token.empty() && !std::binary_search(specials.begin(), specials.end(), token)) {
      throw InputError(fmt::format("\"{}\" is not among the special tokens", printable(token, 60)));
    }
  }
  const auto least = static_cast<std::int64_t>(specials.size()) + 256;
  if (options.vocab_size < least || options.vocab_size > kMaxVocab) {
    throw InputError(
        fmt::format("a vocabulary of {} entries is not possible: the 256 bytes and {} special tokens need "
                    "{}, and {} is the most",
                    grouped(options.vocab_size), specials.size(), grouped(least), grouped(kMaxVocab)));
  }
}

}  // namespace

struct BpeTrainer::State {
  TrainOptions options;
  WordCounts counts;
};

BpeTrainer::BpeTrainer(TrainOptions options) : state_(std::make_unique<State>()) {
  check(options);
  state_->options = std::move(options);
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view text) {
  require_utf8(text);
  const PieceEnd piece_end = state_->options.pattern == SplitPattern::kGpt2
                                 ? &gpt2_piece_end
                                 : [](std::string_view all, std::size_t at) { return llama3_piece_end(all, at); };
  count_pieces(text, piece_end, state_->options.threads, state_->counts);
}

TrainedTokenizer BpeTrainer::train() {
  const TrainOptions& options = state_->options;
  if (state_->counts.size() == 0) {
    throw InputError("there is no text to learn a vocabulary from");
  }
  Vocabulary vocabulary;
  for (const std::string& token : options.special_tokens) {
    vocabulary.add(token);
  }
  // tokenizers numbers the bytes in the order of the characters that stand for them.
  std::vector<std::pair<char32_t, char>> alphabet;
  for (int byte = 0; byte < 256; ++byte) {
    alphabet.emplace_back(character_of(static_cast<unsigned char>(byte)), static_cast<char>(byte));
  }
  std::sort(alphabet.begin(), alphabet.end());
  for (const auto& [character, byte] : alphabet) {
    vocabulary.add(spelling_of({&byte, 1}));
  }
  const auto size = [&] { return static_cast<std::int64_t>(vocabulary.tokens.size()); };
  const auto report = [&] {
    if (options.progress) {
      options.progress(size(), options.vocab_size);
    }
  };
  Learner learner(state_->counts, vocabulary);
  for (std::int64_t reported = 0; size() < options.vocab_size && learner.step(options.min_frequency);) {
    if (size() - reported >= kProgressEvery) {
      reported = size();
      report();
    }
  }
  report();
  return {tokenizer_json(options, vocabulary), config_json(options), size()};
}

}  // namespace caravan::tokenizer
