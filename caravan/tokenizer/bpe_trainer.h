// Learns a byte-level BPE vocabulary from text (Sennrich et al. 2016 over bytes, as GPT-2 does).
//
// The most frequent pair of neighbouring symbols is merged until the vocabulary is full; ties go to the pair with the
// smaller ids, as in `tokenizers`.  The result is a tokenizer.json that `tokenizers` loads and encodes with
// identically.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::tokenizer {

enum class SplitPattern { kGpt2, kLlama3 };

struct TrainOptions {
  std::int64_t vocab_size = 32000;  // special tokens and the 256 bytes included
  std::int64_t min_frequency = 2;   // a pair that is rarer is not merged
  SplitPattern pattern = SplitPattern::kLlama3;
  std::vector<std::string> special_tokens = {"<|begin_of_text|>", "<|end_of_text|>"};  // the first ids, in this order
  std::string bos = "<|begin_of_text|>";  // of the template and tokenizer_config.json; empty: none
  std::string eos = "<|end_of_text|>";
  int threads = 1;
  std::function<void(std::int64_t done, std::int64_t total)> progress;  // vocabulary entries
};

struct TrainedTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::int64_t vocab_size = 0;  // smaller than asked for when the text has no more pairs
};

// Counts texts as they come, then learns.  Deterministic: order of texts and number of threads change nothing.
class BpeTrainer {
 public:
  // Throws InputError when the vocabulary cannot hold the special tokens and the 256 bytes.
  explicit BpeTrainer(TrainOptions options);
  ~BpeTrainer();
  // Throws InputError with the offset of the first byte that is not UTF-8.
  void add(std::string_view text);
  // Throws InputError when no text was added.
  TrainedTokenizer train();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan::tokenizer
