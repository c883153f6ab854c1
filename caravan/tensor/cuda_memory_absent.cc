#include "caravan/base/error.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::cuda_memory {
namespace {

constexpr char kAbsent[] =
    "this caravan was built without CUDA; build it with `make build CUDA=1`, or leave out --device";

}  // namespace

std::string refusal(int /*index*/) {
  return kAbsent;
}

void use(int /*index*/) {
  throw UnsupportedError(kAbsent);
}

std::string describe(int /*index*/) {
  throw UnsupportedError(kAbsent);
}

std::int64_t free_bytes(int /*index*/) {
  throw UnsupportedError(kAbsent);
}

std::byte* reserve(int /*index*/, std::int64_t /*bytes*/) {
  throw UnsupportedError(kAbsent);
}

void release(int /*index*/, std::byte* /*base*/) {}

void copy_in(int /*index*/, std::byte* /*dst*/, std::int64_t /*pitch*/, const std::byte* /*src*/,
             std::int64_t /*width*/, std::int64_t /*rows*/) {
  throw UnsupportedError(kAbsent);
}

void copy_out(int /*index*/, std::byte* /*dst*/, const std::byte* /*src*/, std::int64_t /*pitch*/,
              std::int64_t /*width*/, std::int64_t /*rows*/) {
  throw UnsupportedError(kAbsent);
}

KeptUploads::KeptUploads() = default;

KeptUploads::~KeptUploads() = default;

std::shared_ptr<const void> KeptUploads::memory() const {
  return nullptr;
}

std::shared_ptr<LateCopy> start_copy_out(int /*index*/, const std::byte* /*src*/, std::int64_t /*bytes*/,
                                         std::shared_ptr<LateCopy> /*used*/) {
  throw UnsupportedError(kAbsent);
}

const std::byte* finish(LateCopy& /*copy*/) {
  throw UnsupportedError(kAbsent);
}

}  // namespace caravan::cuda_memory
