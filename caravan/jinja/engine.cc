#include "caravan/jinja/engine.h"

#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::jinja {

void Engine::fail(const std::string& what) const {
  throw InputError(fmt::format("{}, line {}: {}", source_, line, what));
}

void Engine::unsupported(const std::string& what) const {
  throw UnsupportedError(
      fmt::format("{}, line {}: {} is outside the part of Jinja that Caravan renders", source_, line, what));
}

void Engine::too_deep() const {
  throw FormatError(fmt::format("{}, line {}: the template goes deeper than {} levels; it is broken or hostile",
                                source_, line, limits_.max_depth));
}

void Engine::out_of_steps() const {
  throw FormatError(fmt::format("{}, line {}: the template does not end within {} steps; it is broken or hostile",
                                source_, line, grouped(limits_.max_steps)));
}

void Engine::out_of_memory() const {
  throw FormatError(fmt::format("{}, line {}: the template makes more than {} bytes of text; it is broken or hostile",
                                source_, line, grouped(limits_.max_bytes)));
}

void Builder::reserve(std::size_t more) {
  const std::size_t needed = text_.size() + more;
  if (needed <= capacity_) {
    return;
  }
  // Old and new memory are there together for a moment.
  const std::size_t capacity = std::max(needed, std::max<std::size_t>(64, capacity_ + capacity_ / 2));
  engine_.take(capacity);
  text_.reserve(capacity);
  engine_.give(std::exchange(capacity_, capacity));
}

}  // namespace caravan::jinja
