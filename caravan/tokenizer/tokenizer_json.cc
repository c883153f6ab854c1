// Reads tokenizer.json, a file of a stranger: whatever it says is checked before it is used.
#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/json_source.h"
#include "caravan/tokenizer/model_scan.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/utf8.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxSteps = 32;
constexpr std::size_t kMaxTemplateIds = 1024;
constexpr std::size_t kMaxContentBytes = 64;  // what is put before a text or in a match's place

// What Split and Replace look for.
struct Sought {
  std::string text;
  bool is_regex = false;
};

class Reader : public JsonSource {
 public:
  Reader(const std::string& source, Tokenizer::Table& table) : JsonSource(source), table_(table) {}

  // `scanned`: what stands in the file where `json` has an empty vocabulary.
  void read(const Json& json, const ScannedModel* scanned = nullptr) {
    require(json.is_object(), "the file is not a JSON object");
    if (const Json* version = find(json, "version")) {
      require(*version == "1.0", "\"version\" is not \"1.0\"");
    }
    read_normalizer(member(json, "normalizer"));
    read_pre_tokenizer(member(json, "pre_tokenizer"), "pre_tokenizer");
    table_.model.symbols = byte_level_ ? BpeModel::Symbols::kBytes : BpeModel::Symbols::kCharacters;
    VocabularyBuilder vocabulary(table_, source());
    read_model(member(json, "model"), scanned, vocabulary);
    read_added_tokens(member(json, "added_tokens"), vocabulary);
    table_.model.tokens.index();
    read_post_processor(member(json, "post_processor"));
    read_decoder(member(json, "decoder"));
  }

 private:
  std::string short_text(const Json& object, const char* name, const std::string& where) const {
    const std::string found = text(object, name, where);
    require(found.size() <= kMaxContentBytes, fmt::format("\"{}\" of {} is too long", name, where));
    return found;
  }

  // One character, U+2581 where the file says nothing.
  std::string character(const Json& object, const char* name, const std::string& where, bool required) const {
    if (!required && find(object, name) == nullptr) {
      return std::string(kSpaceSymbol);
    }
    const std::string found = text(object, name, where);
    require(!found.empty() && code_point_at(found, 0).length == found.size(),
            fmt::format("\"{}\" of {} is not one character", name, where));
    return found;
  }

  Sought sought(const Json& json, const std::string& where) const {
    const Json& pattern = member(json, "pattern");
    require(pattern.is_object() && pattern.size() == 1, where + " has no pattern");
    if (find(pattern, "String") == nullptr) {
      return {text(pattern, "Regex", where), true};
    }
    return {short_text(pattern, "String", where), false};
  }

  // The two fields of a Replace, normalizer or decoder.
  template <typename Step>
  void read_replace(const Json& json, const std::string& where, Step& step) const {
    step.content = short_text(json, "content", where);
    const Sought what = sought(json, where);
    if (what.is_regex) {
      step.pattern = Pattern::compile(what.text, source());
      return;
    }
    if (what.text.empty()) {
      unsupported(where + " of nothing");
    }
    step.literal = what.text;
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
    require(table_.normalizer.size() < kMaxSteps, "the normalizer has too many steps");
    NormalizerStep step;
    static const std::pair<const char*, NormalForm> kForms[] = {
        {"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}};
    const auto form =
        std::find_if(std::begin(kForms), std::end(kForms), [&](const auto& one) { return type == one.first; });
    if (form != std::end(kForms)) {
      step.form = form->second;
    } else if (type == "Prepend") {
      step.kind = NormalizerStep::Kind::kPrepend;
      step.content = short_text(json, "prepend", "the normalizer Prepend");
    } else if (type == "Replace") {
      step.kind = NormalizerStep::Kind::kReplace;
      read_replace(json, "the normalizer Replace", step);
    } else {
      unsupported(fmt::format("the normalizer {}", printable(type, 60)));
    }
    table_.normalizer.push_back(std::move(step));
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
        add_step({.kind = SplitStep::Kind::kPrefixSpace, .pattern = {}, .mark = {}});
      }
      if (flag(json, "use_regex", true)) {
        add_step({.kind = SplitStep::Kind::kGpt2, .pattern = {}, .mark = {}});
      }
      if (byte_level_) {
        unsupported("a second ByteLevel pre_tokenizer");
      }
      byte_level_ = true;
    } else if (type == "Split") {
      add_step(split_step(json));
    } else if (type == "Digits") {
      const bool each = flag(json, "individual_digits", false);
      add_step({.kind = SplitStep::Kind::kDigits,
                .pattern = {},
                .behavior = each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                .mark = {}});
    } else if (type == "Metaspace") {
      add_step({.kind = SplitStep::Kind::kMetaspace,
                .pattern = {},
                .mark = character(json, "replacement", "the pre_tokenizer Metaspace", /*required=*/true),
                .scheme = prepend_scheme(json, "the pre_tokenizer Metaspace"),
                .cuts = flag(json, "split", true)});
    } else {
      unsupported(fmt::format("the pre_tokenizer {}", printable(type, 60)));
    }
  }

