// The parts of a tokenizer.model, so that a GGUF file can hold it.
#include <fmt/core.h>

#include <algorithm>
#include <tuple>

#include "caravan/base/error.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/parts.h"
#include "caravan/tokenizer/readers.h"

namespace caravan::tokenizer {

namespace {

constexpr float kScoreBeside = -1000.0F;

class FilePartsBuilder {
 public:
  FilePartsBuilder(const TokenizerFiles& files, const std::string& source)
      : files_(files),
        source_(source),
        named_(read_named_tokens({.config = files.config,
                                  .special_tokens_map = files.special_tokens_map,
                                  .added_tokens = files.added_tokens},
                                 (files.path.parent_path() / "").string())) {}

  FileParts pieces() {
    const SentencePieceSpec spec = read_sentencepiece(files_.content, source_);
    if (spec.kind != SentencePieceSpec::Kind::kBpe) {
      throw UnsupportedError(fmt::format("{}: a unigram model has no words in these parts", source_));
    }
    read_sentencepiece_model(files_.content, source_, named_, table_);
    out_.parts.model = "llama";
    out_.parts.add_space_prefix = spec.add_dummy_prefix && (!named_.present || named_.add_prefix_space);
    for (std::int32_t id = 0; id < table_.model.tokens.size(); ++id) {
      const bool inside = static_cast<std::size_t>(id) < spec.pieces.size();
      if (inside) {
        VocabularyEntry entry = spec.pieces[static_cast<std::size_t>(id)];
        entry.text = kept(std::string(entry.text));
        out_.parts.vocabulary.push_back(entry);
      } else {
        out_.parts.vocabulary.push_back(
            {kept(std::string(table_.model.tokens.bytes(id))), kScoreBeside, TokenKind::kUserDefined});
      }
    }
    mark_named();
    note_what_pieces_cannot_say(spec);
    return finished();
  }

  FileParts ranks() {
    read_tiktoken(files_.content, source_, named_, table_);
    out_.parts.model = "gpt2";
    const bool is_llama4 = table_.steps.front().kind == SplitStep::Kind::kO200k;
    out_.parts.pre = is_llama4 ? "llama4" : "llama-bpe";
    for (std::int32_t id = 0; id < table_.model.tokens.size(); ++id) {
      const std::string bytes(table_.model.tokens.bytes(id));
      const bool is_special = table_.special.contains(id);
      out_.parts.vocabulary.push_back(
          {kept(is_special ? bytes : spelling_of(bytes)), 0, is_special ? TokenKind::kControl : TokenKind::kNormal});
      if (!is_special) {
        add_merges(bytes);
      }
    }
    return finished();
  }

 private:
  std::string_view kept(std::string text) { return out_.texts.emplace_back(std::move(text)); }

  // Names given beside the model make control tokens, or tokens that are cut out whole, of pieces too.
  void mark_named() {
    const auto mark = [&](const NamedToken& one) {
      if (const auto id = table_.id_of(one.token.content)) {
        TokenKind& kind = out_.parts.vocabulary[static_cast<std::size_t>(*id)].kind;
        if (kind != TokenKind::kUnknown && kind != TokenKind::kByte) {
          kind = one.token.special ? TokenKind::kControl : TokenKind::kUserDefined;
        }
      }
    };
    std::for_each(named_.numbered.begin(), named_.numbered.end(), mark);
    std::for_each(named_.special.begin(), named_.special.end(), mark);
  }

  void note_what_pieces_cannot_say(const SentencePieceSpec& spec) {
    if (!spec.charsmap.empty()) {
      out_.notes.emplace_back("the tokenizer normalises characters, which llama.cpp leaves out");
    }
    if (spec.remove_extra_whitespaces) {
      out_.notes.emplace_back("the tokenizer takes several spaces for one, which llama.cpp does not");
    }
    if (!spec.escape_whitespaces || spec.whitespace_as_suffix) {
      out_.notes.emplace_back("the tokenizer marks spaces in a way that llama.cpp has no word for");
    }
    if (*out_.parts.add_space_prefix && !table_.prefixes_every_stretch) {
      out_.notes.emplace_back("llama.cpp puts a space behind special tokens too, the tokenizer only before a text");
    }
  }

  void add_merges(std::string_view bytes) {
    splits_.clear();
    for (std::size_t at = 1; at < bytes.size(); ++at) {
      const auto left = table_.model.tokens.find(bytes.substr(0, at));
      const auto right = left ? table_.model.tokens.find(bytes.substr(at)) : std::nullopt;
      if (right) {
        splits_.emplace_back(*left, *right, at);
      }
    }
    std::sort(splits_.begin(), splits_.end());
    for (const auto& [left, right, at] : splits_) {
      out_.parts.merges.push_back(kept(spelling_of(bytes.substr(0, at)) + " " + spelling_of(bytes.substr(at))));
    }
  }

  FileParts finished() {
    const std::vector<VocabularyEntry>& entries = out_.parts.vocabulary;
    const auto unknown =
        std::find_if(entries.begin(), entries.end(), [](const auto& one) { return one.kind == TokenKind::kUnknown; });
    if (unknown != entries.end()) {
      out_.parts.unknown = static_cast<std::int32_t>(unknown - entries.begin());
    }
    out_.parts.bos = table_.bos;
    out_.parts.eos = table_.eos;
    out_.parts.pad = table_.pad;
    out_.parts.add_bos = !table_.prefix.empty();
    out_.parts.add_eos = !table_.suffix.empty();
    return std::move(out_);
  }

  const TokenizerFiles& files_;
  const std::string& source_;
  NamedTokens named_;
  Tokenizer::Table table_;
  std::vector<std::tuple<std::int32_t, std::int32_t, std::size_t>> splits_;
  FileParts out_;
};

}  // namespace

FileParts parts_of_file(const std::filesystem::path& path) {
  const TokenizerFiles files = read_tokenizer_files(path);
  const std::string source = files.path.string();
  switch (tokenizer_file_kind(files.content, source)) {
    case TokenizerFileKind::kTiktoken:
      return FilePartsBuilder(files, source).ranks();
    case TokenizerFileKind::kSentencePiece:
      return FilePartsBuilder(files, source).pieces();
    case TokenizerFileKind::kJson:
      break;
  }
  throw UnsupportedError(fmt::format("{}: parts are taken of SentencePiece's and tiktoken's files", source));
}

}  // namespace caravan::tokenizer
