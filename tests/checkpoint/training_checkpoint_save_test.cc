#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <stdexcept>

#include "caravan/base/error.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "tests/checkpoint/checkpoint_fixtures.h"
#include "tests/support/scratch.h"

namespace caravan::checkpoint {
namespace {

using test::message_of;
using test::ScratchDirectory;
namespace fs = std::filesystem;
using Steps = std::vector<std::int64_t>;

std::vector<NamedTensor> tensors_of(int step) {
  return {{"a", counting_tensor({4, 6}, static_cast<float>(step))}, {"b", counting_tensor({5}, 10.0F)}};
}

float first_value(const fs::path& folder, std::int64_t step) {
  const Tensor target = counting_tensor({4, 6}, -1.0F);
  CheckpointReader::open(step_directory(folder, step)).read("a", target);
  return to_floats(target)[0];
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(CheckpointStore, SavesWhatTheReaderReads) {
  const ScratchDirectory scratch;
  const fs::path folder = scratch.path() / "new/checkpoints";
  CheckpointStore store({folder});
  store.prepare();
  EXPECT_EQ(store.newest(), -1);
  const Tensor wide = counting_tensor({4, 10});
  const Tensor scalar = counting_tensor({}, 3.0F);
  store.save(500, {{"view", wide.column_range(2, 5)}, {"scalar", scalar}, {"empty", counting_tensor({0, 3})}},
             {{"step", 500}});
  EXPECT_EQ(store.newest(), 500);
  EXPECT_EQ(names_in(folder / "step-500"),
            (std::vector<std::string>{"COMPLETE", "manifest.json", "rank-0.safetensors"}));
  const CheckpointReader reader = CheckpointReader::open(folder / "step-500");
  reader.verify();
  EXPECT_EQ(reader.state(), Json({{"step", 500}}));
  EXPECT_EQ(reader.manifest().tensors.size(), 3U);
  const Tensor view = counting_tensor({4, 3}, -9.0F);
  reader.read("view", view);
  EXPECT_EQ(to_floats(view), to_floats(wide.column_range(2, 5)));
  const Tensor one = counting_tensor({}, 0.0F);
  reader.read("scalar", one);
  EXPECT_EQ(to_floats(one), (std::vector<float>{3.0F}));
  reader.read("empty", counting_tensor({0, 3}));
}

TEST(CheckpointStore, TheCallerGoesOnWhileTheWriterIsBlocked) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path()});
  std::promise<void> reached;
  std::promise<void> release;
  store.on_write = [&](const char* point) {
    if (std::string(point) == "a") {
      reached.set_value();
      release.get_future().wait();
    }
  };
  std::vector<NamedTensor> tensors = tensors_of(1);
  store.save_async(1, tensors, {});
  reached.get_future().wait();
  // The caller's tensors may change now.
  const std::vector<float> zeros(24);
  copy_from_host(tensors[0].tensor, std::as_bytes(std::span(zeros)));
  EXPECT_TRUE(store.busy());
  EXPECT_EQ(store.newest(), -1);
  EXPECT_TRUE(complete_steps(scratch.path()).empty());
  release.set_value();
  store.wait();
  EXPECT_FALSE(store.busy());
  EXPECT_EQ(store.newest(), 1);
  EXPECT_EQ(first_value(scratch.path(), 1), 1.0F);
}

TEST(CheckpointStore, ASecondSaveWaitsForTheFirstAndThrowsItsFailure) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path()});
  store.save(1, tensors_of(1), {});
  store.on_write = [](const char* point) {
    if (std::string(point) == "b") {
      throw std::runtime_error("the writer failed");
    }
  };
  store.save_async(2, tensors_of(2), {});
  store.on_write = nullptr;
  EXPECT_EQ(message_of<std::runtime_error>([&] { store.save_async(3, tensors_of(3), {}); }), "the writer failed");
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-1"})) << "nothing of the failed save is left";
  store.wait();  // once only
  store.save(3, tensors_of(3), {});
  EXPECT_EQ(complete_steps(scratch.path()), (Steps{1, 3}));
}

// Whatever the writer was doing when it failed, the folder holds whole checkpoints only.
TEST(CheckpointStore, AFailureAtAnyPointLeavesTheFormerCheckpoint) {
  const ScratchDirectory scratch;
  for (const int step : {2, 1}) {  // a new step, and one that is there already
    for (const std::string at : {"begin", "a", "b", "before_rename", "after_rename"}) {
      fs::remove_all(scratch.path());
      CheckpointStore store({scratch.path()});
      store.save(1, tensors_of(1), {{"step", 1}});
      store.on_write = [&](const char* point) {
        if (at == point) {
          throw FileError("no");
        }
      };
      EXPECT_EQ(message_of<FileError>([&] { store.save(step, tensors_of(70), {{"step", 1}}); }), "no");
      std::vector<std::string> warnings;
      const auto reader = open_newest(scratch.path(), warnings);
      ASSERT_TRUE(reader && warnings.empty()) << at;
      EXPECT_EQ(reader->state()["step"], 1);
      const bool replaced = step == 1 && at == "after_rename";
      EXPECT_EQ(first_value(scratch.path(), 1), replaced ? 70.0F : 1.0F) << at;
      EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-1"})) << at;
    }
  }
}

TEST(CheckpointStore, KeepsTheNewestAndNothingElseGoes) {
  const ScratchDirectory scratch;
  fs::create_directories(scratch.path() / "step-2");  // unfinished: not counted, not touched
  fs::create_directories(scratch.path() / "step-notes");
  test::write_file(scratch.path() / "step-3", "a file");
  CheckpointStore store({scratch.path(), 2});
  for (const int step : {10, 20, 30, 40}) {
    store.save(step, tensors_of(step), {});
  }
  EXPECT_EQ(complete_steps(scratch.path()), (Steps{30, 40}));
  EXPECT_EQ(names_in(scratch.path()),
            (std::vector<std::string>{"step-2", "step-3", "step-30", "step-40", "step-notes"}));
}

