// Between Hugging Face's tokenizer files and the vectors of a GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/model_io/gguf_tokenizer.h"

namespace caravan::model_io {

namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 21;  // as many as a GGUF file may name

constexpr tokenizer::VocabularyEntry kNoEntry{.text = {}, .score = 0, .kind = TokenKind::kUnused};

// What stands at a row that no token has.
std::string unused_token(std::int64_t id) {
  return fmt::format("[PAD{}]", id);
}

void note_tokens_beyond(std::int64_t count, std::int64_t rows, std::vector<std::string>& notes) {
  if (count > 0) {
    notes.push_back(fmt::format("{} tokens have ids beyond the model's {} rows and are left out", count, rows));
  }
}

const Json* find(const Json& object, const char* name) {
  if (!object.is_object()) {
    return nullptr;
  }
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_of(const Json& object, const char* name) {
  const Json* found = find(object, name);
  return found != nullptr && found->is_string() ? found->get<std::string>() : std::string();
}

bool flag_of(const Json& object, const char* name, bool otherwise) {
  const Json* found = find(object, name);
  return found != nullptr && found->is_boolean() ? found->get<bool>() : otherwise;
}

// A step, or the steps of a Sequence, in order.
std::vector<Json> steps_of(const Json* step, const char* list) {
  if (step == nullptr) {
    return {};
  }
  const Json* inner = find(*step, list);
  if (text_of(*step, "type") != "Sequence" || inner == nullptr || !inner->is_array()) {
    return {*step};
  }
  std::vector<Json> result;
  for (const Json& one : *inner) {
    for (Json& step_inside : steps_of(&one, list)) {
      result.push_back(std::move(step_inside));
    }
  }
  return result;
}

class FromFiles {
 public:
  FromFiles(const Json& json, const Json& config, std::int64_t vocab_size, std::string source,
            std::vector<std::string>& notes)
      : json_(json), config_(config), vocab_size_(vocab_size), source_(std::move(source)), notes_(notes) {}

  std::optional<GgufTokenizer> run() {
    const Json* model = find(json_, "model");
    if (model == nullptr || (!text_of(*model, "type").empty() && text_of(*model, "type") != "BPE")) {
      notes_.push_back("the tokenizer is not written: its model is no BPE");
      return std::nullopt;
    }
    const std::vector<Json> steps = steps_of(find(json_, "pre_tokenizer"), "pretokenizers");
    const bool byte_level =
        std::ranges::any_of(steps, [](const Json& one) { return text_of(one, "type") == "ByteLevel"; });
    if (!byte_level && !flag_of(*model, "byte_fallback", false)) {
      notes_.push_back("the tokenizer is not written: it is neither byte-level nor has it byte fallback");
      return std::nullopt;
    }
    out_.model = byte_level ? "gpt2" : "llama";
    read_vocabulary(*model);
    read_merges(*model, byte_level);
    if (byte_level) {
      out_.pre = splitting_of(steps, flag_of(*model, "ignore_merges", false));
    } else {
      read_space_prefix(steps);
      mark_bytes(*model);
    }
    if (const Json* normalizer = find(json_, "normalizer"); normalizer != nullptr && byte_level) {
      notes_.push_back(fmt::format("the tokenizer's normalizer {} has no word in GGUF: llama.cpp leaves it out",
                                   text_of(*normalizer, "type")));
    }
    read_special_tokens();
    return std::move(out_);
  }

 private:
  [[noreturn]] void broken(const std::string& what) const { throw FormatError(fmt::format("{}: {}", source_, what)); }

  std::int64_t id_of(const Json& value, const std::string& token) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= static_cast<std::uint64_t>(kMaxTokens)) {
      broken(fmt::format("the token \"{}\" has no id below {}", printable(token, 60), grouped(kMaxTokens)));
    }
    return value.get<std::int64_t>();
  }

  void put(const std::string& token, std::int64_t id, TokenKind kind) {
    ids_.emplace(token, id);
    if (id >= vocab_size_) {
      ++beyond_;
      return;
    }
    out_.tokens[static_cast<std::size_t>(id)] = token;
    out_.kinds[static_cast<std::size_t>(id)] = kind;
  }

