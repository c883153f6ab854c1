// A template's tokens as a tree: jinja2's grammar.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "caravan/jinja/ast.h"

namespace caravan::jinja {

// Throws as Template::parse.
std::shared_ptr<const Program> parse_program(std::string_view text, const std::string& source);

}  // namespace caravan::jinja