TEST(CheckpointStore, RemovesNothingBeforeTheNewOneIsComplete) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path(), 1});
  store.save(1, tensors_of(1), {});
  std::vector<std::string> points;
  store.on_write = [&](const char* point) {
    points.emplace_back(point);
    EXPECT_TRUE(fs::exists(scratch.path() / "step-1/COMPLETE")) << point;
  };
  store.save(2, tensors_of(2), {});
  EXPECT_EQ(points, (std::vector<std::string>{"begin", "a", "b", "before_rename", "after_rename", "complete"}));
  EXPECT_EQ(complete_steps(scratch.path()), (Steps{2}));
}

TEST(CheckpointStore, ARunThatWentBackKeepsWhatItSaves) {
  const ScratchDirectory scratch;
  {
    CheckpointStore store({scratch.path(), 2});
    store.save(100, tensors_of(100), {});
    store.save(200, tensors_of(200), {});
  }
  CheckpointStore store({scratch.path(), 2});
  store.save(50, tensors_of(50), {});
  EXPECT_EQ(complete_steps(scratch.path()), (Steps{50, 200}));
  CheckpointStore one({scratch.path() / "one", 1});
  one.save(100, tensors_of(100), {});
  one.save(50, tensors_of(50), {});
  EXPECT_EQ(complete_steps(scratch.path() / "one"), (Steps{50}));
  EXPECT_EQ(one.newest(), 50);
}

TEST(CheckpointStore, ReplacesAStepThatIsThere) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path()});
  store.save(1, tensors_of(1), {});
  store.save(1, tensors_of(9), {});
  EXPECT_EQ(first_value(scratch.path(), 1), 9.0F);
  fs::create_directories(scratch.path() / "step-2");
  test::write_file(scratch.path() / "step-2/half", "half a checkpoint");
  store.save(2, tensors_of(2), {});
  EXPECT_EQ(first_value(scratch.path(), 2), 2.0F);
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-1", "step-2"}));
  test::write_file(scratch.path() / "step-3", "not a directory");
  EXPECT_NE(message_of<FileError>([&] { store.save(3, tensors_of(3), {}); }).find("is no directory"),
            std::string::npos);
  EXPECT_EQ(test::read_file(scratch.path() / "step-3"), "not a directory");
}

TEST(CheckpointStore, CleansUpAfterKilledRuns) {
  const ScratchDirectory scratch;
  {
    CheckpointStore store({scratch.path()});
    store.save(1, tensors_of(1), {});
    store.save(2, tensors_of(2), {});
  }
  fs::rename(scratch.path() / "step-2", scratch.path() / ".replaced-step-2");  // cut off between two renames
  fs::copy(scratch.path() / "step-1", scratch.path() / ".replaced-step-1", fs::copy_options::recursive);
  fs::create_directories(scratch.path() / ".saving-step-3/deep");
  fs::create_directories(scratch.path() / ".removing-step-4");
  fs::create_directories(scratch.path() / ".saving-step-x");
  CheckpointStore store({scratch.path()});
  store.prepare();
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{".saving-step-x", "step-1", "step-2"}));
  EXPECT_EQ(store.newest(), 2);
}

TEST(CheckpointStore, AsksForSpaceBeforeItWrites) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path()});
  std::byte never_read{};
  const Tensor huge(DType::kF32, {std::int64_t{1} << 40, 64}, Device{}, &never_read, nullptr);
  const std::string message = message_of<FileError>([&] { store.save(1, {{"huge", huge}}, {}); });
  EXPECT_NE(message.find("step-1: needs 281,474,976,"), std::string::npos) << message;
  EXPECT_NE(message.find("nothing was written"), std::string::npos) << message;
  EXPECT_TRUE(names_in(scratch.path()).empty());
}

TEST(CheckpointStore, RefusesAFolderThatAnotherRunUses) {
  const ScratchDirectory scratch;
  CheckpointStore first({scratch.path()});
  first.prepare();
  CheckpointStore second({scratch.path()});
  EXPECT_NE(message_of<FileError>([&] { second.prepare(); }).find("another run saves its checkpoints here"),
            std::string::npos);
  EXPECT_EQ(second.newest(), -1) << "looking is allowed";
}

TEST(CheckpointStore, SaysBeforehandThatAFolderCannotBeWritten) {
  const ScratchDirectory scratch;
  test::write_file(scratch.path() / "file", "");
  CheckpointStore store({scratch.path() / "file/checkpoints"});
  EXPECT_NE(message_of<FileError>([&] { store.prepare(); }).find("Not a directory"), std::string::npos);
  CheckpointStore proc({"/proc/self"});  // no file can be made there, not even by root
  EXPECT_NE(message_of<FileError>([&] { proc.prepare(); }), "");
}

TEST(CheckpointStore, RefusesWhatCouldNotBeReadBack) {
  const ScratchDirectory scratch;
  CheckpointStore store({scratch.path()});
  const Tensor one = counting_tensor({2});
  EXPECT_NE(message_of<FormatError>([&] {
              store.save(1, {{"a", one}, {"a", one}}, {});
            }).find("stands twice"),
            std::string::npos);
  EXPECT_NE(message_of<FormatError>([&] { store.save(1, {{"a", one}}, Json(3)); }), "");
  EXPECT_NE(message_of<InputError>([&] { store.save(-1, {{"a", one}}, {}); }), "");
  EXPECT_TRUE(names_in(scratch.path()).empty());
}

}  // namespace
}  // namespace caravan::checkpoint
