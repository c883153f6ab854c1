// Reads tokenizer.json and tokenizer_config.json, files of strangers: whatever they say is checked before it is used.
#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/table.h"

namespace caravan::tokenizer {

namespace {

constexpr std::int32_t kMaxId = (1 << 24) - 1;
constexpr std::size_t kMaxTokenBytes = 65536;
constexpr std::size_t kMaxAddedTokens = 100'000;
constexpr std::size_t kMaxAddedTokenBytes = 1024;
constexpr std::size_t kMaxSteps = 32;
constexpr std::size_t kMaxTemplateIds = 1024;

class Reader {
 public:
  Reader(const std::string& source, Tokenizer::Table& table) : source_(source), table_(table) {}

  void read(const Json& json) {
    require(json.is_object(), "the file is not a JSON object");
    if (const Json* version = find(json, "version")) {
      require(*version == "1.0", "\"version\" is not \"1.0\"");
    }
    read_normalizer(member(json, "normalizer"));
    read_pre_tokenizer(member(json, "pre_tokenizer"), "pre_tokenizer");
    if (!byte_level_) {
      unsupported("a pre_tokenizer without ByteLevel");
    }
    read_model(member(json, "model"));
    read_added_tokens(member(json, "added_tokens"));
    table_.model.tokens.index();
    read_post_processor(member(json, "post_processor"));
    read_decoder(member(json, "decoder"));
  }

  void read_config(const Json& json) {
    require(json.is_object(), "the file is not a JSON object");
    table_.bos = named_token(json, "bos_token");
    table_.eos = named_token(json, "eos_token");
    table_.pad = named_token(json, "pad_token");
    table_.add_bos = flag(json, "add_bos_token", true);
    table_.add_eos = flag(json, "add_eos_token", true);
  }

 private:
  [[noreturn]] void broken(const std::string& what) const { throw FormatError(fmt::format("{}: {}", source_, what)); }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw UnsupportedError(fmt::format("{}: {} is not supported", source_, what));
  }
  void require(bool holds, const std::string& otherwise) const {
    if (!holds) {
      broken(otherwise);
    }
  }