  // "prepend_scheme" of today, or "add_prefix_space" of files before 2024.
  PrependScheme prepend_scheme(const Json& json, const std::string& where) const {
    const std::string name = find(json, "prepend_scheme") == nullptr ? "always" : text(json, "prepend_scheme", where);
    static const std::pair<const char*, PrependScheme> kSchemes[] = {
        {"always", PrependScheme::kAlways}, {"first", PrependScheme::kFirst}, {"never", PrependScheme::kNever}};
    const auto found =
        std::find_if(std::begin(kSchemes), std::end(kSchemes), [&](const auto& one) { return name == one.first; });
    require(found != std::end(kSchemes),
            fmt::format("{} has the unknown prepend_scheme \"{}\"", where, printable(name, 60)));
    if (flag(json, "add_prefix_space", true)) {
      return found->second;
    }
    require(found->second == PrependScheme::kNever || find(json, "prepend_scheme") == nullptr,
            where + " has an add_prefix_space that its prepend_scheme contradicts");
    return PrependScheme::kNever;
  }

  SplitStep split_step(const Json& json) const {
    SplitStep step;
    step.invert = flag(json, "invert", false);
    step.behavior = behavior(text(json, "behavior", "the Split pre_tokenizer"));
    const Sought what = sought(json, "the Split pre_tokenizer");
    step.kind = SplitStep::Kind::kPattern;
    if (!what.is_regex) {
      step.pattern = Pattern::literal(what.text, source());
      return step;
    }
    // The scanners leave nothing between matches, so that all of these mean the same to them.
    if (step.behavior == SplitBehavior::kIsolated && !step.invert) {
      return isolating_step(what.text, source());
    }
    step.pattern = Pattern::compile(what.text, source());
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

  void read_model(const Json& json, const ScannedModel* scanned, VocabularyBuilder& vocabulary) {
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
    const Json& vocab = member(json, "vocab");
    require(vocab.is_object(), "the model has no vocab");
    const Json& merges = list(json, "merges", "the model");
    if (scanned != nullptr) {
      vocabulary.reserve(scanned->vocabulary.size(), scanned->merges.size());
      for (const auto& [spelling, number] : scanned->vocabulary) {
        vocabulary.add(spelling, number);
      }
      read_unknown(json, vocabulary);
      for (const auto& [left, right] : scanned->merges) {
        vocabulary.add_merge(left, right);
      }
      vocabulary.finish_merges();
      return;
    }
    vocabulary.reserve(vocab.size(), merges.size());
    for (const auto& [spelling, value] : vocab.items()) {
      vocabulary.add(spelling, id(value, "the token " + shown_token(spelling)));
    }
    read_unknown(json, vocabulary);
    std::size_t place = 0;
    for (const Json& one : merges) {
      read_merge(one, place++, vocabulary);
    }
    vocabulary.finish_merges();
  }

  void read_unknown(const Json& json, const VocabularyBuilder& vocabulary) {
    BpeModel& model = table_.model;
    const bool falls_back = flag(json, "byte_fallback", false);
    const bool has_unknown = find(json, "unk_token") != nullptr;
    if (byte_level_) {
      // Neither is ever used when every byte has a token.
      const bool complete = std::count(model.byte_ids.begin(), model.byte_ids.end(), -1) == 0;
      if (!complete && (falls_back || has_unknown)) {
        unsupported(fmt::format("{} of bytes that have no token", falls_back ? "byte_fallback" : "unk_token"));
      }
      return;
    }
    model.byte_fallback = falls_back;
    model.fuse_unknown = flag(json, "fuse_unk", false);
    if (has_unknown) {
      const std::string token = text(json, "unk_token", "the model");
      const auto known = vocabulary.find(token);
      require(known.has_value(), fmt::format("unk_token is {}, which is not in the vocabulary", shown_token(token)));
      model.unknown = *known;
    }
  }

  void read_merge(const Json& json, std::size_t place, VocabularyBuilder& vocabulary) const {
    if (json.is_string()) {
      vocabulary.add_merge(json.get_ref<const std::string&>());
      return;
    }
    require(json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string(),
            fmt::format("merge {} is not a pair of tokens", grouped(static_cast<std::int64_t>(place))));
    vocabulary.add_merge(json[0].get_ref<const std::string&>(), json[1].get_ref<const std::string&>());
  }

  void read_added_tokens(const Json& json, VocabularyBuilder& vocabulary) const {
    if (json.is_null()) {
      return;
    }
    require(json.is_array(), "\"added_tokens\" is not a list");
    require(json.size() <= kMaxAddedTokens, "there are too many added tokens");
    // tokenizers numbers tokens that the vocabulary lacks from its size on, whatever the file says.
    auto next = static_cast<std::int64_t>(vocabulary.size());
    std::set<std::string> seen;
    for (const Json& one : json) {
      AddedToken token;
      token.content = text(one, "content", "an added token");
      if (token.content.empty()) {
        continue;
      }
      const std::string shown = "the added token " + shown_token(token.content);
      require(seen.insert(token.content).second, shown + " stands twice in the file");
      token.id = id(member(one, "id"), shown);
      token.single_word = flag(one, "single_word", false);
      token.lstrip = flag(one, "lstrip", false);
      token.rstrip = flag(one, "rstrip", false);
      token.special = flag(one, "special", false);
      token.normalized = flag(one, "normalized", !token.special);
      const auto known = vocabulary.find(token.content);
      const std::int64_t expected = known ? *known : next++;
      require(token.id == expected,
              fmt::format("{} has the id {}, but tokenizers would give it {}", shown, token.id, expected));
      vocabulary.add_token(token);
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
      const std::string shown = "the template's token " + shown_token(token);
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
    if (byte_level_) {
      return read_byte_decoder(json, type);
    }
    table_.decoder.kind = DecodeRules::Kind::kSteps;
    read_decode_step(json, type);
  }

  void read_byte_decoder(const Json& json, const std::string& type) const {
    int byte_levels = type == "ByteLevel" ? 1 : 0;
    if (type == "Sequence") {
      for (const Json& one : list(json, "decoders", "decoder")) {
        const std::string part = text(one, "type", "a step of the decoder");
        byte_levels += part == "ByteLevel" ? 1 : 0;
        if (part != "ByteLevel" && part != "Fuse") {  // Fuse joins texts, which ByteLevel has done
          unsupported(fmt::format("the decoder {} behind a ByteLevel pre_tokenizer", printable(part, 60)));
        }
      }
    }
    if (byte_levels != 1) {
      unsupported(fmt::format("the decoder {} without one ByteLevel", printable(type, 60)));
    }
  }

  bool has_step(DecodeStep::Kind kind) const {
    const auto& steps = table_.decoder.steps;
    return std::any_of(steps.begin(), steps.end(), [kind](const DecodeStep& step) { return step.kind == kind; });
  }

  void read_decode_step(const Json& json, const std::string& type) {
    if (type == "Sequence") {
      for (const Json& one : list(json, "decoders", "decoder")) {
        read_decode_step(one, text(one, "type", "a step of the decoder"));
      }
      return;
    }
    require(table_.decoder.steps.size() < kMaxSteps, "the decoder has too many steps");
    const bool fused = has_step(DecodeStep::Kind::kFuse);
    DecodeStep step;
    if (type == "Replace") {
      step.kind = DecodeStep::Kind::kReplace;
      read_replace(json, "the decoder Replace", step);
    } else if (type == "ByteFallback") {
      step.kind = DecodeStep::Kind::kByteFallback;
    } else if (type == "Strip") {
      step.kind = DecodeStep::Kind::kStrip;
      step.content = character(json, "content", "the decoder Strip", /*required=*/true);
      step.start = count(json, "start", 0);
      step.stop = count(json, "stop", 0);
    } else if (type == "Metaspace") {
      step.kind = DecodeStep::Kind::kMetaspace;
      step.literal = character(json, "replacement", "the decoder Metaspace", /*required=*/true);
      step.prepended = prepend_scheme(json, "the decoder Metaspace") != PrependScheme::kNever;
    } else if (type != "Fuse") {
      unsupported(fmt::format("the decoder {}", printable(type, 60)));
    }
    const bool streams = step.kind == DecodeStep::Kind::kStrip || step.kind == DecodeStep::Kind::kFuse ||
                         (step.kind == DecodeStep::Kind::kReplace && !step.pattern);
    if (fused && !streams) {
      unsupported(fmt::format("the decoder {}{} behind Fuse", type, step.pattern ? " of a pattern" : ""));
    }
    if (step.kind == DecodeStep::Kind::kByteFallback && has_step(step.kind)) {
      unsupported("a second ByteFallback decoder");
    }
    table_.decoder.steps.push_back(std::move(step));
  }

  Tokenizer::Table& table_;
  bool byte_level_ = false;
};

std::optional<std::int32_t> known_id(const std::optional<NamedToken>& named, const Tokenizer::Table& table) {
  if (!named) {
    return std::nullopt;
  }
  const auto known = table.id_of(named->token.content);
  if (!known) {
    throw FormatError(
        fmt::format("{} is {}, which is no token of tokenizer.json", named->where, shown_token(named->token.content)));
  }
  return known;
}

}  // namespace

void read_tokenizer_json(std::string_view text, const std::string& source, const NamedTokens& named,
                         Tokenizer::Table& table) {
  if (const std::optional<ScannedModel> scanned = scan_model(text)) {
    try {
      Reader(source, table).read(parse_json(scanned->rest, source), &*scanned);
    } catch (const std::exception&) {
      // The whole document says where the fault is.
      Tokenizer::Table unused;
      Reader(source, unused).read(parse_json(text, source));
      throw;
    }
  } else {
    Reader(source, table).read(parse_json(text, source));
  }
  table.bos = known_id(named.bos, table);
  table.eos = known_id(named.eos, table);
  table.pad = known_id(named.pad, table);
  table.add_bos = named.add_bos.value_or(true);
  table.add_eos = named.add_eos.value_or(true);
}

}  // namespace caravan::tokenizer