  void read_vocabulary(const Json& model) {
    const Json* vocab = find(model, "vocab");
    if (vocab == nullptr || !vocab->is_object()) {
      broken("the model has no vocab");
    }
    for (std::int64_t i = 0; i < vocab_size_; ++i) {
      out_.tokens.push_back(unused_token(i));
    }
    out_.kinds.assign(static_cast<std::size_t>(vocab_size_), TokenKind::kUnused);
    for (const auto& [token, id] : vocab->items()) {
      put(token, id_of(id, token), TokenKind::kNormal);
    }
    if (const Json* added = find(json_, "added_tokens"); added != nullptr && added->is_array()) {
      for (const Json& one : *added) {
        const std::string token = text_of(one, "content");
        const Json* id = find(one, "id");
        if (token.empty() || id == nullptr) {
          broken("an added token has no content or no id");
        }
        put(token, id_of(*id, token), flag_of(one, "special", false) ? TokenKind::kControl : TokenKind::kUserDefined);
      }
    }
    note_tokens_beyond(beyond_, vocab_size_, notes_);
  }

  void read_merges(const Json& model, bool byte_level) {
    const Json* merges = find(model, "merges");
    if (merges == nullptr || !merges->is_array()) {
      broken("the model has no merges");
    }
    std::unordered_map<std::string, float> rank;  // of what a merge makes, the first that makes it
    for (const Json& one : *merges) {
      std::string left;
      std::string right;
      if (one.is_string()) {
        const std::string line = one.get<std::string>();
        const std::size_t space = line.find(' ');
        left = line.substr(0, space);
        right = space == std::string::npos ? "" : line.substr(space + 1);
      } else if (one.is_array() && one.size() == 2 && one[0].is_string() && one[1].is_string()) {
        left = one[0].get<std::string>();
        right = one[1].get<std::string>();
      }
      if (left.empty() || right.empty()) {
        broken(fmt::format("merge {} is not two tokens", rank.size()));
      }
      if (byte_level) {
        out_.merges.push_back(left + " " + right);
      }
      rank.emplace(left + right, static_cast<float>(rank.size()) + 1.0F);
    }
    if (byte_level) {
      return;
    }
    // SentencePiece merges the pair whose result has the highest score: minus the place in the list gives the list's
    // order.  What no merge makes is never a result.
    for (const std::string& token : out_.tokens) {
      const auto found = rank.find(token);
      out_.scores.push_back(found == rank.end() ? 0.0F : -found->second);
    }
  }

  // A name that llama.cpp has for the way in which text is cut.
  std::string splitting_of(const std::vector<Json>& steps, bool ignore_merges) {
    std::vector<std::string> patterns;
    bool digits = false;
    bool odd = false;
    bool own_pattern = false;
    for (const Json& step : steps) {
      const std::string type = text_of(step, "type");
      if (type == "Digits" && patterns.empty() && flag_of(step, "individual_digits", false)) {
        digits = true;
      } else if (type == "Split" && text_of(step, "behavior") == "Isolated" && !flag_of(step, "invert", false)) {
        const Json* wanted = find(step, "pattern");
        patterns.push_back(wanted == nullptr ? "" : text_of(*wanted, "Regex"));
      } else if (type == "ByteLevel") {
        own_pattern = flag_of(step, "use_regex", true);
        odd = odd || flag_of(step, "add_prefix_space", true);
      } else {
        odd = true;
      }
    }
    const tokenizer::PreTokenizerForm* found = nullptr;
    for (const tokenizer::PreTokenizerForm& form : tokenizer::pre_tokenizer_forms()) {
      const bool same = !odd && digits == form.single_digits && own_pattern == form.patterns.empty() &&
                        std::ranges::equal(patterns, form.patterns);
      if (same &&
          (found == nullptr || (found->ignore_merges != ignore_merges && form.ignore_merges == ignore_merges))) {
        found = &form;
      }
    }
    if (found == nullptr) {
      notes_.push_back(
          "the tokenizer splits text in a way that llama.cpp has no name for: it will use GPT-2's, with other ids "
          "where the two differ");
      found = &tokenizer::pre_tokenizer_forms().front();
    } else if (found->ignore_merges != ignore_merges) {
      notes_.push_back(
          fmt::format("the tokenizer {} words that are tokens, llama.cpp does {}with this way of splitting",
                      ignore_merges ? "does not merge" : "merges", ignore_merges ? "" : "not "));
    }
    return std::string(found->names.front());
  }

