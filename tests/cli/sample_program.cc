#include "tests/cli/sample_program.h"

#include "caravan/cli/completion.h"

namespace caravan::cli {

Program sample_program() {
  const OptionSpec threads = {.name = "--threads",
                              .value_name = "N",
                              .kind = OptionKind::kInteger,
                              .help = "how many threads compute",
                              .default_note = "the cores this process may use",
                              .minimum = 1,
                              .maximum = 1024};
  const CommandSpec dump = {
      .name = "dump",
      .summary = "write logits, hidden states: what a model computes",
      .description =
          "Computes what the model's forward pass gives for a packed batch of id lists, and writes it to a "
          "safetensors file that `caravan compare` reads.",
      .options =
          {{.name = "--model",
            .value_name = "DIR",
            .kind = OptionKind::kDirectory,
            .help = "a model's folder",
            .required = true},
           {.name = "--ids", .value_name = "FILE", .kind = OptionKind::kFile, .help = "id lists, as JSON [[1, 2]]"},
           {.name = "--what",
            .value_name = "LIST",
            .kind = OptionKind::kChoiceList,
            .help = "what to write",
            .default_value = "logits,loss",
            .choices = {"logits", "hidden", "loss"}},
           {.name = "--dtype",
            .value_name = "TYPE",
            .kind = OptionKind::kChoice,
            .help = "type to compute in",
            .default_value = "f32",
            .choices = {"f32", "bf16", "f64"}},
           {.name = "--note",
            .value_name = "TEXT",
            .kind = OptionKind::kText,
            .help = "the user's own 'words'",
            .repeatable = true}},
      .examples = {"caravan dump --model tiny --ids ids.json"}};
  const CommandSpec compare = {
      .name = "compare",
      .summary = "lay two dumps side by side",
      .description = "Compares two files.",
      .options = {
          {.name = "A",
           .value_name = "",
           .kind = OptionKind::kFile,
           .help = "a dump",
           .required = true,
           .positional = true},
          {.name = "B", .value_name = "", .kind = OptionKind::kFile, .help = "another dump", .positional = true},
          {.name = "--tolerance",
           .value_name = "X",
           .kind = OptionKind::kNumber,
           .help = "relative tolerance",
           .default_value = "1e-4"},
          {.name = "--json", .value_name = "", .kind = OptionKind::kFlag, .help = "print JSON"}}};
  const CommandSpec learn = {.name = "words learn",
                             .summary = "learn words",
                             .description = "Learns words.",
                             .options = {{.name = "TEXTS",
                                          .value_name = "",
                                          .kind = OptionKind::kFile,
                                          .help = "texts",
                                          .required = true,
                                          .positional = true,
                                          .variadic = true},
                                         {.name = "--pattern",
                                          .value_name = "NAME",
                                          .kind = OptionKind::kChoice,
                                          .help = "how to cut",
                                          .default_value = "llama3",
                                          .choices = {"llama3", "gpt2"}}}};
  return {.name = "caravan",
          .version = "1.2.3",
          .summary = "Llama models in native C++.",
          .commands = {dump, compare, learn, completion_command()},
          .common_options = {threads}};
}

}  // namespace caravan::cli