  // A member that is there and not null.
  static const Json* find(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  static const Json& member(const Json& object, const char* name) {
    static const Json kNull;
    const Json* found = find(object, name);
    return found == nullptr ? kNull : *found;
  }
  bool flag(const Json& object, const char* name, bool otherwise) const {
    const Json* found = find(object, name);
    require(found == nullptr || found->is_boolean(), fmt::format("\"{}\" is not true or false", name));
    return found == nullptr ? otherwise : found->get<bool>();
  }
  std::string text(const Json& object, const char* name, const std::string& where) const {
    const Json* found = object.is_object() ? find(object, name) : nullptr;
    require(found != nullptr && found->is_string(), fmt::format("{} has no text \"{}\"", where, name));
    return found->get<std::string>();
  }
  std::int32_t id(const Json& value, const std::string& of) const {
    const bool right = value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{kMaxId};
    require(right, fmt::format("the id of {} is not a whole number from 0 to {}", of, grouped(kMaxId)));
    return value.get<std::int32_t>();
  }
  const Json& list(const Json& object, const char* name, const std::string& where) const {
    const Json& found = member(object, name);
    require(found.is_array(), fmt::format("{} has no list \"{}\"", where, name));
    return found;
  }

  void read_normalizer(const Json& json) {
    if (json.is_null()) {
      return;
    }
    const std::string type = text(json, "type", "normalizer");
    if (type == "Sequence") {
      for (const Json& one : list(json, "normalizers", "normalizer")) {
        read_normalizer(one);
      }
      return;
    }
    static const std::pair<const char*, NormalForm> kForms[] = {
        {"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}};
    for (const auto& [name, form] : kForms) {
      if (type == name) {
        require(table_.normal_forms.size() < kMaxSteps, "the normalizer has too many steps");
        table_.normal_forms.push_back(form);
        return;
      }
    }
    unsupported(fmt::format("the normalizer {}", printable(type, 60)));
  }

  void add_step(SplitStep step) {
    // The pieces are bytes from ByteLevel on: a pattern behind it would see other characters.
    if (byte_level_) {
      unsupported("a pre_tokenizer behind ByteLevel");
    }
    require(table_.steps.size() < kMaxSteps, "the pre_tokenizer has too many steps");
    table_.steps.push_back(std::move(step));
  }

  void read_pre_tokenizer(const Json& json, const std::string& where) {
    if (json.is_null()) {
      return;
    }
    const std::string type = text(json, "type", where);
    if (type == "Sequence") {
      for (const Json& one : list(json, "pretokenizers", where)) {
        read_pre_tokenizer(one, "a step of the pre_tokenizer");
      }
    } else if (type == "ByteLevel") {
      if (flag(json, "add_prefix_space", true)) {
        add_step({.kind = SplitStep::Kind::kPrefixSpace, .pattern = {}});
      }
      if (flag(json, "use_regex", true)) {
        add_step({.kind = SplitStep::Kind::kGpt2, .pattern = {}});
      }
      if (byte_level_) {
        unsupported("a second ByteLevel pre_tokenizer");
      }
      byte_level_ = true;
    } else if (type == "Split") {
      add_step(split_step(json));
    } else {
      unsupported(fmt::format("the pre_tokenizer {}", printable(type, 60)));
    }
  }

  SplitStep split_step(const Json& json) const {
    SplitStep step;
    step.invert = flag(json, "invert", false);
    step.behavior = behavior(text(json, "behavior", "the Split pre_tokenizer"));
    const Json& pattern = member(json, "pattern");
    require(pattern.is_object() && pattern.size() == 1, "the Split pre_tokenizer has no pattern");
    if (find(pattern, "String") != nullptr) {
      step.kind = SplitStep::Kind::kPattern;
      step.pattern = Pattern::literal(text(pattern, "String", "the Split pattern"), source_);
      return step;
    }
    const std::string regex = text(pattern, "Regex", "the Split pattern");
    // The scanners leave nothing between matches, so that all of these mean the same to them.
    const bool isolated = step.behavior == SplitBehavior::kIsolated && !step.invert;
    if (isolated && regex == kGpt2Pattern) {
      step.kind = SplitStep::Kind::kGpt2;
    } else if (isolated && (regex == kLlama3Pattern || regex == kQwen2Pattern)) {
      step.kind = SplitStep::Kind::kLlama3;
      step.digits = regex == kQwen2Pattern ? 1 : 3;
    } else {
      step.kind = SplitStep::Kind::kPattern;
      step.pattern = Pattern::compile(regex, source_);
    }
    return step;
  }

  SplitBehavior behavior(const std::string& name) const {
    static const std::pair<const char*, SplitBehavior> kBehaviors[] = {
        {"Removed", SplitBehavior::kRemoved},
        {"Isolated", SplitBehavior::kIsolated},
        {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
        {"MergedWithNext", SplitBehavior::kMergedWithNext},
        {"Contiguous", SplitBehavior::kContiguous}};
    for (const auto& [known, behavior] : kBehaviors) {
      if (name == known) {
        return behavior;
      }
    }
    broken(fmt::format("the Split pre_tokenizer has the unknown behavior \"{}\"", printable(name, 60)));
  }

  void read_model(const Json& json) {
    require(json.is_object(), "there is no model");
    // Files before 2020 do not name the type.
    if (const Json* type = find(json, "type"); type != nullptr && *type != "BPE") {
      unsupported(fmt::format("the model {}", type->is_string() ? printable(type->get<std::string>(), 60) : "?"));
    }
    if (const Json* dropout = find(json, "dropout"); dropout != nullptr && *dropout != 0) {
      unsupported("dropout of merges");
    }
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (const Json* found = find(json, name); found != nullptr && *found != "") {
        unsupported(fmt::format("the model's {}", name));
      }
    }
    table_.model.ignore_merges = flag(json, "ignore_merges", false);
    read_vocab(member(json, "vocab"));
    // Neither is ever used when every byte has a token.
    const bool complete = std::count(table_.model.byte_ids.begin(), table_.model.byte_ids.end(), -1) == 0;
    if (!complete && flag(json, "byte_fallback", false)) {
      unsupported("byte_fallback");
    }
    if (!complete && find(json, "unk_token") != nullptr) {
      unsupported("unk_token");
    }
    read_merges(list(json, "merges", "the model"));
  }

  void read_vocab(const Json& json) {
    require(json.is_object(), "the model has no vocab");
    table_.model.byte_ids.fill(-1);
    model_vocab_.reserve(json.size());
    for (const auto& [spelling, value] : json.items()) {
      const std::string shown = fmt::format("the token \"{}\"", printable(spelling, 60));
      const std::int32_t number = id(value, shown);
      require(spelling.size() <= kMaxTokenBytes, shown + " is too long");
      require(!table_.model.tokens.has(number), fmt::format("{} has the id {} of another", shown, number));
      const auto bytes = spelled_bytes(spelling);
      table_.model.tokens.put(number, bytes ? *bytes : spelling, bytes.has_value());
      if (!bytes) {
        table_.odd_ids.emplace(spelling, number);
      } else if (bytes->size() == 1) {
        table_.model.byte_ids[static_cast<unsigned char>(bytes->front())] = number;
      }
      model_vocab_.emplace(spelling, number);
    }
    vocab_entries_ = static_cast<std::int64_t>(json.size());
  }

  std::int32_t merged_id(const std::string& token, std::size_t place) const {
    const auto found = model_vocab_.find(token);
    require(found != model_vocab_.end(), fmt::format("merge {} names \"{}\", which is not in the vocabulary",
                                                     grouped(static_cast<std::int64_t>(place)), printable(token, 60)));
    return found->second;
  }

  void read_merges(const Json& json) {
    table_.model.merges.reserve(json.size());
    std::uint32_t rank = 0;
    for (const Json& one : json) {
      std::string left, right;
      if (one.is_string()) {
        const auto& line = one.get_ref<const std::string&>();
        if (line.starts_with("#version")) {
          continue;
        }
        const std::size_t space = line.find(' ');
        require(space != std::string::npos && line.find(' ', space + 1) == std::string::npos,
                fmt::format("merge {} is not two tokens with a space between", rank));
        left = line.substr(0, space);
        right = line.substr(space + 1);
      } else {
        require(one.is_array() && one.size() == 2 && one[0].is_string() && one[1].is_string(),
                fmt::format("merge {} is not a pair of tokens", rank));
        left = one[0].get<std::string>();
        right = one[1].get<std::string>();
      }
      const std::int32_t left_id = merged_id(left, rank);
      const std::int32_t right_id = merged_id(right, rank);
      table_.model.merges.put(left_id, right_id, {rank, merged_id(left + right, rank)});
      ++rank;
    }
  }

  std::string normalized(std::string content) const {
    for (const NormalForm form : table_.normal_forms) {
      content = normalize(form, content);
    }
    return content;
  }

  void read_added_tokens(const Json& json) {
    if (json.is_null()) {
      return;
    }
    require(json.is_array(), "\"added_tokens\" is not a list");
    require(json.size() <= kMaxAddedTokens, "there are too many added tokens");
    // tokenizers numbers tokens that the vocabulary lacks from its size on, whatever the file says.
    std::int64_t next = vocab_entries_;
    std::set<std::string> seen;
    for (const Json& one : json) {
      AddedToken token;
      token.content = text(one, "content", "an added token");
      if (token.content.empty()) {
        continue;
      }
      const std::string shown = fmt::format("the added token \"{}\"", printable(token.content, 60));
      require(token.content.size() <= kMaxAddedTokenBytes, shown + " is too long");
      require(seen.insert(token.content).second, shown + " stands twice in the file");
      token.id = id(member(one, "id"), shown);
      token.single_word = flag(one, "single_word", false);
      token.lstrip = flag(one, "lstrip", false);
      token.rstrip = flag(one, "rstrip", false);
      token.special = flag(one, "special", false);
      token.normalized = flag(one, "normalized", !token.special);
      const auto known = model_vocab_.find(token.content);
      const std::int64_t expected = known != model_vocab_.end() ? known->second : next++;
      require(token.id == expected,
              fmt::format("{} has the id {}, but tokenizers would give it {}", shown, token.id, expected));
      add(token, shown, known != model_vocab_.end());
    }
  }

  void add(const AddedToken& token, const std::string& shown, bool in_vocabulary) {
    const std::string key = token.normalized ? normalized(token.content) : token.content;
    // What decode gives is the key, read as the decoder reads every token.
    if (!in_vocabulary || key != token.content) {
      require(in_vocabulary || !table_.model.tokens.has(token.id), shown + " has the id of another token");
      table_.model.tokens.put(token.id, spelled_bytes(key).value_or(key), /*searchable=*/false);
      table_.odd_ids.insert_or_assign(token.content, token.id);
    }
    AddedTokenFinder& finder = token.normalized ? table_.normalized_added : table_.raw_added;
    require(finder.add(key, token), shown + " reads like another one once it is normalised");
    if (token.special) {
      table_.special.insert(token.id);
    }
  }

  void read_post_processor(const Json& json) {
    if (json.is_null()) {
      return;
    }
    const std::string type = text(json, "type", "post_processor");
    if (type == "Sequence") {
      for (const Json& one : list(json, "processors", "post_processor")) {
        read_post_processor(one);
      }
    } else if (type == "TemplateProcessing") {
      read_template(json);
    } else if (type != "ByteLevel") {  // ByteLevel moves offsets, not ids
      unsupported(fmt::format("the post_processor {}", printable(type, 60)));
    }
  }

  // Adds what stands around the text in "single"; a second template goes around the first.
  void read_template(const Json& json) {
    std::vector<std::int32_t> before;
    std::vector<std::int32_t> behind;
    int texts = 0;
    for (const Json& one : list(json, "single", "the template")) {
      require(one.is_object() && one.size() == 1, "the template holds something that is neither text nor token");
      if (const Json* sequence = find(one, "Sequence")) {
        require(text(*sequence, "id", "the template's sequence") == "A", "the template has another sequence than A");
        ++texts;
        continue;
      }
      const std::string token = text(member(one, "SpecialToken"), "id", "the template's token");
      const Json& named = member(json, "special_tokens");
      const Json* entry = named.is_object() ? find(named, token.c_str()) : nullptr;
      const std::string shown = fmt::format("the template's token \"{}\"", printable(token, 60));
      require(entry != nullptr && entry->is_object(), shown + " is not among its special_tokens");
      for (const Json& value : list(*entry, "ids", shown)) {
        const std::int32_t number = id(value, shown);
        require(table_.model.tokens.has(number), shown + " has an id that is not in the vocabulary");
        (texts == 0 ? before : behind).push_back(number);
      }
    }
    if (texts != 1) {
      unsupported("a template that does not hold the text once");
    }
    table_.prefix.insert(table_.prefix.begin(), before.begin(), before.end());
    table_.suffix.insert(table_.suffix.end(), behind.begin(), behind.end());
    require(table_.prefix.size() + table_.suffix.size() <= kMaxTemplateIds, "the template adds too many tokens");
  }

  void read_decoder(const Json& json) {
    if (json.is_null()) {
      unsupported("a tokenizer without a decoder");
    }
    const std::string type = text(json, "type", "decoder");
    int byte_levels = type == "ByteLevel" ? 1 : 0;
    if (type == "Sequence") {
      for (const Json& one : list(json, "decoders", "decoder")) {
        const std::string part = text(one, "type", "a step of the decoder");
        byte_levels += part == "ByteLevel" ? 1 : 0;
        if (part != "ByteLevel" && part != "Fuse") {  // Fuse joins texts, which ByteLevel has done
          unsupported(fmt::format("the decoder {}", printable(part, 60)));
        }
      }
    }
    if (byte_levels != 1) {
      unsupported(fmt::format("the decoder {} without one ByteLevel", printable(type, 60)));
    }
  }

  // A token of tokenizer_config.json: its text, or an object with "content".
  std::optional<std::int32_t> named_token(const Json& json, const char* name) const {
    const Json* found = find(json, name);
    if (found == nullptr) {
      return std::nullopt;
    }
    const std::string token = found->is_string() ? found->get<std::string>() : text(*found, "content", name);
    const auto known = table_.id_of(token);
    require(known.has_value(),
            fmt::format("{} is \"{}\", which is no token of tokenizer.json", name, printable(token, 60)));
    return known;
  }

  const std::string& source_;
  Tokenizer::Table& table_;
  bool byte_level_ = false;
  std::int64_t vocab_entries_ = 0;
  std::unordered_map<std::string, std::int32_t> model_vocab_;
};

std::string fingerprint_of(std::string_view json, std::string_view config) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(state.get());
  XXH3_128bits_update(state.get(), json.data(), json.size());
  XXH3_128bits_update(state.get(), config.data(), config.size());
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, const std::string& source, std::string_view config) {
  const auto table = std::make_shared<Table>();
  Reader(source, *table).read(parse_json(json, source));
  if (!config.empty()) {
    const std::string config_source = (std::filesystem::path(source).parent_path() / "tokenizer_config.json").string();
    Reader(config_source, *table).read_config(parse_json(config, config_source));
  }
  table->fingerprint = fingerprint_of(json, config);
  return Tokenizer(table);
}

}  // namespace caravan::tokenizer
