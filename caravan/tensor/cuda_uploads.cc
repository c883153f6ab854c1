// From the host to a device, without waiting: bytes go through pinned memory of the calling thread.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "caravan/tensor/cuda_api.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::cuda_memory {
namespace {

std::size_t size(std::int64_t bytes) {
  return static_cast<std::size_t>(bytes);
}

// Copies `rows` runs of `width` bytes from pinned memory without gaps.
void start_copy(std::byte* dst, std::int64_t pitch, const std::byte* pinned, std::int64_t width, std::int64_t rows) {
  if (rows == 1 || pitch == width) {
    check_cuda(cudaMemcpyAsync(dst, pinned, size(width * rows), cudaMemcpyHostToDevice, cudaStreamPerThread),
               "copying to the device");
  } else {
    check_cuda(cudaMemcpy2DAsync(dst, size(pitch), pinned, size(width), size(width), size(rows), cudaMemcpyHostToDevice,
                                 cudaStreamPerThread),
               "copying to the device");
  }
}

// Pinned memory of one thread and one device in pieces, filled one after the other.  A piece is filled again when the
// stream has passed the event behind the last copy out of it.
class Ring {
 public:
  explicit Ring(int index) : index_(index) {
    check_cuda(cudaHostAlloc(&memory_, kPieces * kPieceBytes, cudaHostAllocDefault), "pinning host memory");
    for (Piece& piece : pieces_) {
      if (const cudaError_t error = cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming);
          error != cudaSuccess) {
        free();
        check_cuda(error, "making an event");
      }
    }
  }
  ~Ring() { free(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  int index() const { return index_; }

  void copy_in(std::byte* dst, std::int64_t pitch, const std::byte* src, std::int64_t width, std::int64_t rows) {
    if (rows == 1 || pitch == width) {
      copy_run(dst, src, width * rows);
      return;
    }
    for (std::int64_t row = 0; row < rows;) {
      if (width > kPieceBytes) {
        copy_run(dst + row * pitch, src + row * width, width);
        ++row;
        continue;
      }
      if (room() < width) {
        next();
      }
      const std::int64_t count = std::min(rows - row, room() / width);
      start_copy(dst + row * pitch, pitch, taken(src + row * width, count * width), width, count);
      row += count;
    }
  }

 private:
  static constexpr std::int64_t kPieceBytes = 512 * 1024;
  static constexpr std::size_t kPieces = 8;

  struct Piece {
    cudaEvent_t done = nullptr;
    bool waits = false;  // done was recorded and not waited for
  };

  void copy_run(std::byte* dst, const std::byte* src, std::int64_t bytes) {
    for (std::int64_t at = 0; at < bytes;) {
      const std::int64_t count = std::min(bytes - at, room());
      start_copy(dst + at, count, taken(src + at, count), count, 1);
      at += count;
    }
  }

  // Bytes that can be taken at once, at least one.
  std::int64_t room() {
    if (used_ == kPieceBytes) {
      next();
    }
    return kPieceBytes - used_;
  }

  // The bytes' copy in the piece at hand.
  const std::byte* taken(const std::byte* src, std::int64_t bytes) {
    std::byte* const place = static_cast<std::byte*>(memory_) + static_cast<std::int64_t>(now_) * kPieceBytes + used_;
    std::memcpy(place, src, size(bytes));
    used_ += bytes;
    return place;
  }

  void next() {
    check_cuda(cudaEventRecord(pieces_[now_].done, cudaStreamPerThread), "recording an event");
    pieces_[now_].waits = true;
    now_ = (now_ + 1) % kPieces;
    used_ = 0;
    if (pieces_[now_].waits) {
      check_cuda(cudaEventSynchronize(pieces_[now_].done), "waiting for the device");
      pieces_[now_].waits = false;
    }
  }

  void free() {
    // Memory that is being copied from is waited for.  What fails here has failed, and said so, before.
    for (Piece& piece : pieces_) {
      if (piece.done != nullptr) {
        (void)cudaEventDestroy(piece.done);
      }
    }
    (void)cudaFreeHost(memory_);
  }

  int index_;
  void* memory_ = nullptr;
  std::array<Piece, kPieces> pieces_;
  std::size_t now_ = 0;
  std::int64_t used_ = 0;  // of the piece at hand
};

Ring& ring_of_thread(int index) {
  thread_local std::vector<std::unique_ptr<Ring>> rings;
  const auto found = std::ranges::find_if(rings, [&](const auto& one) { return one->index() == index; });
  return found != rings.end() ? **found : *rings.emplace_back(std::make_unique<Ring>(index));
}

}  // namespace

struct KeptUploads::Memory {
  std::vector<std::shared_ptr<void>> pinned;

  const std::byte* keep(const std::byte* src, std::int64_t bytes) {
    // Memory may be pinned though the stream records: the graph does not hear of it.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    check_cuda(cudaThreadExchangeStreamCaptureMode(&mode), "letting memory be pinned");
    void* place = nullptr;
    const cudaError_t error = cudaHostAlloc(&place, size(bytes), cudaHostAllocDefault);
    (void)cudaThreadExchangeStreamCaptureMode(&mode);
    check_cuda(error, "pinning host memory");
    pinned.emplace_back(place, [](void* made) { (void)cudaFreeHost(made); });
    std::memcpy(place, src, size(bytes));
    return static_cast<const std::byte*>(place);
  }
};

namespace {
thread_local KeptUploads::Memory* keeping = nullptr;  // of the thread's KeptUploads
}

KeptUploads::KeptUploads() : memory_(std::make_shared<Memory>()) {
  keeping = memory_.get();
}

KeptUploads::~KeptUploads() {
  keeping = nullptr;
}

std::shared_ptr<const void> KeptUploads::memory() const {
  return memory_;
}

void copy_in(int index, std::byte* dst, std::int64_t pitch, const std::byte* src, std::int64_t width,
             std::int64_t rows) {
  use(index);
  if (keeping != nullptr) {
    start_copy(dst, pitch, keeping->keep(src, width * rows), width, rows);
  } else {
    ring_of_thread(index).copy_in(dst, pitch, src, width, rows);
  }
}

}  // namespace caravan::cuda_memory
