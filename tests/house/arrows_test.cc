#include "tests/house/arrows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/support/source_folder.h"

namespace caravan::house {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = test::source_folder();

std::string text_of(const Scan& scan) {
  std::string text;
  for (const std::string& one : scan.violations) {
    text += "\n  " + one;
  }
  return text;
}

// A small tree that keeps every rule, in a folder of its own; tests plant one fault each.
class PlantedFault : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "caravan_arrows_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    write("caravan/base/error.h", "#pragma once\n");
    write("caravan/base/CMakeLists.txt", "caravan_room(base SOURCES error.cc)\n");
    write("caravan/tensor/tensor.h", "#pragma once\n#include \"caravan/base/error.h\"\n");
    write("caravan/tensor/CMakeLists.txt", "caravan_room(tensor SOURCES tensor.cc ROOMS base)\n");
    write("caravan/ops/args.h", "#pragma once\n");
    write("caravan/ops/cpu/linear.cc",
          "#include <immintrin.h>\n#include <oneapi/dnnl/dnnl.hpp>\n#include \"caravan/ops/args.h\"\n"
          "auto* p = x.address();\n");
    write("caravan/nn/layers.cc", "#include \"caravan/tensor/tensor.h\"\n// x.address() in a comment\n");
    write("caravan/nn/CMakeLists.txt", "caravan_room(nn\n  SOURCES layers.cc\n  ROOMS tensor)\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  // The one violation of the tree, or all of them joined.
  std::string fault() const {
    const Scan scan = scan_tree(root_, read_arrows(kSource / "cmake/arrows.txt"));
    return scan.violations.size() == 1 ? scan.violations[0]
                                       : std::to_string(scan.violations.size()) + " violations:" + text_of(scan);
  }

  fs::path root_;
};

TEST(Arrows, HoldInThisTree) {
  const Scan scan = scan_tree(kSource, read_arrows(kSource / "cmake/arrows.txt"));
  EXPECT_TRUE(scan.violations.empty()) << text_of(scan);
  EXPECT_GT(scan.files, 40);
  EXPECT_GT(scan.includes, 50);
}

TEST(Arrows, AreTransitive) {
  const Arrows arrows = read_arrows(kSource / "cmake/arrows.txt");
  EXPECT_EQ(arrows.at("layout"), (std::set<std::string>{"base", "tensor"}));
  EXPECT_TRUE(arrows.at("model_io").contains("ops"));
  EXPECT_FALSE(arrows.at("checkpoint").contains("ops"));
  EXPECT_EQ(arrows.at("cli").size(), arrows.size() - 1) << "the program stands on every other room";
}

TEST_F(PlantedFault, NoneIsReportedInACleanTree) {
  EXPECT_EQ(fault(), "0 violations:");
}

TEST_F(PlantedFault, AnUpwardIncludeIsReported) {
  write("caravan/tensor/tensor.cc", "#include <vector>\n#include \"caravan/nn/layers.h\"\n");
  EXPECT_NE(fault().find("2 violations:"), std::string::npos) << "the include, and the missing link";
  EXPECT_NE(fault().find("caravan/tensor/tensor.cc:2: room \"tensor\" includes \"caravan/nn/layers.h\"; it may "
                         "include base"),
            std::string::npos)
      << fault();
}

TEST_F(PlantedFault, AnIncludeOfASisterRoomIsReported) {
  write("caravan/checkpoint/a.cc", "#include \"caravan/ops/linear.h\"\n");
  EXPECT_TRUE(fault().starts_with("caravan/checkpoint/a.cc:1: room \"checkpoint\" includes")) << fault();
}

TEST_F(PlantedFault, AnIncludeWithoutItsLinkIsReported) {
  write("caravan/nn/rope.cc", "#  include <caravan/base/error.h>\n");
  EXPECT_EQ(fault(), "caravan/nn/CMakeLists.txt:1: includes headers of room \"base\" but does not list it in ROOMS");
}

TEST_F(PlantedFault, ALinkAgainstTheTableIsReported) {
  write("caravan/base/CMakeLists.txt", "caravan_room(base SOURCES error.cc ROOMS tensor LIBRARIES fmt::fmt)\n");
  EXPECT_EQ(fault(), "caravan/base/CMakeLists.txt:1: links room \"tensor\"; it may link nothing");
}

TEST_F(PlantedFault, APartOfARoomIsHeldToItsRoomsLine) {
  write("caravan/ops/CMakeLists.txt", "caravan_room(ops SOURCES linear.cc ROOMS ops_cpu)\n");
  write("caravan/ops/cpu/CMakeLists.txt", "caravan_room(ops_cpu SOURCES linear.cc ROOMS tensor nn)\n");
  EXPECT_EQ(fault(), "caravan/ops/cpu/CMakeLists.txt:1: links room \"nn\"; it may link base, layout, quant, tensor");
  write("caravan/ops/cpu/CMakeLists.txt", "caravan_room(ops_cpu SOURCES linear.cc)\n");
  EXPECT_EQ(fault(), "0 violations:");
  write("caravan/ops/cpu/rope.cc", "#include \"caravan/tensor/tensor.h\"\n");
  EXPECT_EQ(fault(),
            "caravan/ops/cpu/CMakeLists.txt:1: includes headers of room \"tensor\" but does not list it in ROOMS");
}

TEST_F(PlantedFault, AVendorHeaderOutsideItsPlaceIsReported) {
  for (const char* header : {"immintrin.h", "emmintrin.h", "oneapi/dnnl/dnnl.hpp", "dnnl.hpp", "cuda_runtime.h",
                             "cublasLt.h", "nccl.h", "mpi.h"}) {
    write("caravan/nn/linear.cc", std::string("#include <") + header + ">\n");
    EXPECT_TRUE(fault().starts_with("caravan/nn/linear.cc:1: includes the vendor header <")) << header << fault();
  }
}

TEST_F(PlantedFault, FollowingAnAddressIsReported) {
  write("caravan/nn/linear.cc", "/* x.address()\n x->address() */ int a;\nauto* p = x->address();\n");
  EXPECT_TRUE(fault().starts_with("caravan/nn/linear.cc:3: follows Tensor::address()")) << fault();
  write("caravan/nn/linear.cc", "");
  write("caravan/ops/linear.cc", "auto* p = x.address();\n");
  EXPECT_TRUE(fault().starts_with("caravan/ops/linear.cc:1: follows Tensor::address()")) << fault();
}

TEST_F(PlantedFault, InternalsOfOpsOutsideOpsAreReported) {
  write("caravan/nn/CMakeLists.txt", "caravan_room(nn SOURCES layers.cc ROOMS tensor ops)\n");
  for (const char* header : {"args.h", "dispatch.h", "host_checks.h", "cpu/linear.h", "ref/loops.h"}) {
    write("caravan/nn/linear.cc", std::string("#include \"caravan/ops/") + header + "\"\n");
    EXPECT_NE(fault().find("which is for the room ops alone"), std::string::npos) << header << fault();
  }
}

TEST_F(PlantedFault, AFileOf601LinesIsReported) {
  std::string text;
  for (int i = 0; i < 600; ++i) {
    text += "int x;\n";
  }
  write("caravan/nn/linear.cc", text);
  EXPECT_EQ(fault(), "0 violations:");
  write("caravan/nn/linear.cc", text + "int x;\n");
  EXPECT_TRUE(fault().starts_with("caravan/nn/linear.cc:601: the file has 601 lines")) << fault();
}

TEST_F(PlantedFault, AHeaderWithoutPragmaOnceIsReported) {
  write("caravan/nn/linear.h", "// #pragma once\nint x();\n");
  EXPECT_EQ(fault(), "caravan/nn/linear.h:1: the header has no #pragma once");
}

TEST_F(PlantedFault, AnUnknownRoomIsReported) {
  write("caravan/attic/old.cc", "");
  EXPECT_EQ(fault(), "caravan/attic/old.cc:1: \"attic\" is not a room of cmake/arrows.txt");
}

TEST_F(PlantedFault, ATableThatNamesALaterRoomIsRefused) {
  write("arrows.txt", "base: tensor\ntensor:\n");
  EXPECT_THROW(read_arrows(root_ / "arrows.txt"), std::runtime_error);
}

}  // namespace
}  // namespace caravan::house
