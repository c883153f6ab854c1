// A tokenizer.json whose ids are bytes: no merges, and special tokens behind the bytes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace caravan::test {

// The id of byte b is b, for the first `bytes` of them; specials follow.
inline std::string byte_tokenizer(int bytes = 256, const std::vector<std::string>& specials = {}) {
  using Json = nlohmann::ordered_json;
  Json vocabulary = Json::object();
  int strangers = 0;
  for (int byte = 0; byte < bytes; ++byte) {
    // GPT-2's printable stand-ins.
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int point = printable ? byte : 256 + strangers++;
    std::string character;
    if (point < 128) {
      character = static_cast<char>(point);
    } else {
      character = {static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 63))};
    }
    vocabulary[character] = byte;
  }
  Json added = Json::array();
  for (const std::string& special : specials) {
    added.push_back({{"id", bytes + static_cast<int>(added.size())},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return Json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer", level},
              {"post_processor", nullptr},
              {"decoder", level},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false},
                {"vocab", vocabulary},
                {"merges", Json::array()}}}}
      .dump();
}

}  // namespace caravan::test
