// The sentence for a refusal of the operating system; inside base only.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <system_error>

#include "caravan/base/error.h"

namespace caravan {

// "out/model.safetensors: cannot be opened: Permission denied".  `code` is an errno.
[[noreturn]] inline void throw_file_error(const std::filesystem::path& path, std::string_view what, int code) {
  throw FileError(fmt::format("{}: {}: {}", path.string(), what, std::generic_category().message(code)));
}

}  // namespace caravan
