#include "tests/house/arrows.h"

#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace caravan::house {

namespace fs = std::filesystem;

namespace {

constexpr int kMaxLines = 600;

bool starts_with_any(const std::string& path, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& one) { return path.starts_with(one); });
}

// A header of a vendor's library or of a processor, and where it may appear.
struct VendorRule {
  std::regex header;
  std::vector<std::string> places;
};

const std::vector<VendorRule>& vendor_rules() {
  static const std::vector<VendorRule> rules = {
      {std::regex("(oneapi/.*|dnnl.*)"), {"caravan/ops/cpu/"}},
      {std::regex("([a-z]*mmintrin\\.h|immintrin\\.h|x86intrin\\.h|arm_neon\\.h)"),
       {"caravan/ops/cpu/", "caravan/tokenizer/"}},
      {std::regex("(cuda.*|cublas.*|cudnn.*|cub/.*|cutlass/.*)"), {"caravan/ops/cuda/", "caravan/tensor/"}},
      {std::regex("(nccl.*|mpi\\.h)"), {"caravan/comm/"}},
  };
  return rules;
}

// argument_check.cc compares addresses to find aliases and follows none.
const std::vector<std::string>& address_places() {
  static const std::vector<std::string> places = {"caravan/ops/cpu/",
                                                  "caravan/ops/cuda/",
                                                  "caravan/ops/ref/",
                                                  "caravan/ops/dispatch.h",
                                                  "caravan/ops/host_checks.h",
                                                  "caravan/ops/argument_check.cc",
                                                  "caravan/comm/",
                                                  "caravan/tensor/"};
  return places;
}

std::vector<std::string> read_lines(const fs::path& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  return lines;
}

std::string join(const std::set<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    text += (text.empty() ? "" : ", ") + word;
  }
  return text.empty() ? "nothing" : text;
}

class Scanner {
 public:
  Scanner(fs::path root, const Arrows& arrows) : root_(std::move(root)), arrows_(arrows) {}

