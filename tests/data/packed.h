// Texts as gzip and zstd would write them.
#pragma once

#include <string>

namespace caravan::test {

std::string gzip(const std::string& text);
std::string zstd(const std::string& text);

}  // namespace caravan::test
