#include "caravan/tokenizer/chat_template.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"

namespace caravan::tokenizer {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxTemplateBytes = std::int64_t{1} << 20;  // a longer one is refused with jinja's own sentence
constexpr std::int64_t kMaxConfigBytes = std::int64_t{4} << 20;
constexpr std::size_t kMaxTemplates = 100;

// Names that a request says by itself.
constexpr std::string_view kOwn[] = {"messages", "tools", "documents", "add_generation_prompt"};

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Json read_json(const fs::path& path) {
  return is_there(path) ? parse_json(read_text_file(path, kMaxConfigBytes), path.string()) : Json();
}

struct NamedTemplate {
  std::string name;
  std::string text;
  std::string source;
};

std::vector<NamedTemplate> templates_of_files(const fs::path& directory) {
  std::vector<NamedTemplate> result;
  const fs::path own = directory / "chat_template.jinja";
  if (is_there(own)) {
    result.push_back({"default", read_text_file(own, kMaxTemplateBytes), own.string()});
  }
  std::error_code error;
  std::vector<fs::path> more;
  for (fs::directory_iterator entry(directory / "additional_chat_templates", error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".jinja" && more.size() < kMaxTemplates) {
      more.push_back(entry->path());
    }
  }
  std::ranges::sort(more);
  for (const fs::path& path : more) {
    result.push_back({path.stem().string(), read_text_file(path, kMaxTemplateBytes), path.string()});
  }
  return result;
}

// "chat_template" of a JSON file: a text, or a list of {"name": ..., "template": ...}.
std::vector<NamedTemplate> templates_of_json(const Json& json, const std::string& source) {
  const auto found = json.is_object() ? json.find("chat_template") : json.end();
  if (found == json.end() || found->is_null()) {
    return {};
  }
  if (found->is_string()) {
    return {{"default", found->get<std::string>(), source + ", chat_template"}};
  }
  const auto text = [](const Json& one, const char* name) {
    return one.is_object() && one.contains(name) && one.at(name).is_string();
  };
  std::vector<NamedTemplate> result;
  for (const Json& one : found->is_array() ? *found : Json::array()) {
    if (!text(one, "name") || !text(one, "template") || result.size() == kMaxTemplates) {
      result.clear();
      break;
    }
    const std::string name = one.at("name").get<std::string>();
    result.push_back({name, one.at("template").get<std::string>(),
                      fmt::format("{}, chat_template \"{}\"", source, printable(name, 60))});
  }
  if (result.empty()) {
    throw FormatError(
        fmt::format("{}: chat_template must be a text or a list of objects with name and template", source));
  }
  return result;
}

// Members that end in "_token": texts, or objects with "content".
void add_tokens(const Json& json, const std::string& source, std::map<std::string, std::string>& tokens) {
  if (!json.is_object()) {
    return;
  }
  for (const auto& [name, value] : json.items()) {
    if (!name.ends_with("_token")) {
      continue;
    }
    if (value.is_string()) {
      tokens.emplace(name, value.get<std::string>());
    } else if (value.is_object()) {
      if (!value.contains("content") || !value.at("content").is_string()) {
        throw FormatError(fmt::format("{}: {} is an object without a text \"content\"", source, printable(name, 60)));
      }
      tokens.emplace(name, value.at("content").get<std::string>());
    }
  }
}

const NamedTemplate& chosen(const std::vector<NamedTemplate>& templates, const std::string& name, bool with_tools,
                            const fs::path& directory) {
  const auto by_name = [&](std::string_view wanted) {
    return std::ranges::find(templates, wanted, &NamedTemplate::name);
  };
  auto found = templates.end();
  if (!name.empty()) {
    found = by_name(name);
  } else if (templates.size() == 1) {
    found = templates.begin();
  } else {
    found = with_tools ? by_name("tool_use") : templates.end();
    found = found == templates.end() ? by_name("default") : found;
  }
  if (found != templates.end()) {
    return *found;
  }
  std::vector<std::string> names;
  for (const NamedTemplate& one : templates) {
    names.push_back("\"" + printable(one.name, 60) + "\"");
  }
  throw InputError(fmt::format("{}: {}; there {} {}", directory.string(),
                               name.empty() ? "none of its chat templates is the default one, name one"
                                            : fmt::format("has no chat template \"{}\"", printable(name, 60)),
                               names.size() == 1 ? "is" : "are", fmt::join(names, ", ")));
}

bool is_list_of_objects(const Json& json) {
  return json.is_array() && std::all_of(json.begin(), json.end(), [](const Json& one) { return one.is_object(); });
}

// Reasoning goes under the names that templates look for, as transformers has it since its fifth version.
Json with_reasoning(const Json& messages) {
  Json result = Json::array();
  for (const Json& message : messages) {
    Json copy = message;
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      if (message.contains(name) && !message.at(name).is_null()) {
        const Json reasoning = message.at(name);
        copy = Json{{"thinking", reasoning}};
        copy.update(message);
        copy["reasoning_content"] = reasoning;
        break;
      }
    }
    result.push_back(std::move(copy));
  }
  return result;
}

}  // namespace

