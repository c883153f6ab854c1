#include "tests/checkpoint/gguf_cases.h"

namespace caravan::checkpoint {
namespace {

constexpr std::uint32_t kU8 = 0;
constexpr std::uint32_t kU32 = 4;
constexpr std::uint32_t kBool = 7;
constexpr std::uint32_t kText = 8;
constexpr std::uint32_t kArray = 9;
constexpr std::uint32_t kF32 = 0;  // of tensors
constexpr std::uint32_t kQ40 = 2;  // of tensors: 32 elements in 18 bytes

using Bytes = GgufBytes;

// One F32 tensor "w" of four elements in a file without metadata.
std::string one_tensor(const std::vector<std::uint64_t>& extents, std::uint32_t type, std::uint64_t offset,
                       std::size_t data) {
  return Bytes::head(1, 0).tensor("w", extents, type, offset).data(data).str();
}

void add_head_cases(std::vector<HostileCase>& cases) {
  cases.push_back({"gguf_empty", "", {"ends at byte 0", "truncated"}});
  cases.push_back({"gguf_three_bytes", "GGU", {"magic", "truncated"}});
  cases.push_back({"gguf_magic", Bytes::head(0, 0, 3, "GGML").str(), {"\"GGML\"", "\"GGUF\""}});
  cases.push_back({"gguf_magic_small", Bytes::head(0, 0, 3, "gguf").str(), {"\"gguf\""}});
  for (const std::uint32_t version : {0U, 1U, 4U, 65535U}) {
    cases.push_back({"gguf_version_" + std::to_string(version),
                     Bytes::head(0, 0, version).str(),
                     {"version " + std::to_string(version), "2 and 3"}});
  }
  cases.push_back({"gguf_big_endian", Bytes::head(0, 0, 0x03000000U).str(), {"big-endian"}});
  cases.push_back({"gguf_no_counts", Bytes::head(0, 0).str().substr(0, 12), {"truncated"}});
  // CVE-2024-21802, -21825, -21836, -23496, -23605: counts and lengths of the header that sized the heap.
  for (const std::uint64_t count :
       {std::uint64_t{1}, std::uint64_t{1} << 16, std::uint64_t{1} << 31, std::uint64_t{1} << 60, ~std::uint64_t{0}}) {
    cases.push_back({"gguf_keys_" + std::to_string(count), Bytes::head(0, count).str(), {"byte 16", "keys"}});
    cases.push_back({"gguf_tensors_" + std::to_string(count), Bytes::head(count, 0).str(), {"byte 8", "tensors"}});
  }
}

void add_key_cases(std::vector<HostileCase>& cases) {
  for (const std::uint64_t length : {std::uint64_t{100}, std::uint64_t{1} << 31, std::uint64_t{1} << 60,
                                     (std::uint64_t{1} << 63) - 1, ~std::uint64_t{0}, ~std::uint64_t{7}}) {
    cases.push_back({"gguf_key_length_" + std::to_string(length),
                     Bytes::head(0, 1).text(length, "aaaa").u8(0).u8(0).u8(0).u8(0).str().substr(0, 38),
                     {"key 0", std::to_string(length)}});
    cases.push_back({"gguf_text_length_" + std::to_string(length),
                     Bytes::head(0, 1).key("k", kText).text(length, "aaaa").str(),
                     {"\"k\"", std::to_string(length), "truncated"}});
  }
  cases.push_back({"gguf_key_empty", Bytes::head(0, 1).key("", kU32).u32(1).u32(0).str(), {"key 0", "empty"}});
  cases.push_back({"gguf_key_control", Bytes::head(0, 1).key("a\nb", kU32).u32(1).str(), {"key 0", "control"}});
  cases.push_back({"gguf_key_twice",
                   Bytes::head(0, 2).key("general.a", kU32).u32(1).key("general.a", kU32).u32(1).str(),
                   {"\"general.a\"", "twice"}});
  for (const std::uint32_t type : {13U, 255U, 0xffffffffU}) {
    cases.push_back({"gguf_value_type_" + std::to_string(type),
                     Bytes::head(0, 1).key("k", type).u32(1).str(),
                     {"\"k\"", "type " + std::to_string(type), "0 to 12"}});
  }
  cases.push_back({"gguf_value_cut", Bytes::head(0, 1).key("k", 10).u32(1).str(), {"\"k\"", "truncated"}});
  // CVE-2024-32878: a value that nobody set.
  cases.push_back({"gguf_bool_2", Bytes::head(0, 1).key("k", kBool).u8(2).str(), {"\"k\"", "boolean", "0 or 1"}});
  cases.push_back({"gguf_bools_2",
                   Bytes::head(0, 1).key("k", kArray).u32(kBool).u64(2).u8(1).u8(255).str(),
                   {"\"k\"", "boolean", "255"}});
}

void add_array_cases(std::vector<HostileCase>& cases) {
  for (const std::uint32_t element : {kU8, kU32, kText, kArray, 12U}) {
    for (const std::uint64_t count : {std::uint64_t{3}, std::uint64_t{1} << 21, (std::uint64_t{1} << 21) + 1,
                                      std::uint64_t{1} << 61, ~std::uint64_t{0}}) {
      cases.push_back({"gguf_array_" + std::to_string(element) + "_of_" + std::to_string(count),
                       Bytes::head(0, 1).key("k", kArray).u32(element).u64(count).u8(1).u8(0).str(),
                       {"\"k\"", std::to_string(count)}});
    }
  }
  cases.push_back(
      {"gguf_array_element_type", Bytes::head(0, 1).key("k", kArray).u32(99).u64(1).u8(1).str(), {"\"k\"", "type 99"}});
  // CVE-2025-49847: a token's length taken for 32 bits.
  cases.push_back({"gguf_token_length",
                   Bytes::head(0, 1)
                       .key("tokenizer.ggml.tokens", kArray)
                       .u32(kText)
                       .u64(2)
                       .text("a")
                       .text((std::uint64_t{1} << 32) + 1, "b")
                       .str(),
                   {"tokenizer.ggml.tokens", "4294967297", "truncated"}});
  Bytes deep = Bytes::head(0, 1).key("k", kArray);
  for (int i = 0; i < 5; ++i) {
    deep.u32(kArray).u64(1);
  }
  cases.push_back({"gguf_array_deep", deep.u32(kU8).u64(1).u8(7).str(), {"\"k\"", "4 deep"}});
  Bytes very_deep = Bytes::head(0, 1).key("k", kArray);
  for (int i = 0; i < 5000; ++i) {
    very_deep.u32(kArray).u64(1);
  }
  cases.push_back({"gguf_array_very_deep", very_deep.str(), {"\"k\"", "4 deep"}});
}

void add_alignment_cases(std::vector<HostileCase>& cases) {
  for (const std::uint32_t alignment : {0U, 3U, 33U, 1U << 21, 0xffffffffU}) {
    cases.push_back({"gguf_alignment_" + std::to_string(alignment),
                     Bytes::head(0, 1).key("general.alignment", kU32).u32(alignment).str(),
                     {"general.alignment", std::to_string(alignment), "power of two"}});
  }
  // CVE-2024-41130: a key of another type than the program took it for.
  cases.push_back({"gguf_alignment_text",
                   Bytes::head(0, 1).key("general.alignment", kText).text("32").str(),
                   {"general.alignment", "u32", "text"}});
  cases.push_back({"gguf_alignment_array",
                   Bytes::head(0, 1).key("general.alignment", kArray).u32(kU32).u64(0).str(),
                   {"general.alignment", "u32", "array"}});
}

void add_tensor_cases(std::vector<HostileCase>& cases) {
  cases.push_back(
      {"gguf_tensor_name_empty", Bytes::head(1, 0).tensor("", {4}, kF32, 0).data(16).str(), {"tensor 0", "empty"}});
  cases.push_back({"gguf_tensor_twice",
                   Bytes::head(2, 0).tensor("w", {4}, kF32, 0).tensor("w", {4}, kF32, 32).data(48).str(),
                   {"\"w\"", "twice"}});
  cases.push_back({"gguf_five_dimensions", one_tensor({1, 1, 1, 1, 4}, kF32, 0, 16), {"\"w\"", "5 dimensions"}});
  cases.push_back({"gguf_dimensions_2_to_31",
                   Bytes::head(1, 0).text("w").u32(1U << 31).u64(4).u32(kF32).u64(0).str(),
                   {"\"w\"", "2147483648 dimensions"}});
  // ggml PR 1517 and llama.cpp PR 24263: a division by an extent of zero, from files of less than a hundred bytes.
  cases.push_back({"gguf_zero_extent", one_tensor({0}, kF32, 0, 0), {"\"w\"", "extent 0"}});
  cases.push_back({"gguf_zero_extent_between", one_tensor({32, 0, 4}, kQ40, 0, 0), {"\"w\"", "extent 0"}});
  // CVE-2025-52566: a comparison of signed numbers.
  cases.push_back({"gguf_negative_extent", one_tensor({~std::uint64_t{0}}, kF32, 0, 16), {"\"w\"", "extent"}});
  cases.push_back({"gguf_extent_2_to_63", one_tensor({std::uint64_t{1} << 63}, kF32, 0, 16), {"\"w\"", "extent"}});
  // CVE-2025-53630, CVE-2026-27940, CVE-2026-33298: products and sums that wrap.
  cases.push_back({"gguf_product_wraps",
                   one_tensor({std::uint64_t{1} << 32, std::uint64_t{1} << 32}, kF32, 0, 16),
                   {"\"w\"", "2^63"}});
  cases.push_back(
      {"gguf_product_wraps_to_four", one_tensor({(std::uint64_t{1} << 62) + 1, 4}, kF32, 0, 16), {"\"w\"", "2^63"}});
  cases.push_back({"gguf_bytes_wrap", one_tensor({std::uint64_t{1} << 62}, kF32, 0, 16), {"\"w\"", "2^63"}});
  cases.push_back({"gguf_blocks_wrap",
                   one_tensor({std::uint64_t{1} << 59, 1, 1, std::uint64_t{1} << 10}, kQ40, 0, 18),
                   {"\"w\"", "2^63"}});
  cases.push_back({"gguf_part_of_a_block", one_tensor({33}, kQ40, 0, 36), {"\"w\"", "33", "32", "Q4_0"}});
  for (const std::uint32_t type : {4U, 5U, 31U, 36U, 43U, 0x80000000U, 0xffffffffU}) {
    cases.push_back({"gguf_tensor_type_" + std::to_string(type),
                     one_tensor({32}, type, 0, 128),
                     {"\"w\"", "type " + std::to_string(type)}});
  }
}

void add_offset_cases(std::vector<HostileCase>& cases) {
  cases.push_back({"gguf_data_cut", one_tensor({4}, kF32, 0, 15), {"\"w\"", "16 bytes", "truncated"}});
  cases.push_back({"gguf_data_missing", one_tensor({4}, kF32, 0, 0), {"\"w\"", "truncated"}});
  cases.push_back({"gguf_offset_beyond", one_tensor({4}, kF32, 64, 16), {"\"w\"", "truncated"}});
  cases.push_back({"gguf_offset_odd", one_tensor({4}, kF32, 4, 64), {"\"w\"", "alignment 32"}});
  for (const std::uint64_t offset : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{31}}) {
    cases.push_back({"gguf_offset_" + std::to_string(offset),
                     one_tensor({4}, kF32, offset, 64),
                     {"\"w\"", std::to_string(offset), "truncated"}});
  }
  cases.push_back({"gguf_overlap",
                   Bytes::head(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {4}, kF32, 32).data(64).str(),
                   {"\"b\"", "inside", "\"a\""}});
  cases.push_back({"gguf_same_bytes_twice",
                   Bytes::head(2, 0).tensor("a", {4}, kF32, 0).tensor("b", {4}, kF32, 0).data(16).str(),
                   {"inside"}});
}

}  // namespace

