// XXH3-128 over texts, one after the other.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace caravan::tokenizer {

class Fingerprint {
 public:
  Fingerprint();
  void add(std::string_view text);
  std::string digest() const;  // 32 hexadecimal digits

 private:
  std::shared_ptr<void> state_;
};

}  // namespace caravan::tokenizer
