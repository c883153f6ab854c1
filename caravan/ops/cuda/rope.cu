// Rotary tables and their application.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<RopeTablesArgs> rope_tables_list() {
  return {};
}

ImplementationList<RopeArgs> rope_list() {
  return {};
}

}  // namespace caravan::ops::cuda
