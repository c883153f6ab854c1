// Known architectures by name.
#pragma once

#include <string>
#include <vector>

#include "caravan/model/llama.h"

namespace caravan::model {

struct Preset {
  const char* name;         // "llama2-7b"
  const char* description;  // one line
  LlamaConfig config;
};

// llama-7b, -13b, -33b, -65b; llama2-7b, -13b, -70b; llama3-8b, -70b, -405b (the 3.1 releases' scaled rotary embedding
// and length); llama3.2-1b, -3b; torchtitan-debug (torchtitan's llama3 debugmodel); tiny (for tests).
std::vector<Preset> presets();

// The preset of that name.  Throws InputError naming the nearest one.
LlamaConfig preset(const std::string& name);

}  // namespace caravan::model
