#include "caravan/tokenizer/normalizer.h"

#include <fmt/core.h>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::tokenizer {

void refuse_growth(std::size_t bytes) {
  throw InputError(fmt::format("the tokenizer makes more than {} bytes of a text of {}",
                               grouped(static_cast<std::int64_t>(growth_limit(bytes))),
                               grouped(static_cast<std::int64_t>(bytes))));
}

std::string replace_all(std::string_view text, std::string_view literal, std::string_view content, std::size_t limit) {
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(literal, at)) != std::string_view::npos; at = found + literal.size()) {
    result.append(text.substr(at, found - at)).append(content);
    if (result.size() > limit) {
      refuse_growth(text.size());
    }
  }
  return result.append(text.substr(at));
}

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, std::size_t limit) {
  std::string result;
  for (const Stretch& one : pattern.find(text)) {
    result.append(one.is_match ? content : text.substr(one.begin, one.end - one.begin));
    if (result.size() > limit) {
      refuse_growth(text.size());
    }
  }
  return result;
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  const std::size_t limit = growth_limit(text.size());
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
        result = step.pattern ? replace_all(result, *step.pattern, step.content, limit)
                              : replace_all(result, step.literal, step.content, limit);
        break;
    }
    if (result.size() > limit) {
      refuse_growth(text.size());
    }
  }
  return result;
}

}  // namespace caravan::tokenizer
