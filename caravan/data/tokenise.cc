#include "caravan/data/tokenise.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/data/jsonl.h"
#include "caravan/data/line_reader.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::data {
namespace {

constexpr std::size_t kWindowBytesPerThread = std::size_t{4} << 20;
constexpr std::size_t kWindowDocumentsPerThread = 4096;

// A document as it stands in its file.
struct Raw {
  std::string content;
  const std::filesystem::path* file = nullptr;
  std::int64_t line = 0;  // 0: the whole file

  std::string place() const { return line > 0 ? fmt::format("{}:{}", file->string(), line) : file->string(); }
};

class Tokeniser {
 public:
  Tokeniser(DatasetKind kind, const Encoder* encoder, const PrepareOptions& options,
            const std::function<void(std::span<const std::int32_t>)>& sink)
      : kind_(kind), encoder_(encoder), options_(options), sink_(sink), threads_(std::max(options.threads, 1)) {}

  // True when the window was full and its documents have been handed on.
  bool add(Raw raw) {
    bytes_ += raw.content.size();
    window_.push_back(std::move(raw));
    const std::size_t threads = static_cast<std::size_t>(threads_);
    const bool full =
        bytes_ >= threads * kWindowBytesPerThread || window_.size() >= threads * kWindowDocumentsPerThread;
    if (full) {
      flush();
    }
    return full;
  }

  void flush() {
    std::vector<std::vector<std::int32_t>> ids(window_.size());
    std::vector<std::exception_ptr> failures(window_.size());
    std::atomic<std::size_t> next{0};
    // Whoever is free takes the next document: their lengths differ widely.
    const std::int64_t workers = std::min<std::int64_t>(threads_, static_cast<std::int64_t>(window_.size()));
    parallel_for(threads_, workers, 1, [&](std::int64_t, std::int64_t) {
      for (std::size_t i = next++; i < window_.size(); i = next++) {
        try {
          ids[i] = ids_of(window_[i]);
        } catch (...) {
          failures[i] = std::current_exception();
        }
      }
    });
    for (std::size_t i = 0; i < window_.size(); ++i) {
      if (failures[i]) {
        std::rethrow_exception(failures[i]);
      }
      sink_(ids[i]);
    }
    window_.clear();
    bytes_ = 0;
  }

 private:
  std::vector<std::int32_t> ids_of(const Raw& raw) const {
    const std::string place = raw.place();
    std::vector<std::int32_t> ids;
    switch (kind_) {
      case DatasetKind::kJsonlIds:
        ids = jsonl_ids(raw.content, place);
        break;
      case DatasetKind::kJsonlText:
        ids = encode(jsonl_text(raw.content, place), place);
        break;
      default:
        if (const std::optional<std::size_t> fault = tokenizer::first_invalid_byte(raw.content)) {
          throw InputError(fmt::format("{}: byte {} (0x{:02x}) is not UTF-8; convert the file, for example with iconv",
                                       place, grouped(static_cast<std::int64_t>(*fault)),
                                       static_cast<unsigned char>(raw.content[*fault])));
        }
        ids = encode(raw.content, place);
    }
    check_vocabulary(ids, place);
    return ids;
  }

  std::vector<std::int32_t> encode(std::string_view text, const std::string& place) const {
    try {
      return encoder_->encode(text);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", place, error.what()));
    }
  }

  void check_vocabulary(std::span<const std::int32_t> ids, const std::string& place) const {
    if (options_.vocab_size <= 0) {
      return;
    }
    const auto fault = std::ranges::find_if(ids, [&](std::int32_t id) { return id < 0 || id >= options_.vocab_size; });
    if (fault != ids.end()) {
      throw InputError(fmt::format("{}: the id {} at position {} is outside the vocabulary of {}; {}", place, *fault,
                                   fault - ids.begin(), options_.vocab_size,
                                   kind_ == DatasetKind::kJsonlIds
                                       ? "correct the line or give the model a larger vocab_size"
                                       : "give the model the vocab_size of the tokenizer"));
    }
  }

  DatasetKind kind_;
  const Encoder* encoder_;
  const PrepareOptions& options_;
  const std::function<void(std::span<const std::int32_t>)>& sink_;
  int threads_;
  std::vector<Raw> window_;
  std::size_t bytes_ = 0;
};

}  // namespace

void tokenise(const Recognised& dataset, const Encoder* encoder, const PrepareOptions& options,
              const std::function<void(std::span<const std::int32_t> ids)>& sink) {
  if (dataset.kind != DatasetKind::kJsonlIds && encoder == nullptr) {
    throw InputError(fmt::format("{}: is {}, which needs a tokenizer to become ids; name one, or give JSONL of ids",
                                 dataset.files.front().string(), to_string(dataset.kind)));
  }
  std::int64_t total = 0;
  for (const std::filesystem::path& file : dataset.files) {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(file, error);
    total += error ? 0 : static_cast<std::int64_t>(bytes);
  }
  std::int64_t done = 0;  // bytes of the files before the one at hand
  const auto report = [&](std::int64_t bytes) {
    if (options.progress) {
      options.progress(std::min(bytes, total), total);
    }
  };
  Tokeniser tokeniser(dataset.kind, encoder, options, sink);
  for (const std::filesystem::path& file : dataset.files) {
    if (dataset.kind == DatasetKind::kText) {
      if (std::string text = read_text(file); !text.empty() && tokeniser.add({std::move(text), &file})) {
        report(done);
      }
    } else {
      LineReader reader(file);
      for (std::string line; reader.next(line);) {
        if (!is_blank(line) && tokeniser.add({line, &file, reader.line_number()})) {
          report(done + reader.consumed());
        }
      }
    }
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(file, error);
    done += error ? 0 : static_cast<std::int64_t>(bytes);
  }
  tokeniser.flush();
  report(total);
}

}  // namespace caravan::data
