#include "caravan/base/version.h"

namespace caravan {

const char* version() {
  return CARAVAN_VERSION;
}

}  // namespace caravan
