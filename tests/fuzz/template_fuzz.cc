// Any bytes as a chat template: it is refused, or it ends within its limits and gives UTF-8.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/jinja/template.h"
#include "caravan/jinja/text.h"

namespace {

using caravan::Json;

// Variables under the names that tests/golden/chat/pieces.txt uses.
const char* const kVariables = R"({
  "messages": [{"role": "system", "content": " s\n"}, {"role": "user", "content": "h\u00e9llo <b>"},
               {"role": "assistant", "content": "<think>x</think>y", "tool_calls": [{"id": "123456789",
                "function": {"name": "f", "arguments": {"a": 1, "b": [true, null, 2.5]}}}]}],
  "tools": [{"type": "function", "function": {"name": "f", "description": "d",
             "parameters": {"type": "object", "properties": {"p": {"type": "string"}}}}}],
  "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>",
  "text": "Hello, World", "words": ["b", "A", "c", "a"], "numbers": [3, 1, 2, 2.5, -7], "empty": [], "nothing": null,
  "yes": true, "record": {"b": 1, "a": [1, 2], "C": null, "items": "hidden", "x y": {"z": 5}},
  "people": [{"name": "Ann", "age": 31, "tags": ["x"]}, {"name": "bob", "age": 7, "tags": []}, {"name": "Cid", "age": 31}],
  "unicode": "Gr\u00f6\u00dfe \u4f60\u597d e\u0301 \u00a0nbsp\u3000 \u2028 \ufeff \u0149 \u03a3\u03b1\u03c2 \u0391\u03a3. \u0130 \ufb01 \u01c6",
  "control": "tab\there \u0001\u001b[31m \u007f \\ \" ' \r\nline\rend", "html": "<a href=\"x\">'&'</a>",
  "big": 9007199254740993, "floats": [0.1, 1e16, 1e15, 1e-5, -0.0, 2.5, 1e300, 5e-324, 100.0]
})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Json variables = Json::parse(kVariables);
  const std::string text(reinterpret_cast<const char*>(data), size);
  caravan::jinja::RenderOptions options;
  options.now.emplace();
  options.limits.max_steps = 50'000;
  options.limits.max_bytes = std::int64_t{4} << 20;
  try {
    const std::string result = caravan::jinja::Template::parse(text, "x").render(variables, options);
    if (caravan::jinja::first_invalid_byte(result)) {
      std::abort();
    }
  } catch (const caravan::Error&) {
  }
  return 0;
}
