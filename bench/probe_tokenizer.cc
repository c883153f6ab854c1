// Encodes a file and prints, for the whole text and for its lines, "case<TAB>seconds<TAB>million bytes a second": the
// best of three.
//
//   probe_tokenizer TOKENIZER FILE
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/tokenizer/tokenizer.h"

namespace {

double best_seconds(const std::function<void()>& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 3; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

void report(const char* name, double seconds, std::size_t bytes) {
  std::printf("%s\t%.6f\t%.1f\n", name, seconds, static_cast<double>(bytes) / seconds / 1e6);
}

void run(const char* tokenizer_path, const char* text_path) {
  const auto tokenizer = caravan::tokenizer::Tokenizer::load(tokenizer_path);
  const std::string text = caravan::read_text_file(text_path, std::int64_t{1} << 30);
  std::vector<std::string_view> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.push_back(std::string_view(text).substr(at, end - at));
    at = end;
  }
  std::size_t ids = 0;
  report("one text", best_seconds([&] { ids += tokenizer.encode(text).size(); }), text.size());
  report("lines", best_seconds([&] {
           for (const std::string_view line : lines) {
             ids += tokenizer.encode(line).size();
           }
         }),
         text.size());
  std::fprintf(stderr, "%zu ids\n", ids);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) {
      std::fprintf(stderr, "usage: probe_tokenizer TOKENIZER FILE\n");
      return 2;
    }
    run(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "probe_tokenizer: %s\n", error.what());
    return 2;
  }
}
