// Tensors and hand-made checkpoints for the tests of training checkpoints.
#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/manifest.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/checkpoint/xxh3.h"
#include "caravan/tensor/copy.h"

namespace caravan::checkpoint {

// A tensor on the host that owns its elements: `first`, `first` + 1, ...
inline Tensor counting_tensor(const Shape& shape, float first = 0.0F) {
  auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < values->size(); ++i) {
    (*values)[i] = first + static_cast<float>(i);
  }
  auto* data = reinterpret_cast<std::byte*>(values->data());
  return Tensor(DType::kF32, shape, Device{}, data, std::move(values));
}

inline Piece piece(std::string file, std::string tensor, std::vector<std::int64_t> begin,
                   std::vector<std::int64_t> end) {
  return {std::move(file), std::move(tensor), std::move(begin), std::move(end), std::string(32, '0')};
}

// A rank-2 f32 parameter counting from 0 in row-major order, written as a checkpoint whose pieces are these.
class HandMadeCheckpoint {
 public:
  HandMadeCheckpoint(std::filesystem::path directory, std::int64_t rows, std::int64_t columns,
                     std::vector<Piece> pieces)
      : directory_(std::move(directory)) {
    std::filesystem::create_directories(directory_);
    std::map<std::string, std::vector<TensorPlan>> plans;
    std::map<std::string, std::vector<std::byte>> data;
    for (Piece& one : pieces) {
      std::vector<float> values;
      for (std::int64_t row = one.begin[0]; row < one.end[0]; ++row) {
        for (std::int64_t column = one.begin[1]; column < one.end[1]; ++column) {
          values.push_back(static_cast<float>(row * columns + column));
        }
      }
      const auto bytes = std::as_bytes(std::span(values));
      one.hash = xxh3_hex(bytes);
      plans[one.file].push_back({one.tensor, DType::kF32, {one.end[0] - one.begin[0], one.end[1] - one.begin[1]}});
      data[one.file].insert(data[one.file].end(), bytes.begin(), bytes.end());
    }
    for (const auto& [file, plan] : plans) {
      SafetensorsWriter writer(directory_ / file, plan);
      writer.append(data[file]);
      writer.finish();
    }
    manifest.tensors["weight"] = {{rows, columns}, DType::kF32, std::move(pieces)};
    commit();
  }

  // Writes the manifest as it is now and the COMPLETE that fits it.
  void commit(const Json& state = Json::object()) const {
    const std::string text = format_manifest(manifest, state);
    write_text_file(directory_ / "manifest.json", text);
    write_text_file(directory_ / "COMPLETE", xxh3_hex(text) + "\n");
  }

  Manifest manifest;

 private:
  std::filesystem::path directory_;
};

}  // namespace caravan::checkpoint
