#include "caravan/tokenizer/normalizer.h"

namespace caravan::tokenizer {

std::string replace_all(std::string_view text, std::string_view literal, std::string_view content) {
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(literal, at)) != std::string_view::npos; at = found + literal.size()) {
    result.append(text.substr(at, found - at)).append(content);
  }
  return result.append(text.substr(at));
}

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content) {
  std::string result;
  for (const Stretch& one : pattern.find(text)) {
    result.append(one.is_match ? content : text.substr(one.begin, one.end - one.begin));
  }
  return result;
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  std::string result(text);
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::kForm:
        result = normalize(step.form, result);
        break;
      case NormalizerStep::Kind::kPrepend:
        if (!result.empty()) {
          result.insert(0, step.content);
        }
        break;
      case NormalizerStep::Kind::kReplace:
        result = step.pattern ? replace_all(result, *step.pattern, step.content)
                              : replace_all(result, step.literal, step.content);
        break;
    }
  }
  return result;
}

}  // namespace caravan::tokenizer
