// Speed and perplexity of a model as `caravan generate` runs it.  decode_vs_llama_cpp runs it beside llama.cpp.
//
//   probe_decode MODEL [--dtype native|f32|bf16] [--threads N] [--prompt N] [--new N] [--repeats N]
//   probe_decode MODEL --perplexity IDS.json [--context N] [--steps] [--chunks N] ...
//
// The first form prints {"prompt": [...], "decode": [...]} in tokens per second: of a prompt of N ids with the logits of
// its last one, and of N ids one after the other from an empty cache, as llama-bench's pp and tg; once each beforehand.
// The second cuts the ids into contexts and prints the perplexity of each context's second half, as llama-perplexity
// does; --steps feeds that half one id at a time, as generation does.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "caravan/autograd/context.h"
#include "caravan/base/error.h"
#include "caravan/generate/decoder.h"
#include "caravan/layout/sequence_layout.h"
#include "caravan/model_io/dump.h"
#include "caravan/model_io/load.h"
#include "caravan/tensor/copy.h"

namespace {

using namespace caravan;
using Ids = std::vector<std::int32_t>;

struct Options {
  std::string model;
  std::string dtype = "native";
  int threads = 0;
  std::int64_t prompt = 512;
  std::int64_t fresh = 128;
  int repeats = 3;
  std::string perplexity;
  std::int64_t context = 512;
  std::int64_t chunks = 1 << 30;
  bool steps = false;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto next = [&] {
      if (++i == argc) {
        throw InputError(word + " needs a value");
      }
      return std::string(argv[i]);
    };
    if (word == "--dtype") {
      options.dtype = next();
    } else if (word == "--threads") {
      options.threads = std::stoi(next());
    } else if (word == "--prompt") {
      options.prompt = std::stoll(next());
    } else if (word == "--new") {
      options.fresh = std::stoll(next());
    } else if (word == "--repeats") {
      options.repeats = std::stoi(next());
    } else if (word == "--perplexity") {
      options.perplexity = next();
    } else if (word == "--context") {
      options.context = std::stoll(next());
    } else if (word == "--chunks") {
      options.chunks = std::stoll(next());
    } else if (word == "--steps") {
      options.steps = true;
    } else {
      options.model = word;
    }
  }
  return options;
}

// Any ids do for speed.
Ids some_ids(std::int64_t count, std::int64_t vocab) {
  Ids ids;
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    ids.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(state >> 8) % vocab));
  }
  return ids;
}

template <typename Body>
double seconds_of(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure_speed(ops::Context& ctx, const model::Llama& model, const Options& options) {
  std::vector<double> prompt;
  std::vector<double> decode;
  const Ids ids = some_ids(std::max(options.prompt, options.fresh), model.config().vocab_size);
  for (int round = 0; round <= options.repeats; ++round) {
    if (options.prompt > 0) {
      generate::Decoder decoder(ctx, model, {options.prompt});
      const double seconds = seconds_of([&] { decoder.extend({Ids(ids.begin(), ids.begin() + options.prompt)}); });
      prompt.push_back(static_cast<double>(options.prompt) / seconds);
    }
    if (options.fresh > 0) {
      generate::Decoder decoder(ctx, model, {options.fresh});
      const double seconds = seconds_of([&] {
        for (std::int64_t i = 0; i < options.fresh; ++i) {
          decoder.extend({{ids[static_cast<std::size_t>(i)]}});
        }
      });
      decode.push_back(static_cast<double>(options.fresh) / seconds);
    }
  }
  const auto measured = [](std::vector<double> all) {  // without the first
    return std::vector<double>(all.empty() ? all.begin() : all.begin() + 1, all.end());
  };
  fmt::print("{{\"prompt\": [{:.2f}], \"decode\": [{:.2f}]}}\n", fmt::join(measured(prompt), ", "),
             fmt::join(measured(decode), ", "));
}

double negative_log_likelihood(const std::vector<float>& logits, std::int32_t target) {
  double most = -INFINITY;
  for (const float one : logits) {
    most = std::max<double>(most, one);
  }
  double sum = 0.0;
  for (const float one : logits) {
    sum += std::exp(one - most);
  }
  return most + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(target)]);
}

// Of the ids behind `from`, each after all before it.
double context_loss(ops::Context& ctx, const model::Llama& model, const Ids& ids, std::int64_t from, bool steps) {
  const auto length = static_cast<std::int64_t>(ids.size());
  double sum = 0.0;
  if (steps) {
    generate::Decoder decoder(ctx, model, {length});
    std::vector<Tensor> logits = decoder.extend({Ids(ids.begin(), ids.begin() + from + 1)});
    for (std::int64_t i = from; i + 1 < length; ++i) {
      const std::int32_t target = ids[static_cast<std::size_t>(i + 1)];
      sum += negative_log_likelihood(to_floats(logits.front()), target);
      if (i + 2 < length) {
        logits = decoder.extend({{target}});
      }
    }
    return sum;
  }
  const SequenceLayout layout = pack(std::vector<std::int64_t>{length});
  autograd::Context pass(ctx, layout);
  const autograd::Value hidden = model.forward(pass, to_device(*ctx.allocator, ids));
  const Tensor logits = model.logits(pass, hidden.tensor.row_range(from, length - 1));
  for (std::int64_t i = from; i + 1 < length; ++i) {
    sum += negative_log_likelihood(to_floats(logits.row_range(i - from, i - from + 1)),
                                   ids[static_cast<std::size_t>(i + 1)]);
  }
  return sum;
}

void measure_perplexity(ops::Context& ctx, const model::Llama& model, const Options& options) {
  const Ids ids = model_io::read_id_lists(options.perplexity).front();
  const std::int64_t chunks = std::min(options.chunks, static_cast<std::int64_t>(ids.size()) / options.context);
  double sum = 0.0;
  std::int64_t count = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const auto begin = ids.begin() + chunk * options.context;
    sum += context_loss(ctx, model, Ids(begin, begin + options.context), options.context / 2, options.steps);
    count += options.context - 1 - options.context / 2;
  }
  fmt::print("{{\"perplexity\": {:.6f}, \"chunks\": {}, \"tokens\": {}}}\n", std::exp(sum / static_cast<double>(count)),
             chunks, count);
}

int run(const Options& options) {
  ops::Context ctx = ops::make_context({.threads = options.threads});
  model_io::LoadOptions loading;
  loading.matrices = options.dtype == "native" ? model_io::MatrixForm::kAsStored : model_io::MatrixForm::kNumbers;
  loading.check_finite = false;
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.model, options.dtype == "bf16" ? DType::kBF16 : DType::kF32, loading);
  if (options.perplexity.empty()) {
    measure_speed(ctx, *model.llama, options);
  } else {
    measure_perplexity(ctx, *model.llama, options);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "probe_decode: %s\n", error.what());
    return 1;
  }
}
