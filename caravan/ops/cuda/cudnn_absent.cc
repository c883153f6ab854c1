// Where there is no cuDNN: the emulated device.
#include "caravan/base/error.h"
#include "caravan/ops/cuda/cudnn_graph.h"

namespace caravan::ops::cuda {

class Cudnn {};

struct SdpaGraph::Made {};

std::shared_ptr<Cudnn> open_cudnn() {
  throw UnsupportedError("the emulated device has no cuDNN");
}

SdpaGraph::SdpaGraph(Cudnn& cudnn, const SdpaShape& /*shape*/) : cudnn_(cudnn) {}

SdpaGraph::~SdpaGraph() = default;

void SdpaGraph::run(const SdpaPointers& /*pointers*/, void* /*workspace*/) {}

}  // namespace caravan::ops::cuda