std::vector<ValidCase> valid_gguf() {
  Bytes values = Bytes::head(0, 13);
  values.key("v.u8", 0).u8(255).key("v.i8", 1).u8(128).key("v.u16", 2).raw(std::uint16_t{65535});
  values.key("v.i16", 3).raw(std::int16_t{-1}).key("v.u32", 4).u32(0xffffffffU).key("v.i32", 5).raw(std::int32_t{-1});
  values.key("v.f32", 6).raw(1e-5F).key("v.bool", 7).u8(1).key("v.text", 8).text("");
  values.key("v.array", kArray).u32(kText).u64(2).text("").text("\xe2\x96\x81");
  values.key("v.u64", 10).u64(~std::uint64_t{0}).key("v.i64", 11).raw(std::int64_t{-1}).key("v.f64", 12).raw(0.1);
  Bytes nested = Bytes::head(0, 1).key("v.nested", kArray).u32(kArray).u64(2);
  nested.u32(kU8).u64(3).u8(1).u8(2).u8(3).u32(kText).u64(1).text("inner");
  return {
      {"valid_gguf_nothing", Bytes::head(0, 0).str(), 0},
      {"valid_gguf_version_2", Bytes::head(0, 1, 2).key("k", kU32).u32(7).str(), 0},
      {"valid_gguf_values", values.str(), 0},
      {"valid_gguf_nested", nested.str(), 0},
      {"valid_gguf_empty_array", Bytes::head(0, 1).key("k", kArray).u32(kU32).u64(0).str(), 0},
      {"valid_gguf_one", one_tensor({4}, kF32, 0, 16), 1},
      {"valid_gguf_scalar", one_tensor({}, kF32, 0, 4), 1},
      {"valid_gguf_rank_four", one_tensor({2, 3, 1, 2}, kF32, 0, 48), 1},
      {"valid_gguf_blocks", one_tensor({64, 3}, kQ40, 0, 108), 1},
      {"valid_gguf_unreadable_type", one_tensor({32}, 20, 0, 18), 1},
      {"valid_gguf_bytes_behind", one_tensor({4}, kF32, 0, 1000), 1},
      {"valid_gguf_two_with_a_gap",
       Bytes::head(2, 0).tensor("b", {4}, kF32, 128).tensor("a", {4}, kF32, 0).data(144).str(), 2},
      {"valid_gguf_alignment_8",
       Bytes::head(2, 1)
           .key("general.alignment", kU32)
           .u32(8)
           .tensor("a", {1}, kF32, 0)
           .tensor("b", {1}, kF32, 8)
           .data(12, 8)
           .str(),
       2},
      {"valid_gguf_alignment_1024",
       Bytes::head(1, 1).key("general.alignment", kU32).u32(1024).tensor("a", {1}, kF32, 1024).data(1028, 1024).str(),
       1},
  };
}

std::vector<HostileCase> hostile_gguf() {
  std::vector<HostileCase> cases;
  add_head_cases(cases);
  add_key_cases(cases);
  add_array_cases(cases);
  add_alignment_cases(cases);
  add_tensor_cases(cases);
  add_offset_cases(cases);
  return cases;
}

}  // namespace caravan::checkpoint
