// Files to documents of ids, in parallel and in order.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "caravan/data/documents.h"
#include "caravan/data/encoder.h"

namespace caravan::data {

// Calls `sink` with the ids of every document in the order of files and lines.  `options.threads` documents are worked
// on at once, and only a few megabytes a thread are held (or one document, when it is longer).
// Throws as prepare() does; the first fault in the order of the documents counts.
void tokenise(const Recognised& dataset, const Encoder* encoder, const PrepareOptions& options,
              const std::function<void(std::span<const std::int32_t> ids)>& sink);

}  // namespace caravan::data
