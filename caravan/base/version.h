// Which Caravan this is.
#pragma once

namespace caravan {

// "0.1.0"
const char* version();

}  // namespace caravan
