// Fields of a JSON file from a stranger, with errors that name the file and the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "caravan/base/json.h"

namespace caravan::tokenizer {

class JsonSource {
 public:
  explicit JsonSource(std::string source) : source_(std::move(source)) {}

  const std::string& source() const { return source_; }
  [[noreturn]] void broken(const std::string& what) const;       // FormatError
  [[noreturn]] void unsupported(const std::string& what) const;  // UnsupportedError: `what` is not supported
  void require(bool holds, const std::string& otherwise) const {
    if (!holds) {
      broken(otherwise);
    }
  }

  // A member that is there and not null.
  static const Json* find(const Json& object, const char* name);
  // null where it is missing.
  static const Json& member(const Json& object, const char* name);
  bool flag(const Json& object, const char* name, bool otherwise) const;
  // `where` opens what is said about it.
  std::string text(const Json& object, const char* name, const std::string& where) const;
  const Json& list(const Json& object, const char* name, const std::string& where) const;
  // A count that may be missing.
  std::size_t count(const Json& object, const char* name, std::size_t otherwise) const;
  std::int32_t id(const Json& value, const std::string& of) const;

 private:
  std::string source_;
};

}  // namespace caravan::tokenizer
