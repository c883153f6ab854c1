// The table of configuration keys, and the one reader and printer that are made from it.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/train/config.h"

namespace caravan::train {

enum class KeyKind { kText, kTextList, kInteger, kNumber, kNumberList, kBool, kChoice };

// One key as help and documentation show it.
struct ConfigKey {
  std::string name;  // "training.seq_len"
  KeyKind kind = KeyKind::kText;
  std::string default_text;  // as TOML writes it; "unset" where nothing is
  std::string help;          // one phrase
  std::vector<std::string> choices = {};
  std::string plain_name = {};  // what a plain trainer calls it: "max_seq_len"; also a flag
  std::string differs = {};     // how it differs from torchtitan's; empty: it does not
};

// All keys in the order of the struct.
const std::vector<ConfigKey>& config_keys();

// Reads TOML text into `config`: keys that are not there keep their values.  `source` opens every message.
// Throws ConfigError with line and column: no TOML, an unknown section or key (naming the nearest), a wrong type
// (naming what was expected and found), a number outside its limits, an unknown choice.  Whole numbers may stand for
// decimals.
void read_toml(Config& config, std::string_view text, const std::string& source);

// Sets one key from a command line ("training.seq_len" or its plain name); lists are separated by commas, or a TOML
// array.  Throws ConfigError as read_toml.
void set_key(Config& config, const std::string& name, const std::string& value);

// TOML with every set key, a section after the other; read_toml gives the same config back.
std::string print_toml(const Config& config);

// The reference page in Markdown: every key with type, default and help, then the keys that differ from torchtitan.
std::string print_reference();

// What single keys cannot tell: contradictions between keys, values that this build cannot do (parallel degrees above
// 1).  Throws ConfigError or UnsupportedError in one sentence.
void validate(const Config& config);

}  // namespace caravan::train
