// Loads a Hugging Face Llama and prints the id of the most likely next token after the ids on the command line:
//   next_token MODEL_FOLDER ID...
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <exception>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "caravan/autograd/context.h"
#include "caravan/base/error.h"
#include "caravan/layout/sequence_layout.h"
#include "caravan/model_io/dump.h"
#include "caravan/model_io/load.h"
#include "caravan/ops/context.h"
#include "caravan/tensor/copy.h"

namespace {

std::int32_t parse_id(const std::string& text) {
  std::int32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw caravan::InputError("\"" + text + "\" is not a token id; give ids as whole numbers");
  }
  return id;
}

std::int64_t next_token(const std::string& folder, const std::vector<std::int32_t>& ids) {
  caravan::ops::Context ops = caravan::ops::make_context();
  const caravan::model_io::LoadedModel model = caravan::model_io::load_model(ops, folder, caravan::DType::kF32);
  for (const std::string& warning : model.warnings) {
    std::cerr << "warning: " << warning << "\n";
  }
  caravan::model_io::check_ids({ids}, model.config.model);

  // One sequence, packed alone.
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const caravan::SequenceLayout layout = caravan::pack(std::vector<std::int64_t>{tokens});
  caravan::autograd::Context ctx(ops, layout);
  const caravan::Tensor input = ops.allocate(caravan::DType::kI32, {tokens});
  caravan::copy_from_host(input, std::as_bytes(std::span(ids)));

  const caravan::Tensor hidden = model.llama->forward(ctx, input).tensor;                         // [tokens, hidden]
  const caravan::Tensor logits = model.llama->logits(ctx, hidden.row_range(tokens - 1, tokens));  // [1, vocab]
  const std::vector<float> row = caravan::to_floats(logits);
  return std::max_element(row.begin(), row.end()) - row.begin();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: next_token MODEL_FOLDER ID...\n";
    return 2;
  }
  try {
    std::vector<std::int32_t> ids;
    for (int i = 2; i < argc; ++i) {
      ids.push_back(parse_id(argv[i]));
    }
    std::cout << next_token(argv[1], ids) << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "next_token: " << error.what() << "\n";
    return 1;
  }
}
