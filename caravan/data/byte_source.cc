#include "caravan/data/byte_source.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

bool begins_with(Bytes bytes, std::initializer_list<unsigned char> magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin(),
                                                    [](auto a, auto b) { return a == static_cast<unsigned char>(b); });
}

// RFC 1952, 2.3.1; no UTF-8 text begins with these, nor with zstd's.
bool is_gzip(Bytes bytes) {
  return begins_with(bytes, {0x1f, 0x8b});
}

// RFC 8878, 3.1: a frame, or a skippable frame before it.
bool is_zstd(Bytes bytes) {
  return begins_with(bytes, {0x28, 0xb5, 0x2f, 0xfd}) ||
         (bytes.size() >= 4 && (static_cast<unsigned char>(bytes[0]) & 0xf0) == 0x50 &&
          begins_with(bytes.subspan(1), {0x2a, 0x4d, 0x18}));
}

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(Bytes bytes) : bytes_(bytes) {}

  std::size_t read(std::span<char> into) override {
    const std::size_t count = std::min(into.size(), bytes_.size() - position_);
    if (count > 0) {
      std::memcpy(into.data(), bytes_.data() + position_, count);
    }
    position_ += count;
    return count;
  }
  std::int64_t consumed() const override { return static_cast<std::int64_t>(position_); }

 private:
  Bytes bytes_;
  std::size_t position_ = 0;
};

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(Bytes bytes) : bytes_(bytes) {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  std::size_t read(std::span<char> into) override {
    constexpr std::size_t kMost = std::numeric_limits<uInt>::max();
    into = into.first(std::min(into.size(), kMost));
    stream_.next_out = reinterpret_cast<Bytef*>(into.data());
    stream_.avail_out = static_cast<uInt>(into.size());
    stream_.avail_in = 0;
    while (stream_.avail_out == into.size() && !into.empty() && !ended_) {
      if (member_ended_) {
        next_member();
        continue;
      }
      const uInt offered = static_cast<uInt>(std::min(bytes_.size() - position_, kMost));
      // zlib's interface predates const; inflate does not write to its input.
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes_.data() + position_));
      stream_.avail_in = offered;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      position_ += offered - stream_.avail_in;
      member_ended_ = code == Z_STREAM_END;
      if (stream_.avail_out < into.size()) {
        break;  // what came before any damage is given out first; inflate says again what is wrong
      }
      if (member_ended_) {
        continue;
      }
      if (code == Z_MEM_ERROR) {
        throw std::bad_alloc();
      }
      if (code != Z_OK && code != Z_BUF_ERROR) {
        throw DamagedStream(fmt::format("the gzip data is damaged before byte {} of the file ({})", grouped(consumed()),
                                        stream_.msg != nullptr ? stream_.msg : "no detail"));
      }
      if (position_ == bytes_.size()) {
        throw DamagedStream(
            fmt::format("the gzip data ends in the middle, after {} bytes of the file; is the "
                        "download complete?",
                        grouped(consumed())));
      }
    }
    return into.size() - stream_.avail_out;
  }
  std::int64_t consumed() const override { return static_cast<std::int64_t>(position_); }

 private:
  // A file may hold several members (RFC 1952, 2.2), and zero bytes behind them where tapes wrote it.
  void next_member() {
    member_ended_ = false;
    const Bytes rest = bytes_.subspan(position_);
    if (is_gzip(rest)) {
      inflateReset(&stream_);
    } else if (std::ranges::all_of(rest, [](std::byte b) { return b == std::byte{0}; })) {
      ended_ = true;
    } else {
      throw DamagedStream(fmt::format("{} bytes that are no gzip data follow byte {} of the file",
                                      grouped(static_cast<std::int64_t>(rest.size())), grouped(consumed())));
    }
  }

  Bytes bytes_;
  std::size_t position_ = 0;
  z_stream stream_{};
  bool member_ended_ = false;
  bool ended_ = false;
};

class ZstdSource final : public ByteSource {
 public:
  explicit ZstdSource(Bytes bytes) : bytes_(bytes), context_(ZSTD_createDCtx()) {
    if (context_ == nullptr) {
      throw std::bad_alloc();
    }
  }

  std::size_t read(std::span<char> into) override {
    ZSTD_outBuffer output{into.data(), into.size(), 0};
    while (output.pos == 0 && output.size > 0) {
      const bool at_end = position_ == bytes_.size();
      if (at_end && frame_complete_) {
        return 0;
      }
      // No more than the next block, so that what came before any damage is given out first.
      ZSTD_inBuffer input{bytes_.data(), position_ + std::min(bytes_.size() - position_, wanted_), position_};
      const std::size_t code = ZSTD_decompressStream(context_.get(), &output, &input);
      position_ = input.pos;
      if (ZSTD_isError(code) != 0) {
        throw DamagedStream(fmt::format("the zstd data is damaged before byte {} of the file ({})", grouped(consumed()),
                                        ZSTD_getErrorName(code)));
      }
      frame_complete_ = code == 0;  // the next call begins the next frame
      wanted_ = std::max(code, kFrameStart);
      if (at_end && output.pos == 0 && !frame_complete_) {
        throw DamagedStream(
            fmt::format("the zstd data ends in the middle, after {} bytes of the file; is the "
                        "download complete?",
                        grouped(consumed())));
      }
    }
    return output.pos;
  }
  std::int64_t consumed() const override { return static_cast<std::int64_t>(position_); }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  static constexpr std::size_t kFrameStart = 5;  // of a frame's header; tells how long the rest of it is

  Bytes bytes_;
  std::size_t position_ = 0;
  std::size_t wanted_ = kFrameStart;
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  bool frame_complete_ = true;
};

// Keeps the mapping that another source reads.
class MappedSource final : public ByteSource {
 public:
  MappedSource(MappedFile file, const fs::path& path)
      : file_(std::move(file)), source_(ByteSource::over(file_.bytes(), path)) {}
  std::size_t read(std::span<char> into) override { return source_->read(into); }
  std::int64_t consumed() const override { return source_->consumed(); }

 private:
  MappedFile file_;
  std::unique_ptr<ByteSource> source_;
};

}  // namespace

fs::path unpacked_name(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".gz" || extension == ".zst" ? fs::path(path).replace_extension() : path;
}

std::unique_ptr<ByteSource> ByteSource::open(const fs::path& path) {
  return std::make_unique<MappedSource>(MappedFile::open(path), path);
}

std::unique_ptr<ByteSource> ByteSource::over(Bytes bytes, const fs::path& name) {
  const fs::path extension = name.extension();
  if (is_gzip(bytes)) {
    return std::make_unique<GzipSource>(bytes);
  }
  if (is_zstd(bytes)) {
    return std::make_unique<ZstdSource>(bytes);
  }
  if (extension == ".gz" || extension == ".zst") {
    throw FormatError(
        fmt::format("{}:1: the name ends in {}, but the content is not packed that way; is the download "
                    "complete?",
                    name.string(), extension.string()));
  }
  return std::make_unique<PlainSource>(bytes);
}

}  // namespace caravan::data