  void read_space_prefix(const std::vector<Json>& steps) {
    bool prefix = false;
    for (const Json& one : steps_of(find(json_, "normalizer"), "normalizers")) {
      prefix = prefix || text_of(one, "type") == "Prepend";
    }
    for (const Json& one : steps) {
      if (text_of(one, "type") == "Metaspace") {
        const std::string scheme = text_of(one, "prepend_scheme");
        prefix = prefix || (scheme.empty() ? flag_of(one, "add_prefix_space", true) : scheme != "never");
      }
    }
    out_.add_space_prefix = prefix;
  }

  void mark_bytes(const Json& model) {
    const std::string unknown = text_of(model, "unk_token");
    for (std::size_t i = 0; i < out_.tokens.size(); ++i) {
      const std::string& token = out_.tokens[i];
      if (token.size() == 6 && token.starts_with("<0x") && token.ends_with(">")) {
        out_.kinds[i] = TokenKind::kByte;
      } else if (!unknown.empty() && token == unknown) {
        out_.kinds[i] = TokenKind::kUnknown;
        out_.unk = static_cast<std::int64_t>(i);
      }
    }
  }

  // A token of tokenizer_config.json by name: its text, or an object with "content".
  std::optional<std::int64_t> named(const char* name) const {
    const Json* found = find(config_, name);
    if (found == nullptr) {
      return std::nullopt;
    }
    const auto id = ids_.find(found->is_string() ? found->get<std::string>() : text_of(*found, "content"));
    return id == ids_.end() || id->second >= vocab_size_ ? std::nullopt : std::optional(id->second);
  }

  // Whether the post-processor's template has the token before (or behind) the text.
  bool in_template(std::optional<std::int64_t> token, bool before) const {
    for (const Json& step : steps_of(find(json_, "post_processor"), "processors")) {
      const Json* single = text_of(step, "type") == "TemplateProcessing" ? find(step, "single") : nullptr;
      bool seen_text = false;
      for (const Json& one : single != nullptr && single->is_array() ? *single : Json::array()) {
        seen_text = seen_text || find(one, "Sequence") != nullptr;
        const Json* special = find(one, "SpecialToken");
        const auto id = special == nullptr ? ids_.end() : ids_.find(text_of(*special, "id"));
        if (token && id != ids_.end() && id->second == *token && seen_text != before) {
          return true;
        }
      }
    }
    return false;
  }

  void read_special_tokens() {
    out_.bos = named("bos_token");
    out_.eos = named("eos_token");
    out_.pad = named("pad_token");
    if (!out_.unk) {
      out_.unk = named("unk_token");
    }
    out_.add_bos = in_template(out_.bos, true) || (out_.bos && flag_of(config_, "add_bos_token", false));
    out_.add_eos = in_template(out_.eos, false) || (out_.eos && flag_of(config_, "add_eos_token", false));
  }

  const Json& json_;
  const Json& config_;
  std::int64_t vocab_size_;
  std::string source_;
  std::vector<std::string>& notes_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::int64_t beyond_ = 0;
  GgufTokenizer out_;
};

Json config_of(std::string_view tokenizer_config, const std::string& source) {
  return tokenizer_config.empty() ? Json::object() : parse_json(tokenizer_config, source + " (config)");
}

// chat_template.jinja where there is one, else the template of tokenizer_config.json: a text, or a list of named ones.
std::optional<std::string> template_of(std::string_view chat_template, const Json& config) {
  if (!chat_template.empty()) {
    return std::string(chat_template);
  }
  const Json* found = find(config, "chat_template");
  if (found == nullptr) {
    return std::nullopt;
  }
  if (found->is_string()) {
    return found->get<std::string>();
  }
  for (const Json& one : found->is_array() ? *found : Json::array()) {
    if (text_of(one, "name") == "default") {
      return text_of(one, "template");
    }
  }
  return std::nullopt;
}

// --- the other way

