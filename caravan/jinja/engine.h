// What every step of a rendering has at hand: the limits, the line for messages, memory that is counted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "caravan/jinja/template.h"

namespace caravan::jinja {

class Engine {
 public:
  Engine(std::string source, const Limits& limits) : source_(std::move(source)), limits_(limits) {}
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Counts work.  Throws FormatError when there has been too much.
  void step(std::int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) {
      out_of_steps();
    }
  }
  // Counts the reading or making of so much text or so many elements.
  void step_bytes(std::size_t bytes) { step(static_cast<std::int64_t>(bytes / 64) + 1); }

  // Counts memory before it is had.  Throws FormatError when that would be too much.
  void take(std::size_t bytes) {
    if (static_cast<std::int64_t>(bytes) > limits_.max_bytes - live_) {
      out_of_memory();
    }
    live_ += static_cast<std::int64_t>(bytes);
  }
  void give(std::size_t bytes) noexcept { live_ -= static_cast<std::int64_t>(bytes); }

  // One level deeper for as long as the object lives.  Throws FormatError when that is too deep.
  class Level {
   public:
    explicit Level(Engine& engine) : engine_(engine) {
      if (++engine_.depth_ > engine_.limits_.max_depth) {
        --engine_.depth_;
        engine_.too_deep();
      }
    }
    ~Level() { --engine_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Engine& engine_;
  };

  // "SOURCE, line N: WHAT" as the exceptions of base/error.h.
  [[noreturn]] void fail(const std::string& what) const;         // InputError: Python would raise here
  [[noreturn]] void unsupported(const std::string& what) const;  // UnsupportedError
  [[noreturn]] void too_deep() const;                            // FormatError

  int line = 0;  // of the node that is evaluated

 private:
  [[noreturn]] void out_of_steps() const;
  [[noreturn]] void out_of_memory() const;

  std::string source_;
  Limits limits_;
  std::int64_t steps_ = 0;
  std::int64_t live_ = 0;
  int depth_ = 0;
};

// Memory that is counted as long as the object lives.
class Charge {
 public:
  Charge() = default;
  Charge(Engine& engine, std::size_t bytes) : engine_(&engine), bytes_(bytes) { engine.take(bytes); }
  ~Charge() {
    if (engine_ != nullptr) {
      engine_->give(bytes_);
    }
  }
  Charge(Charge&& other) noexcept
      : engine_(std::exchange(other.engine_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

 private:
  Engine* engine_ = nullptr;
  std::size_t bytes_ = 0;
};

// Text that grows under the limits.
class Builder {
 public:
  explicit Builder(Engine& engine) : engine_(engine) {}
  ~Builder() { engine_.give(capacity_); }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  void append(std::string_view text) {
    engine_.step_bytes(text.size());
    reserve(text.size());
    text_.append(text);
  }
  void append(std::size_t count, char c) {
    engine_.step_bytes(count);
    reserve(count);
    text_.append(count, c);
  }
  std::size_t size() const { return text_.size(); }
  // The text so far; the builder begins anew.  From here on the memory is not counted.
  std::string take() {
    engine_.give(std::exchange(capacity_, 0));
    return std::exchange(text_, {});
  }

 private:
  void reserve(std::size_t more);

  Engine& engine_;
  std::string text_;
  std::size_t capacity_ = 0;  // as it is counted
};

}  // namespace caravan::jinja
