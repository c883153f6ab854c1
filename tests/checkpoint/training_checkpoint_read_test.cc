#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "caravan/base/error.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "tests/checkpoint/checkpoint_fixtures.h"
#include "tests/support/scratch.h"

namespace caravan::checkpoint {
namespace {

using test::message_of;
using test::ScratchDirectory;
namespace fs = std::filesystem;

// [5, 6] over three files: the upper rows whole, the lower ones cut between columns.
std::vector<Piece> three_files() {
  return {piece("rank-0.safetensors", "upper", {0, 0}, {2, 6}), piece("rank-1.safetensors", "left", {2, 0}, {5, 4}),
          piece("rank-2.safetensors", "right", {2, 4}, {5, 6})};
}

std::string open_fault(const fs::path& directory) {
  return message_of<Error>([&] { CheckpointReader::open(directory).verify(); });
}

std::vector<float> counted(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i);
  }
  return values;
}

TEST(CheckpointReader, PutsAParameterTogetherFromThreeFiles) {
  const ScratchDirectory scratch;
  const HandMadeCheckpoint made(scratch.path() / "step-7", 5, 6, three_files());
  const CheckpointReader reader = CheckpointReader::open(scratch.path() / "step-7");
  reader.verify();
  const Tensor target = counting_tensor({5, 6}, 1000.0F);
  reader.read("weight", target);
  EXPECT_EQ(to_floats(target), counted(30));
}

TEST(CheckpointReader, FillsAViewWithARowStride) {
  const ScratchDirectory scratch;
  const HandMadeCheckpoint made(scratch.path() / "step-7", 5, 6, three_files());
  const Tensor wide = counting_tensor({5, 8}, 1000.0F);
  CheckpointReader::open(scratch.path() / "step-7").read("weight", wide.column_range(1, 7));
  EXPECT_EQ(to_floats(wide.column_range(1, 7)), counted(30));
  EXPECT_EQ(to_floats(wide.column_range(0, 1))[1], 1008.0F) << "columns outside the view stay";
}

TEST(CheckpointReader, PutsBoxesOfHigherRankTogether) {
  const ScratchDirectory scratch;
  const fs::path directory = scratch.path() / "step-1";
  fs::create_directories(directory);
  // [2, 3, 2, 2], cut along its second and third axis.
  const std::vector<std::array<std::int64_t, 4>> cuts = {{0, 1, 0, 2}, {1, 3, 0, 1}, {1, 3, 1, 2}};
  Manifest manifest;
  StoredTensor& tensor = manifest.tensors["experts"];
  tensor = {{2, 3, 2, 2}, DType::kF32, {}};
  std::vector<TensorPlan> plan;
  std::vector<std::byte> data;
  for (const auto& [from1, to1, from2, to2] : cuts) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < 24; ++i) {
      const std::int64_t axis1 = i / 4 % 3;
      const std::int64_t axis2 = i / 2 % 2;
      if (axis1 >= from1 && axis1 < to1 && axis2 >= from2 && axis2 < to2) {
        values.push_back(static_cast<float>(i));
      }
    }
    const auto bytes = std::as_bytes(std::span(values));
    Piece one = piece("f.safetensors", std::to_string(plan.size()), {0, from1, from2, 0}, {2, to1, to2, 2});
    one.hash = xxh3_hex(bytes);
    plan.push_back({one.tensor, DType::kF32, {2, to1 - from1, to2 - from2, 2}});
    data.insert(data.end(), bytes.begin(), bytes.end());
    tensor.pieces.push_back(one);
  }
  SafetensorsWriter writer(directory / "f.safetensors", plan);
  writer.append(data);
  writer.finish();
  const std::string text = format_manifest(manifest, Json::object());
  write_text_file(directory / "manifest.json", text);
  write_text_file(directory / "COMPLETE", xxh3_hex(text) + "\n");
  const Tensor target = counting_tensor({2, 3, 2, 2}, 1000.0F);
  CheckpointReader::open(directory).read("experts", target);
  EXPECT_EQ(to_floats(target), counted(24));
}

