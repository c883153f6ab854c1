// Writes every case of the reader's tests as one file: `make_gguf_corpus DIRECTORY`.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/checkpoint/gguf_cases.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_gguf_corpus DIRECTORY\n");
    return 2;
  }
  const std::filesystem::path directory = argv[1];
  const auto write = [&directory](const std::string& name, const std::string& file) {
    std::ofstream(directory / name, std::ios::binary).write(file.data(), static_cast<std::streamsize>(file.size()));
  };
  for (const auto& valid : caravan::checkpoint::valid_gguf()) {
    write(valid.name, valid.file);
  }
  for (const auto& hostile : caravan::checkpoint::hostile_gguf()) {
    write(hostile.name, hostile.file);
  }
  return 0;
}
