#include "caravan/train/sampling.h"

#include <algorithm>

#include "caravan/generate/generate.h"

namespace caravan::train {

std::string sample_text(ops::Context& ctx, const model_io::LoadedModel& model, const tokenizer::Tokenizer& tokenizer,
                        const Config& config, const std::string& prompt, std::int64_t step) {
  generate::Request request;
  request.prompt = tokenizer.encode(prompt);
  if (request.prompt.empty() && tokenizer.bos()) {
    request.prompt.push_back(*tokenizer.bos());
  }
  const std::int64_t room =
      nn::max_sequence_length(model.config.model.rope) - static_cast<std::int64_t>(request.prompt.size());
  request.max_new_tokens = std::min(config.sampling.max_new_tokens, room);
  if (request.prompt.empty() || request.max_new_tokens < 1) {
    return "";
  }
  request.sampling.do_sample = config.sampling.temperature > 0.0;
  request.sampling.temperature = config.sampling.temperature > 0.0 ? config.sampling.temperature : 1.0;
  request.sampling.top_k = config.sampling.top_k;
  request.sampling.top_p = config.sampling.top_p;
  request.sampling.seed = static_cast<std::uint64_t>(config.debug.seed + step);
  for (const std::int64_t id : model.config.eos_token_ids) {
    request.eos.push_back(static_cast<std::int32_t>(id));
  }
  const std::vector<generate::Result> results = generate::generate(ctx, *model.llama, {request});
  // A model's vocabulary is often rounded up beyond its tokenizer's: those ids have no text.
  std::vector<std::int32_t> ids = results.front().ids;
  std::erase_if(ids, [&](std::int32_t id) { return id >= tokenizer.vocab_size(); });
  return tokenizer.decode(ids, /*skip_special=*/true);
}

}  // namespace caravan::train