TEST(CheckpointReader, NamesWhatDoesNotFit) {
  const ScratchDirectory scratch;
  const fs::path directory = scratch.path() / "step-7";
  struct Fault {
    const char* expected;
    std::function<void(HandMadeCheckpoint&)> make;
  };
  const std::vector<Fault> faults = {
      {"overlap",
       [](auto& made) {
         made.manifest.tensors["weight"].pieces[1].end = {5, 5};
       }},
      {"uncovered", [](auto& made) { made.manifest.tensors["weight"].pieces.pop_back(); }},
      {"does not lie in the shape",
       [](auto& made) {
         made.manifest.tensors["weight"].shape = {4, 6};
       }},
      {"is F32 [3, 2], but the manifest says F32 [3, 4]",
       [](auto& made) {
         std::swap(made.manifest.tensors["weight"].pieces[1].file, made.manifest.tensors["weight"].pieces[2].file);
         std::swap(made.manifest.tensors["weight"].pieces[1].tensor, made.manifest.tensors["weight"].pieces[2].tensor);
       }},
      {"but the manifest says I32", [](auto& made) { made.manifest.tensors["weight"].dtype = DType::kI32; }},
      {"rank-1.safetensors: tensor \"left\" is damaged: its hash is ",
       [](auto& made) { made.manifest.tensors["weight"].pieces[1].hash = std::string(32, 'a'); }},
      {"lacks the tensor \"other\"", [](auto& made) { made.manifest.tensors["weight"].pieces[1].tensor = "other"; }},
      {"rank-2.safetensors: cannot be opened: No such file",
       [&](auto&) { fs::remove(directory / "rank-2.safetensors"); }},
      {"rank-3.safetensors: the manifest does not name this file",
       [&](auto&) { fs::copy_file(directory / "rank-2.safetensors", directory / "rank-3.safetensors"); }},
      {"holds the tensor \"spare\", which the manifest does not name",
       [&](auto&) {
         SafetensorsWriter writer(directory / "rank-2.safetensors",
                                  {{"right", DType::kF32, {3, 2}}, {"spare", DType::kU8, {1}}});
         writer.append(std::vector<std::byte>(25));
         writer.finish();
       }},
  };
  for (const Fault& fault : faults) {
    fs::remove_all(directory);
    HandMadeCheckpoint made(directory, 5, 6, three_files());
    ASSERT_EQ(open_fault(directory), "");
    fault.make(made);
    made.commit();
    const std::string message = open_fault(directory);
    EXPECT_NE(message.find(fault.expected), std::string::npos) << fault.expected << "\n" << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(CheckpointReader, RefusesAnotherModelsTensors) {
  const ScratchDirectory scratch;
  const HandMadeCheckpoint made(scratch.path() / "step-7", 5, 6, three_files());
  const CheckpointReader reader = CheckpointReader::open(scratch.path() / "step-7");
  EXPECT_NE(message_of<FormatError>([&] {
              reader.read("bias", counting_tensor({5, 6}));
            }).find("no tensor \"bias\""),
            std::string::npos);
  EXPECT_NE(message_of<FormatError>([&] {
              reader.read("weight", counting_tensor({6, 5}));
            }).find("is F32 [5, 6], but F32 [6, 5] is wanted"),
            std::string::npos);
  std::vector<std::int32_t> never_read(30);
  const Tensor integers(DType::kI32, {5, 6}, Device{}, reinterpret_cast<std::byte*>(never_read.data()), nullptr);
  EXPECT_NE(message_of<FormatError>([&] { reader.read("weight", integers); }).find("but I32 [5, 6] is wanted"),
            std::string::npos);
}

void save_steps(const fs::path& folder, int last) {
  CheckpointStore store({folder, 0});
  for (int step = 1; step <= last; ++step) {
    store.save(step, {{"a", counting_tensor({3, 5}, static_cast<float>(step))}, {"b", counting_tensor({7})}},
               {{"step", step}});
  }
}

TEST(OpenNewest, FindsNothingWhereNothingIs) {
  const ScratchDirectory scratch;
  std::vector<std::string> warnings;
  EXPECT_FALSE(open_newest(scratch.path(), warnings));
  EXPECT_FALSE(open_newest(scratch.path() / "missing", warnings));
  EXPECT_TRUE(warnings.empty());
  EXPECT_TRUE(complete_steps(scratch.path() / "missing").empty());
}

TEST(OpenNewest, PassesOverDamagedCheckpointsWithASentenceEach) {
  const std::vector<std::pair<const char*, std::function<void(const fs::path&)>>> damages = {
      {"truncated",
       [](const fs::path& at) {
         fs::resize_file(at / "rank-0.safetensors", fs::file_size(at / "rank-0.safetensors") - 1);
       }},
      {"no manifest", [](const fs::path& at) { fs::remove(at / "manifest.json"); }},
      {"no tensors", [](const fs::path& at) { fs::remove(at / "rank-0.safetensors"); }},
      {"COMPLETE of another",
       [](const fs::path& at) {
         fs::copy_file(at.parent_path() / "step-1/COMPLETE", at / "COMPLETE", fs::copy_options::overwrite_existing);
       }},
      {"empty COMPLETE", [](const fs::path& at) { fs::resize_file(at / "COMPLETE", 0); }},
      {"tensors of another",
       [](const fs::path& at) {
         fs::copy_file(at.parent_path() / "step-1/rank-0.safetensors", at / "rank-0.safetensors",
                       fs::copy_options::overwrite_existing);
       }},
  };
  for (const auto& [name, damage] : damages) {
    const ScratchDirectory scratch;
    save_steps(scratch.path(), 3);
    damage(scratch.path() / "step-3");
    std::vector<std::string> warnings;
    const auto reader = open_newest(scratch.path(), warnings);
    ASSERT_TRUE(reader) << name;
    EXPECT_EQ(reader->state()["step"], 2) << name;
    ASSERT_EQ(warnings.size(), 1U) << name;
    EXPECT_TRUE(warnings[0].starts_with("the checkpoint of step 3 is passed over: ")) << warnings[0];
    EXPECT_NE(warnings[0].find("step-3"), std::string::npos);
  }
}

TEST(OpenNewest, PassesOverUnfinishedSavesAndSaysSoWhereTheyHaveACheckpointsName) {
  const ScratchDirectory scratch;
  save_steps(scratch.path(), 3);
  fs::remove(scratch.path() / "step-3/COMPLETE");
  fs::rename(scratch.path() / "step-2", scratch.path() / ".saving-step-2");
  fs::copy(scratch.path() / "step-1", scratch.path() / "step-05", fs::copy_options::recursive);
  fs::copy(scratch.path() / "step-1", scratch.path() / "step-9x", fs::copy_options::recursive);
  std::vector<std::string> warnings;
  const auto reader = open_newest(scratch.path(), warnings);
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->state()["step"], 1);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_EQ(warnings[0], "the checkpoint of step 3 is passed over: " + (scratch.path() / "step-3").string() +
                             ": has no COMPLETE: a save that was cut off, and no checkpoint");
  EXPECT_EQ(complete_steps(scratch.path()), (std::vector<std::int64_t>{1}));
}

// A prime stride meets every part of every file; the bit goes round.
TEST(OpenNewest, NoticesAFlippedBitAnywhere) {
  const ScratchDirectory scratch;
  save_steps(scratch.path(), 2);
  int flipped = 0;
  for (const char* name : {"rank-0.safetensors", "manifest.json", "COMPLETE"}) {
    const fs::path path = scratch.path() / "step-2" / name;
    const std::string whole = test::read_file(path);
    for (std::size_t at = 0; at < whole.size(); at += 3) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at / 3 % 8)));
      test::write_file(path, damaged);
      std::vector<std::string> warnings;
      const auto reader = open_newest(scratch.path(), warnings);
      ASSERT_TRUE(reader) << name << " byte " << at;
      ASSERT_EQ(reader->state()["step"], 1) << name << " byte " << at;
      ASSERT_EQ(warnings.size(), 1U);
      ++flipped;
    }
    test::write_file(path, whole);
  }
  EXPECT_GT(flipped, 200);
  std::vector<std::string> warnings;
  EXPECT_EQ(open_newest(scratch.path(), warnings)->state()["step"], 2) << "undamaged again";
}

}  // namespace
}  // namespace caravan::checkpoint