  Scan run() {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(root_ / "caravan")) {
      if (entry.is_regular_file()) {
        files.push_back(entry.path());
      }
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      const std::string extension = file.extension().string();
      if (extension == ".h" || extension == ".cc" || extension == ".cu" || extension == ".cuh") {
        scan_file(file);
      }
    }
    for (const fs::path& file : files) {
      if (file.filename() == "CMakeLists.txt" && file.parent_path() != root_ / "caravan") {
        check_links(file);
      }
    }
    return std::move(scan_);
  }

 private:
  void report(int line, const std::string& what) {
    scan_.violations.push_back(path_ + ":" + std::to_string(line) + ": " + what);
  }

  void enter(const fs::path& file) {
    path_ = fs::relative(file, root_).generic_string();
    room_ = path_.substr(std::string("caravan/").size());
    room_ = room_.substr(0, std::min(room_.find('/'), room_.size()));
    folder_ = file.parent_path();
    while (!fs::exists(folder_ / "CMakeLists.txt") && folder_ != root_ / "caravan" / room_) {
      folder_ = folder_.parent_path();
    }
  }

  void scan_file(const fs::path& file) {
    enter(file);
    ++scan_.files;
    if (!arrows_.contains(room_)) {
      report(1, "\"" + room_ + "\" is not a room of cmake/arrows.txt");
      return;
    }
    const std::vector<std::string> lines = read_lines(file);
    if (static_cast<int>(lines.size()) > kMaxLines) {
      report(kMaxLines + 1, "the file has " + std::to_string(lines.size()) + " lines, " + std::to_string(kMaxLines) +
                                " are allowed; split it where it has two subjects");
    }
    bool pragma_once = false;
    bool in_comment = false;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string code = without_comments(lines[i], in_comment);
      pragma_once = pragma_once || code.starts_with("#pragma once");
      scan_line(static_cast<int>(i) + 1, code);
    }
    if ((file.extension() == ".h" || file.extension() == ".cuh") && !pragma_once) {
      report(1, "the header has no #pragma once");
    }
  }

  // `in_comment` carries a /* ... */ over line ends.  A comment sign inside a string literal counts as one; no rule
  // below depends on what stands after it.
  static std::string without_comments(const std::string& line, bool& in_comment) {
    std::string code;
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (in_comment) {
        if (line.compare(i, 2, "*/") == 0) {
          in_comment = false;
          ++i;
        }
      } else if (line.compare(i, 2, "//") == 0) {
        break;
      } else if (line.compare(i, 2, "/*") == 0) {
        in_comment = true;
        ++i;
      } else {
        code += line[i];
      }
    }
    return code;
  }

  void scan_line(int line, const std::string& code) {
    static const std::regex include_line(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
    static const std::regex address_use(R"((\.|->)\s*address\s*\()");
    std::smatch match;
    if (std::regex_search(code, match, include_line)) {
      const std::string header = match[1];
      if (header.starts_with("caravan/")) {
        check_room_include(line, header);
      } else {
        check_outside_include(line, header);
      }
    }
    if (std::regex_search(code, address_use) && !starts_with_any(path_, address_places())) {
      report(line, "follows Tensor::address(), which only backends, comm and tensor may do; use caravan/tensor/copy.h");
    }
  }

  void check_room_include(int line, const std::string& header) {
    ++scan_.includes;
    const std::string rest = header.substr(std::string("caravan/").size());
    const std::string other = rest.substr(0, std::min(rest.find('/'), rest.size()));
    const std::set<std::string>& below = arrows_.at(room_);
    if (other != room_ && !below.contains(other)) {
      report(line, "room \"" + room_ + "\" includes \"" + header + "\"; it may include " + join(below));
    }
    if (other != room_) {
      used_[folder_].insert(other);
    }
    const bool inside_ops = header == "caravan/ops/args.h" || header == "caravan/ops/dispatch.h" ||
                            header == "caravan/ops/host_checks.h" ||
                            starts_with_any(header, {"caravan/ops/cpu/", "caravan/ops/cuda/", "caravan/ops/ref/"});
    if (inside_ops && room_ != "ops") {
      report(line, "includes \"" + header + "\", which is for the room ops alone");
    }
  }

  void check_outside_include(int line, const std::string& header) {
    for (const VendorRule& rule : vendor_rules()) {
      if (std::regex_match(header, rule.header) && !starts_with_any(path_, rule.places)) {
        report(line, "includes the vendor header <" + header + ">, allowed only below " +
                         join({rule.places.begin(), rule.places.end()}));
      }
    }
    if (header.find('/') == std::string::npos && fs::exists(root_ / path_) &&
        fs::exists((root_ / path_).parent_path() / header)) {
      report(line, "includes \"" + header + "\" by its bare name; write the path from the project's root");
    }
  }

  // The ROOMS of caravan_room() must stay inside the table and cover every room that the folder's sources include.  A
  // part of a room (ops/cpu, the library ops_cpu) is held to its room's line; the room may link its parts.
  void check_links(const fs::path& file) {
    enter(file);
    if (!arrows_.contains(room_)) {
      return;
    }
    const std::set<std::string>& below = arrows_.at(room_);
    std::string text;
    for (const std::string& line : read_lines(file)) {
      text += line.substr(0, line.find('#')) + "\n";
    }
    static const std::regex call(R"(caravan_room\s*\(([^)]*)\))");
    std::smatch match;
    if (!std::regex_search(text, match, call)) {
      report(1, "has no caravan_room(...)");
      return;
    }
    std::istringstream words(match[1].str());
    std::set<std::string> linked;
    bool in_rooms = false;
    for (std::string word; words >> word;) {
      if (word == "ROOMS") {
        in_rooms = true;
      } else if (word == "SOURCES" || word == "LIBRARIES") {
        in_rooms = false;
      } else if (in_rooms) {
        linked.insert(word);
      }
    }
    for (const std::string& other : linked) {
      if (!below.contains(other) && !other.starts_with(room_ + "_")) {
        report(1, "links room \"" + other + "\"; it may link " + join(below));
      }
    }
    for (const std::string& other : used_[folder_]) {
      if (!linked.contains(other)) {
        report(1, "includes headers of room \"" + other + "\" but does not list it in ROOMS");
      }
    }
  }

  fs::path root_;
  const Arrows& arrows_;
  Scan scan_;
  std::string path_;  // of the file at hand, from the root
  std::string room_;
  fs::path folder_;                                 // the nearest one with a CMakeLists.txt: one library
  std::map<fs::path, std::set<std::string>> used_;  // folder -> other rooms its files include
};

}  // namespace

Arrows read_arrows(const fs::path& table) {
  std::ifstream in(table);
  if (!in) {
    throw std::runtime_error(table.string() + ": cannot be read");
  }
  Arrows arrows;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const std::string where = table.string() + ":" + std::to_string(number) + ": ";
    line = line.substr(0, line.find('#'));
    std::istringstream words(line);
    std::string room;
    if (!(words >> room)) {
      continue;
    }
    if (!room.ends_with(':')) {
      throw std::runtime_error(where + "expected `room: room ...`");
    }
    room.pop_back();
    std::set<std::string> below;
    for (std::string other; words >> other;) {
      const auto found = arrows.find(other);
      if (found == arrows.end()) {
        throw std::runtime_error(where + "\"" + other + "\" is not a room above this line");
      }
      below.insert(other);
      below.insert(found->second.begin(), found->second.end());
    }
    if (!arrows.emplace(room, below).second) {
      throw std::runtime_error(where + "room \"" + room + "\" stands twice");
    }
  }
  return arrows;
}

Scan scan_tree(const fs::path& root, const Arrows& arrows) {
  return Scanner(root, arrows).run();
}

}  // namespace caravan::house
