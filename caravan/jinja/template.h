// The part of Jinja 2 that chat templates are written in.
//
// A room of its own below the tokenizer: it knows JSON and text, no tokens and no models, and whoever renders a template
// from a stranger (chat templates now, evaluation tasks later) can stand on it.
//
// The text is laid out as transformers has it: trim_blocks and lstrip_blocks on, one newline at the end dropped, nothing
// escaped.  Results equal those of jinja2 3.1 in transformers' ImmutableSandboxedEnvironment, or there is an error.
//
//   statements   output, if/elif/else, for (with if, else, break, continue, unpacking), set (also of a namespace's
//                attribute, also as a block), macro (at the top), with, filter, raw, generation; comments; `-` and `+`
//                at the tags
//   loop         index, index0, revindex, revindex0, first, last, length, previtem, nextitem, depth, depth0, cycle, changed
//   expressions  literals, names, attributes, items, slices, calls, filters, tests, + - * / // % ** ~, comparisons also in
//                chains, in, not in, and, or, not, inline if
//   filters      those of jinja2 but for filesizeformat, forceescape, groupby, pprint, random, slice, striptags, urlencode,
//                urlize, wordcount, wordwrap, xmlattr; tojson is transformers', with ensure_ascii, indent, separators, sort_keys
//   tests        all of jinja2 but for filter and test
//   methods      of strings, lists and dicts, those that change nothing
//   functions    range, namespace, dict, raise_exception, strftime_now
//
// What is outside is an UnsupportedError that names the construct and its line, when the template is parsed, or when it is
// reached where that cannot be known before: import, include, extends, block, call, recursive loops, autoescape, arguments
// after * and **, macros inside other blocks, whole numbers beyond 64 bits, text of functions and generators.
//
// A template is a stranger's program.  It reads nothing but the variables it is given, and its size, its steps, the depth
// of its recursion and the memory of what it makes are limited: whatever it says, it ends within a second and 64 MiB.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "caravan/base/json.h"

namespace caravan::jinja {

struct Limits {
  std::int64_t max_template_bytes = std::int64_t{256} << 10;
  std::int64_t max_steps = 5'000'000;               // evaluated nodes, and one for each 64 bytes of text made or read
  std::int64_t max_bytes = std::int64_t{40} << 20;  // of output and values alive at once; variables do not count
  int max_depth = 1000;                             // of nodes evaluated inside each other, macros included
};

struct RenderOptions {
  // The date and time of strftime_now(); the clock of the machine is never asked.  Without it the function is undefined, so
  // that templates which test for it take their own date.
  std::optional<std::tm> now = {};
  Limits limits = {};
};

struct Program;  // a parsed template: the implementation's

// A parsed template.  Copies share it; any number of threads may render it at once.
class Template {
 public:
  // `source` (a file name) opens every message.  Throws FormatError when the text is not UTF-8, too long, or no template;
  // UnsupportedError with construct and line for what is outside the subset.
  static Template parse(std::string_view text, const std::string& source, const Limits& limits = {});

  // The text for `variables`, a JSON object (null: none): each member is a variable.
  // Throws InputError with the line where the template calls raise_exception or does what Python would not (adding a number
  // to text, an attribute of something undefined); UnsupportedError for what is outside the subset; FormatError when it
  // passes a limit.
  std::string render(const Json& variables, const RenderOptions& options = {}) const;

 private:
  explicit Template(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace caravan::jinja
