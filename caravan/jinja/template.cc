#include "caravan/jinja/template.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/jinja/parser.h"
#include "caravan/jinja/renderer.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

Template Template::parse(std::string_view text, const std::string& source, const Limits& limits) {
  const auto size = static_cast<std::int64_t>(text.size());
  if (size > limits.max_template_bytes) {
    throw FormatError(
        fmt::format("{}: the template has {} bytes, more than the {} that are read; it is broken or hostile", source,
                    grouped(size), grouped(limits.max_template_bytes)));
  }
  if (const std::optional<std::size_t> invalid = first_invalid_byte(text)) {
    throw FormatError(fmt::format("{}: the template is not UTF-8 at byte {}", source,
                                  grouped(static_cast<std::int64_t>(*invalid) + 1)));
  }
  return Template(parse_program(text, source));
}

std::string Template::render(const Json& variables, const RenderOptions& options) const {
  Engine engine(program_->source, options.limits);
  if (!variables.is_null() && !variables.is_object()) {
    throw InputError(fmt::format("{}: the variables of a template must be a JSON object", program_->source));
  }
  return Renderer(engine, *program_, variables, options).run();
}

}  // namespace caravan::jinja
