#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/isa.h"
#include "caravan/cli/commands.h"

int main(int argc, char** argv) {
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
  } catch (const std::bad_alloc&) {
    std::cerr << "caravan: the system has no memory left; use a smaller model or batch, or free memory\n";
  } catch (const std::exception& error) {
    std::cerr << "caravan: unexpected error: " << error.what() << "; please report it\n";
  }
  return 2;
}