void check_messages(const Json& messages, const std::string& source) {
  if (!is_list_of_objects(messages)) {
    throw FormatError(fmt::format(
        "{}: messages must be a list of objects, as [{{\"role\": \"user\", \"content\": \"Hello\"}}]", source));
  }
}

ChatRequest parse_chat_request(const Json& json, const std::string& source) {
  ChatRequest request;
  if (!json.is_object()) {
    check_messages(json, source);
    request.messages = json;
    return request;
  }
  for (const auto& [name, value] : json.items()) {
    if (name == "messages") {
      check_messages(value, source);
      request.messages = value;
    } else if (name == "tools" || name == "documents") {
      if (!value.is_null() && !is_list_of_objects(value)) {
        throw FormatError(fmt::format("{}: {} must be a list of objects", source, name));
      }
      (name == "tools" ? request.tools : request.documents) = value;
    } else if (name == "add_generation_prompt") {
      if (!value.is_boolean()) {
        throw FormatError(fmt::format("{}: add_generation_prompt must be true or false", source));
      }
      request.add_generation_prompt = value.get<bool>();
    } else if (name == "chat_template") {
      if (!value.is_string()) {
        throw FormatError(fmt::format("{}: chat_template must be the name of a template", source));
      }
      request.template_name = value.get<std::string>();
    } else if (name == "chat_template_kwargs") {
      if (!value.is_object()) {
        throw FormatError(fmt::format("{}: chat_template_kwargs must be an object", source));
      }
      for (const std::string_view own : kOwn) {
        if (value.contains(own)) {
          throw FormatError(
              fmt::format("{}: chat_template_kwargs must not have {}, which stands beside it", source, own));
        }
      }
      request.variables = value;
    } else {
      throw FormatError(
          fmt::format("{}: \"{}\" is none of messages, tools, documents, add_generation_prompt, "
                      "chat_template and chat_template_kwargs",
                      source, printable(name, 60)));
    }
  }
  check_messages(request.messages, source);
  return request;
}

ChatTemplate ChatTemplate::parse(std::string_view text, const std::string& source,
                                 std::map<std::string, std::string> tokens) {
  return {jinja::Template::parse(text, source), std::move(tokens)};
}

std::optional<ChatTemplate> ChatTemplate::load(const fs::path& directory, const std::string& name, bool with_tools) {
  const fs::path config_path = directory / "tokenizer_config.json";
  const Json config = read_json(config_path);
  std::vector<NamedTemplate> templates = templates_of_files(directory);
  if (templates.empty()) {
    templates = templates_of_json(config, config_path.string());
  }
  if (templates.empty()) {
    const fs::path processor = directory / "chat_template.json";
    templates = templates_of_json(read_json(processor), processor.string());
  }
  if (templates.empty()) {
    return std::nullopt;
  }
  std::map<std::string, std::string> tokens;
  add_tokens(config, config_path.string(), tokens);
  const fs::path map = directory / "special_tokens_map.json";
  add_tokens(read_json(map), map.string(), tokens);
  const NamedTemplate& one = chosen(templates, name, with_tools, directory);
  return parse(one.text, one.source, std::move(tokens));
}

std::string ChatTemplate::render(const ChatRequest& request) const {
  Json variables = Json::object();
  for (const auto& [name, token] : tokens_) {
    variables[name] = token;
  }
  if (request.variables.is_object()) {
    variables.update(request.variables);
  }
  variables["messages"] = with_reasoning(request.messages);
  variables["tools"] = request.tools;
  variables["documents"] = request.documents;
  variables["add_generation_prompt"] = request.add_generation_prompt;
  return template_.render(variables, {.now = request.now});
}

std::vector<std::int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, const ChatRequest& request) const {
  return tokenizer.encode(render(request), {.add_special = false});
}

std::optional<std::int32_t> ChatTemplate::end_of_turn(const Tokenizer& tokenizer) const {
  // Words that no template writes by itself.
  const std::string answer = "Caravan's own answer";
  ChatRequest request;
  request.messages = Json::array({Json{{"role", "user"}, {"content", "Caravan's own question"}},
                                  Json{{"role", "assistant"}, {"content", answer}}});
  std::string text;
  try {
    text = render(request);
  } catch (const Error&) {
    return std::nullopt;  // whoever renders messages of their own will hear of it
  }
  const std::size_t place = text.rfind(answer);
  if (place == std::string::npos) {
    return std::nullopt;
  }
  for (const std::int32_t id : tokenizer.encode(text.substr(place + answer.size()), {.add_special = false})) {
    if (tokenizer.is_special(id)) {
      return id;
    }
  }
  return std::nullopt;
}

}  // namespace caravan::tokenizer
