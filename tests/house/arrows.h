// The rules of the house that a compiler does not check, applied to a source tree: the table of arrows, where vendor
// headers may appear, who may follow a tensor's address, and how long a file may be.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace caravan::house {

// Room -> every room below it, the indirect ones included.
using Arrows = std::map<std::string, std::set<std::string>>;

// Reads lines `room: room room ...`; '#' opens a comment.  A room must stand below the lines that name it.
// Throws std::runtime_error naming the line.
Arrows read_arrows(const std::filesystem::path& table);

struct Scan {
  std::vector<std::string> violations;  // "caravan/nn/layers.h:7: ..." in path order
  int files = 0;                        // sources and headers read
  int includes = 0;                     // includes of rooms among them
};

// Applies every rule to the sources below `root`/caravan.
Scan scan_tree(const std::filesystem::path& root, const Arrows& arrows);

}  // namespace caravan::house
