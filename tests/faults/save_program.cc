// save_program FOLDER GENERATION: opens the newest checkpoint and saves steps 1 to 4, as a training would; prints
// "saved N" once N is durable.
//
// A save that fails gives a sentence on stderr and the program goes on with the next; its exit status is then 1.
#include "tests/faults/save_program.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <nlohmann/json.hpp>

#include "caravan/base/json.h"

namespace {

// False when it failed.
bool save(caravan::checkpoint::CheckpointStore& store, std::int64_t step, std::int64_t generation) {
  try {
    store.save_async(step, caravan::test::tensors_of(step, generation), {{"step", step}, {"generation", generation}});
    store.wait();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "save_program: %s\n", error.what());
    return false;
  }
  std::printf("saved %lld\n", static_cast<long long>(step));
  std::fflush(stdout);
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: save_program FOLDER GENERATION\n");
    return 2;
  }
  try {
    caravan::checkpoint::CheckpointStore store({arguments[1], caravan::test::kKeepLatest});
    store.prepare();
    std::vector<std::string> warnings;
    caravan::checkpoint::open_newest(arguments[1], warnings);
    std::erase_if(warnings, caravan::test::tells_of_a_save_cut_off);
    for (const std::string& warning : warnings) {
      std::fprintf(stderr, "save_program: %s\n", warning.c_str());
    }
    bool good = warnings.empty();
    for (int step = 1; step <= caravan::test::kLastStep; ++step) {
      good = save(store, step, std::atoi(arguments[2])) && good;
    }
    return good ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "save_program: %s\n", error.what());
    return 1;
  }
}