std::string config_json(const GgufTokenizer& tokenizer) {
  Json json = Json::object();
  const auto put = [&](const char* name, std::optional<std::int64_t> id) {
    if (id) {
      json[name] = tokenizer.tokens[static_cast<std::size_t>(*id)];
    }
  };
  if (tokenizer.add_bos) {
    json["add_bos_token"] = *tokenizer.add_bos;
  }
  if (tokenizer.add_eos) {
    json["add_eos_token"] = *tokenizer.add_eos;
  }
  put("bos_token", tokenizer.bos);
  put("eos_token", tokenizer.eos);
  put("pad_token", tokenizer.pad);
  put("unk_token", tokenizer.unk);
  json["clean_up_tokenization_spaces"] = false;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::optional<GgufTokenizer> tokenizer_from_files(std::string_view tokenizer_json, std::string_view tokenizer_config,
                                                  std::string_view chat_template, std::int64_t vocab_size,
                                                  const std::string& source, std::vector<std::string>& notes) {
  const Json json = parse_json(tokenizer_json, source);
  const Json config = config_of(tokenizer_config, source);
  std::optional<GgufTokenizer> result = FromFiles(json, config, vocab_size, source, notes).run();
  if (!result) {
    return std::nullopt;
  }
  result->chat_template = template_of(chat_template, config);
  result->tokenizer_json = tokenizer_json;
  result->tokenizer_config = tokenizer_config;
  return result;
}

std::optional<GgufTokenizer> tokenizer_from_model_file(const std::filesystem::path& file,
                                                       std::string_view tokenizer_config,
                                                       std::string_view chat_template, std::int64_t vocab_size,
                                                       std::vector<std::string>& notes) {
  tokenizer::FileParts found;
  try {
    found = tokenizer::parts_of_file(file);
  } catch (const UnsupportedError& error) {
    notes.push_back(fmt::format("the tokenizer is not written: {}", error.what()));
    return std::nullopt;
  }
  notes.insert(notes.end(), found.notes.begin(), found.notes.end());
  const tokenizer::TokenizerParts& parts = found.parts;
  GgufTokenizer out;
  out.model = parts.model;
  out.pre = parts.pre;
  const auto count = static_cast<std::int64_t>(parts.vocabulary.size());
  for (std::int64_t i = 0; i < vocab_size; ++i) {
    const bool inside = i < count;
    const tokenizer::VocabularyEntry entry = inside ? parts.vocabulary[static_cast<std::size_t>(i)] : kNoEntry;
    out.tokens.push_back(inside ? std::string(entry.text) : unused_token(i));
    out.kinds.push_back(entry.kind);
    if (out.model == "llama") {
      out.scores.push_back(entry.score);
    }
  }
  note_tokens_beyond(count - vocab_size, vocab_size, notes);
  out.merges.assign(parts.merges.begin(), parts.merges.end());
  const auto id = [&](const std::optional<std::int32_t>& one) {
    return one && *one < vocab_size ? std::optional<std::int64_t>(*one) : std::nullopt;
  };
  out.bos = id(parts.bos);
  out.eos = id(parts.eos);
  out.pad = id(parts.pad);
  out.unk = id(parts.unknown);
  out.add_bos = parts.add_bos;
  out.add_eos = parts.add_eos;
  out.add_space_prefix = parts.add_space_prefix;
  out.chat_template = template_of(chat_template, config_of(tokenizer_config, file.string()));
  return out;
}

std::map<std::string, std::string> tokenizer_files(const GgufTokenizer& tokenizer, std::vector<std::string>& notes) {
  std::map<std::string, std::string> files;
  if (!tokenizer.tokenizer_json.empty()) {
    files["tokenizer.json"] = tokenizer.tokenizer_json;
    files["tokenizer_config.json"] =
        tokenizer.tokenizer_config.empty() ? config_json(tokenizer) : tokenizer.tokenizer_config;
  } else {
    try {
      files["tokenizer.json"] = tokenizer::to_tokenizer_json(parts_of(tokenizer), "tokenizer.ggml");
      files["tokenizer_config.json"] = config_json(tokenizer);
    } catch (const Error& error) {
      notes.push_back(fmt::format("the tokenizer is not written: {}", error.what()));
    }
  }
  if (tokenizer.chat_template) {
    files["chat_template.jinja"] = *tokenizer.chat_template;
  }
  return files;
}

}  // namespace caravan::model_io
