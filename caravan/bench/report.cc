#include "caravan/bench/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/text.h"
#include "caravan/train/trainer.h"

namespace caravan::bench {

namespace {

constexpr double kGiga = 1e9;
constexpr double kMilli = 1e-3;

// One row of the table of ops; empty texts where there is nothing to say.
std::string op_row(const std::string& name, const std::string& calls, const std::string& milliseconds,
                   const std::string& gflops, const std::string& peak, const std::string& gbs,
                   const std::string& read) {
  return fmt::format("{:<28}{:>7}{:>12}{:>10}{:>9}{:>9}{:>9}", name, calls, milliseconds, gflops, peak, gbs, read);
}

std::string percent(double share) {
  return fmt::format("{:.0f} %", 100.0 * share);
}

std::string milliseconds(double seconds) {
  return fmt::format("{:.3f}", seconds / kMilli);
}

// Work over time, 0 where there is no work.
double rate(double work, double seconds) {
  return work > 0.0 ? work / seconds : 0.0;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  return lines;
}

double tokens_per_second(const StepTime& step, double seconds) {
  return static_cast<double>(step.tokens) / seconds;
}

double peak_share(const StepTime& step, double seconds, const MachineSpeed& machine) {
  return step.flops / seconds / machine.product_peak;
}

Json memory_json(const MemoryUse& use) {
  Json json = Json::object();
  for (int i = 0; i < kSegmentCount; ++i) {
    std::string key = to_string(static_cast<Segment>(i));
    if (static_cast<Segment>(i) == Segment::kKvCache) {
      key = "kv_cache";
    }
    json[key] = use.segments[static_cast<std::size_t>(i)].peak_bytes;
  }
  json["high_water"] = use.high_water;
  return json;
}

Json case_json(const CaseTime& time, const MachineSpeed& machine) {
  Json json = Json::object();
  json["name"] = time.name;
  json["calls"] = time.calls;
  json["repeats"] = time.repeats;
  json["seconds"] = time.best;
  json["seconds_median"] = time.median;
  json["flops"] = time.flops;
  json["bytes"] = time.bytes;
  json["gflops"] = rate(time.flops, time.best) / kGiga;
  json["gbs"] = rate(time.bytes, time.best) / kGiga;
  json["peak_share"] = rate(time.flops, time.best) / machine.product_peak;
  json["read_share"] = rate(time.bytes, time.best) / machine.read_bandwidth;
  return json;
}

Json machine_json(const MachineSpeed& machine) {
  Json json = Json::object();
  json["processor"] = machine.processor;
  json["device"] = machine.device;
  json["backend"] = machine.backend;
  json["isa"] = machine.isa;
  json["threads"] = machine.threads;
  json["pinned"] = machine.pinned;
  json["dtype"] = to_string(machine.dtype);
  json["product_peak_gflops"] = machine.product_peak / kGiga;
  json["square_peak_gflops"] = machine.square_peak / kGiga;
  json["read_bandwidth_gbs"] = machine.read_bandwidth / kGiga;
  json["read_bytes"] = machine.read_bytes;
  json["products"] = Json::array();
  for (const CaseTime& one : machine.products) {
    json["products"].push_back(case_json(one, machine));
  }
  return json;
}

Json model_json(const Report& report) {
  const model::LlamaConfig& model = report.shape.model;
  Json json = Json::object();
  json["parameters"] = report.parameters;
  json["flops_per_token"] = train::flops_per_token(model, report.shape.seq_len);
  json["vocab_size"] = model.vocab_size;
  json["hidden_size"] = model.hidden_size;
  json["intermediate_size"] = model.intermediate_size;
  json["num_hidden_layers"] = model.num_hidden_layers;
  json["num_attention_heads"] = model.num_attention_heads;
  json["num_key_value_heads"] = model.num_key_value_heads;
  json["head_dim"] = model.head_dim;
  json["tie_word_embeddings"] = model.tie_word_embeddings;
  return json;
}

Json step_json(const StepTime& step, const MachineSpeed& machine) {
  Json json = Json::object();
  json["steps"] = step.steps;
  json["seconds"] = step.best;
  json["seconds_median"] = step.median;
  json["seconds_mean"] = step.mean;
  json["tokens_per_second"] = tokens_per_second(step, step.median);
  json["tokens_per_second_best"] = tokens_per_second(step, step.best);
  json["flops"] = step.flops;
  json["peak_share"] = peak_share(step, step.median, machine);
  json["peak_share_best"] = peak_share(step, step.best, machine);
  json["plans_made"] = step.plans_made;
  json["loss"] = step.loss;
  json["ops"] = Json::array();
  for (const OpTime& one : step.ops) {
    json["ops"].push_back(
        {{"op", one.op}, {"calls", one.calls}, {"prepare_seconds", one.prepare}, {"run_seconds", one.run}});
  }
  json["elsewhere_seconds"] = step.elsewhere;
  json["memory_planned"] = memory_json(step.planned.use);
  json["memory_used"] = memory_json(step.used);
  return json;
}

}  // namespace

std::vector<std::string> machine_lines(const Report& report) {
  const MachineSpeed& machine = report.machine;
  const StepShape& shape = report.shape;
  const auto line = [](const char* label, const std::string& text) { return fmt::format("{:<16}{}", label, text); };
  return {
      line("processor", fmt::format("{}, {}, {} {}threads", machine.processor, machine.isa, machine.threads,
                                    machine.pinned ? "pinned " : "")),
      line("model", fmt::format("{} parameters, {} layers of {}, vocabulary {}", grouped(report.parameters),
                                shape.model.num_hidden_layers, shape.model.hidden_size, shape.model.vocab_size)),
      line("step", fmt::format("{} micro-batch{} of {} rows of {} tokens, {} on {}", shape.micro_batches,
                               shape.micro_batches == 1 ? "" : "es", shape.rows, shape.seq_len,
                               to_string(machine.dtype), machine.backend)),
      line("product peak", fmt::format("{:.1f} GFLOP/s over the model's own products ({:.1f} of one square product)",
                                       machine.product_peak / kGiga, machine.square_peak / kGiga)),
      line("read bandwidth",
           fmt::format("{:.1f} GB/s over {} bytes", machine.read_bandwidth / kGiga, grouped(machine.read_bytes))),
  };
}

std::string op_heading() {
  return op_row("op", "calls", "ms a call", "GFLOP/s", "of peak", "GB/s", "of read");
}

std::string op_line(const CaseTime& time, const MachineSpeed& machine) {
  const double flops = rate(time.flops, time.best);
  const double bytes = rate(time.bytes, time.best);
  const bool products = time.flops > 0.0;
  return op_row(time.name, time.calls == 0 ? "-" : fmt::format("{}", time.calls), milliseconds(time.best),
                products ? fmt::format("{:.1f}", flops / kGiga) : "",
                products ? percent(flops / machine.product_peak) : "", fmt::format("{:.1f}", bytes / kGiga),
                percent(bytes / machine.read_bandwidth));
}

std::string op_sum_line(const std::vector<CaseTime>& times) {
  double seconds = 0.0;
  for (const CaseTime& one : times) {
    seconds += static_cast<double>(one.calls) * one.best;
  }
  return op_row("all calls of a step", "", milliseconds(seconds), "", "", "", "");
}

std::vector<std::string> step_lines(const StepTime& step, const MachineSpeed& machine) {
  std::vector<std::string> lines = {
      fmt::format("whole step: {:.1f} tokens/s, {:.1f} % of the product peak (median of {} steps, {} ms; best {:.1f} "
                  "tokens/s, {:.1f} %)",
                  tokens_per_second(step, step.median), 100.0 * peak_share(step, step.median, machine), step.steps,
                  milliseconds(step.median), tokens_per_second(step, step.best),
                  100.0 * peak_share(step, step.best, machine)),
      fmt::format("plans made after the first step: {}", step.plans_made),
      "",
      fmt::format("{:<28}{:>7}{:>14}{:>14}{:>9}", "op in the step", "calls", "ms run", "ms prepare", "of step"),
  };
  const auto row = [&](const std::string& name, const std::string& calls, const std::string& run,
                       const std::string& prepare, double seconds) {
    lines.push_back(fmt::format("{:<28}{:>7}{:>14}{:>14}{:>9}", name, calls, run, prepare,
                                fmt::format("{:.1f} %", 100.0 * seconds / step.mean)));
  };
  for (const OpTime& one : step.ops) {
    row(one.op, fmt::format("{}", one.calls), milliseconds(one.run), milliseconds(one.prepare), one.run + one.prepare);
  }
  row("elsewhere", "", milliseconds(step.elsewhere), "", step.elsewhere);
  lines.emplace_back();
  for (const std::string& line : lines_of(train::format_used(step.planned, step.used))) {
    lines.push_back(line);
  }
  return lines;
}

Json to_json(const Report& report) {
  Json json = Json::object();
  json["machine"] = machine_json(report.machine);
  json["model"] = model_json(report);
  json["batch"] = {{"micro_batches", report.shape.micro_batches},
                   {"rows", report.shape.rows},
                   {"seq_len", report.shape.seq_len},
                   {"tokens", report.shape.tokens() * report.shape.micro_batches}};
  if (!report.ops.empty()) {
    json["ops"] = Json::array();
    for (const CaseTime& one : report.ops) {
      json["ops"].push_back(case_json(one, report.machine));
    }
  }
  if (report.step) {
    json["step"] = step_json(*report.step, report.machine);
  }
  if (report.decode) {
    const DecodeTime& decode = *report.decode;
    json["decode"] = {{"prompt", decode.prompt},
                      {"prefill_seconds", decode.prefill},
                      {"tokens", decode.tokens},
                      {"seconds", decode.total},
                      {"tokens_per_second", decode.per_second()},
                      {"bytes_per_token", decode.bytes},
                      {"read_share", decode.bandwidth() / report.machine.read_bandwidth}};
  }
  return json;
}

std::string decode_line(const DecodeTime& decode, const MachineSpeed& machine) {
  return fmt::format(
      "decoding        {:.1f} tokens/s behind a prompt of {} ({:.4f} s), {:.1f} GB/s of weights and cache: {:.0f} % of "
      "the "
      "read bandwidth",
      decode.per_second(), decode.prompt, decode.prefill, decode.bandwidth() / kGiga,
      100.0 * decode.bandwidth() / machine.read_bandwidth);
}

}  // namespace caravan::bench
