#include <unistd.h>

#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/isa.h"
#include "caravan/cli/commands.h"

namespace {

// Said in place of an exception: destructors on its way through the program may want memory too (nlohmann's do) and
// then end the process without a word.  Nothing on disk is half-written at any moment, so leaving harms nothing.
void end_without_memory() {
  constexpr char kSentence[] = "caravan: the system has no memory left; use a smaller model or batch, or free memory\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kSentence, sizeof(kSentence) - 1);
  _exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  std::set_new_handler(end_without_memory);
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    // Asked here, before any thread starts, so that all threads may use what is found.
    caravan::usable_isa();
    const int status = caravan::cli::run(arguments, {std::cout, std::cerr});
    std::cout.flush();
    if (!std::cout) {
      throw caravan::FileError("standard output cannot be written; is the disk full?");
    }
    return status;
  } catch (const caravan::Error& error) {
    std::cerr << "caravan: " << error.what() << "\n";
  } catch (const std::bad_alloc&) {  // thrown for libraries that ask the system themselves
    std::cerr << "caravan: the system has no memory left; use a smaller model or batch, or free memory\n";
  } catch (const std::exception& error) {
    std::cerr << "caravan: unexpected error: " << error.what() << "; please report it\n";
  }
  return 2;
}
