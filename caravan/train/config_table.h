// The rows behind config_keys(): each binds a name to its member of Config; inside train only.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "caravan/train/config_keys.h"

namespace caravan::train {

// Where a key's value lives.
using Slot = std::variant<std::string*, std::vector<std::string>*, std::vector<double>*, std::int64_t*, double*, bool*,
                          std::optional<std::int64_t>*, std::optional<double>*, std::optional<bool>*>;

// What a number, or each number of a list, may be.
struct Limits {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above_low = false;   // `low` itself is outside
  bool below_high = false;  // `high` itself is outside
  bool or_minus_one = false;

  bool hold(double value) const;
  // ", at least 1" and the like; nothing without limits.
  std::string text() const;
};

struct Row {
  std::string name;
  Slot (*slot)(Config&);
  std::string help;
  Limits limits = {};
  std::vector<std::string> choices = {};  // of a text, or of each text of a list
  std::string plain_name = {};
  std::string differs = {};
};

const std::vector<Row>& rows();

// By the full or the plain name; nullptr for neither.
const Row* find_row(std::string_view name);

KeyKind kind_of(const Row& row);
// "a whole number, at least 1"
std::string expectation(const Row& row);
// The value as TOML writes it, or "unset".
std::string value_text(const Row& row, const Config& config);
// `text` as a TOML string.
std::string toml_string(std::string_view text);

// A key of torchtitan's that Caravan does not have.
struct ForeignKey {
  std::string name;      // ends with "." where it stands for a whole section
  std::string accepted;  // the value, as TOML writes it, that asks for nothing; "*": any, since another key switches it
  std::string advice;    // instead of "remove it"
};

// torchtitan 0.2's, from its configuration classes; nullptr when it is not among them.
const ForeignKey* find_foreign(std::string_view name);
const std::vector<ForeignKey>& foreign_keys();

}  // namespace caravan::train
