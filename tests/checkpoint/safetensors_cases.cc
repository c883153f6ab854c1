#include "tests/checkpoint/safetensors_cases.h"

#include <utility>

namespace caravan::checkpoint {
namespace {

// One tensor called "w" and its fields as JSON.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

HostileCase lie(const std::string& name, const std::string& header, std::size_t data_bytes,
                const std::vector<std::string>& words) {
  return {name, safetensors_file(header, std::string(data_bytes, 'd')), words};
}

// Two U8 tensors "a" and "b" with these offsets.
std::string two(const std::string& a, const std::string& a_offsets, const std::string& b,
                const std::string& b_offsets) {
  return R"({"a":{"dtype":"U8","shape":)" + a + R"(,"data_offsets":)" + a_offsets + R"(},"b":{"dtype":"U8","shape":)" +
         b + R"(,"data_offsets":)" + b_offsets + "}}";
}

void add_length_cases(std::vector<HostileCase>& cases) {
  const std::string good = one(R"("U8")", "[4]", "[0,4]");
  cases.push_back({"empty_file", "", {"0 bytes", "truncated"}});
  cases.push_back({"seven_bytes", std::string(7, '\0'), {"7 bytes", "truncated"}});
  cases.push_back({"header_length_zero", safetensors_file(0, "", "dddd"), {"byte 8", "'{'", "empty"}});
  cases.push_back(
      {"header_longer_than_file", safetensors_file(good.size() + 5, good, "dddd"), {"follow", "truncated"}});
  cases.push_back({"header_over_100_mb", safetensors_file(100'000'001, good, "dddd"), {"100000001", "100,000,000"}});
  for (const int bit : {31, 32, 62, 63}) {
    cases.push_back({"header_length_2_to_" + std::to_string(bit),
                     safetensors_file(std::uint64_t{1} << bit, good, "dddd"),
                     {std::to_string(std::uint64_t{1} << bit), "100,000,000"}});
  }
  cases.push_back(
      {"header_length_all_ones", safetensors_file(~std::uint64_t{0}, good, "dddd"), {"18446744073709551615"}});
  cases.push_back({"header_length_wraps_to_zero", safetensors_file(~std::uint64_t{7}, good, "dddd"), {"100,000,000"}});
  cases.push_back({"header_cut", safetensors_file(good.size() - 1, good, ""), {"header"}});
  cases.push_back({"git_lfs_pointer",
                   "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
                   {"Git LFS pointer", "git lfs pull"}});
}

void add_json_cases(std::vector<HostileCase>& cases) {
  const std::string good = one(R"("U8")", "[4]", "[0,4]");
  cases.push_back(lie("header_is_an_array", "[]", 0, {"byte 8", "'{'", "["}));
  cases.push_back(lie("header_begins_with_a_space", " " + good, 4, {"byte 8", "'{'"}));
  cases.push_back(lie("header_begins_with_a_mark", "\xef\xbb\xbf" + good, 4, {"byte 8", "'{'"}));
  cases.push_back(lie("header_not_closed", R"({"w":{)", 0, {"header", "byte"}));
  cases.push_back(lie("header_with_a_tail", good + "x", 4, {"header", "byte"}));
  cases.push_back(lie("header_twice", good + good, 4, {"header", "byte"}));
  cases.push_back(lie("header_with_a_zero_byte", good + std::string(1, '\0') + "hidden", 4, {"header", "byte"}));
  cases.push_back(lie("header_padded_with_zero_bytes", good + std::string(3, '\0'), 4, {"header", "byte"}));
  cases.push_back(lie("header_with_a_comment", "{/*c*/}", 0, {"header", "byte"}));
  cases.push_back(lie("header_not_utf8", "{\"\xff\":{}}", 0, {"header", "byte"}));
  cases.push_back(lie("header_with_half_a_surrogate", R"({"\ud800":{}})", 0, {"header", "byte"}));
  cases.push_back(lie("name_twice",
                      R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                      R"("w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                      4, {"header", "\"w\"", "twice"}));
  cases.push_back(lie("name_twice_once_escaped",
                      R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                      R"("\u0077":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                      8, {"header", "\"w\"", "twice"}));
  cases.push_back(lie("field_twice", R"({"w":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4,
                      {"header", "dtype", "twice"}));
  cases.push_back(lie("metadata_twice", R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__", "twice"}));
  cases.push_back(lie("deep_arrays", R"({"w":)" + std::string(20'000, '['), 0, {"header", "deep"}));
  cases.push_back(lie("number_beyond_double", one(R"("U8")", "[1e999]", "[0,4]"), 4, {"header"}));
}

void add_metadata_and_name_cases(std::vector<HostileCase>& cases) {
  cases.push_back(lie("metadata_is_a_list", R"({"__metadata__":["pt"]})", 0, {"__metadata__", "array"}));
  cases.push_back(lie("metadata_is_a_string", R"({"__metadata__":"pt"})", 0, {"__metadata__", "\"pt\""}));
  cases.push_back(lie("metadata_holds_a_number", R"({"__metadata__":{"step":7}})", 0, {"__metadata__", "step", "7"}));
  cases.push_back(lie("metadata_holds_an_object", R"({"__metadata__":{"o":{"x":"y"}}})", 0, {"__metadata__", "\"o\""}));
  cases.push_back(lie("metadata_holds_null", R"({"__metadata__":{"o":null}})", 0, {"__metadata__", "null"}));
  cases.push_back(lie("name_too_long",
                      "{\"" + std::string(4097, 'n') + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
                      {"tensor \"nnn", "4097", "4096"}));
  for (const char* escape : {R"(\u0000)", R"(\n)", R"(\u001b)", R"(\u007f)", R"(\u009b)"}) {
    const std::string digits = escape[1] == 'n' ? "000a" : std::string(escape + 2);
    cases.push_back(lie("name_with_control_" + digits,
                        std::string("{\"w") + escape + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
                        {"tensor \"w", "control character", "byte 1"}));
  }
}

void add_field_cases(std::vector<HostileCase>& cases) {
  cases.push_back(lie("entry_is_a_number", R"({"w":3})", 0, {"tensor \"w\"", "object", "3"}));
  cases.push_back(lie("entry_is_a_list", R"({"w":[1,2]})", 0, {"tensor \"w\"", "object", "array of 2"}));
  cases.push_back(lie("entry_is_null", R"({"w":null})", 0, {"tensor \"w\"", "null"}));
  cases.push_back(lie("entry_is_empty", R"({"w":{}})", 0, {"tensor \"w\"", "no dtype"}));
  cases.push_back(lie("no_shape", R"({"w":{"dtype":"U8","data_offsets":[0,4]}})", 4, {"tensor \"w\"", "no shape"}));
  cases.push_back(lie("no_offsets", R"({"w":{"dtype":"U8","shape":[4]}})", 4, {"tensor \"w\"", "no data_offsets"}));
  cases.push_back(lie("unknown_field", R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":{"y":1}}})", 4,
                      {"tensor \"w\"", "\"x\""}));
  cases.push_back(lie("dtype_unknown", one(R"("F33")", "[1]", "[0,4]"), 4, {"tensor \"w\"", "\"F33\""}));
  cases.push_back(lie("dtype_in_small_letters", one(R"("f32")", "[1]", "[0,4]"), 4, {"tensor \"w\"", "\"f32\""}));
  cases.push_back(lie("dtype_empty", one(R"("")", "[1]", "[0,4]"), 4, {"tensor \"w\"", "\"\""}));
  cases.push_back(lie("dtype_is_a_number", one("32", "[1]", "[0,4]"), 4, {"tensor \"w\"", "dtype", "32"}));
  cases.push_back(lie("shape_is_a_number", one(R"("U8")", "4", "[0,4]"), 4, {"tensor \"w\"", "shape", "4"}));
  cases.push_back(lie("shape_is_an_object", one(R"("U8")", R"({"0":4})", "[0,4]"), 4, {"tensor \"w\"", "shape"}));
  cases.push_back(lie("shape_is_nested", one(R"("U8")", "[[4]]", "[0,4]"), 4, {"tensor \"w\"", "extent", "array"}));
  cases.push_back(
      lie("offsets_of_one", one(R"("U8")", "[4]", "[4]"), 4, {"tensor \"w\"", "data_offsets", "array of 1"}));
  cases.push_back(lie("offsets_of_three", one(R"("U8")", "[4]", "[0,4,8]"), 4, {"tensor \"w\"", "array of 3"}));
  cases.push_back(
      lie("offsets_are_an_object", one(R"("U8")", "[4]", R"({"b":0,"e":4})"), 4, {"tensor \"w\"", "object"}));
  // Every number that is not a whole one from 0 to 2^63 - 1, in every place where a number stands.
  for (const char* number : {"-1", "-0", "4.0", "4.5", "4e0", "9223372036854775808", "18446744073709551615",
                             "18446744073709551616", "18446744073709551620", "\"4\"", "null", "true"}) {
    const std::string text = number;
    const std::string label = text[0] == '"' ? "quoted" : text;
    cases.push_back(lie("extent_" + label, one(R"("U8")", "[" + text + "]", "[0,4]"), 4, {"tensor \"w\"", "extent"}));
    cases.push_back(
        lie("begin_" + label, one(R"("U8")", "[4]", "[" + text + ",4]"), 4, {"tensor \"w\"", "begin offset"}));
    cases.push_back(lie("end_" + label, one(R"("U8")", "[4]", "[0," + text + "]"), 4, {"tensor \"w\"", "end offset"}));
  }
}

void add_size_cases(std::vector<HostileCase>& cases) {
  const std::string two62 = "4611686018427387904";
  const std::string two63 = "9223372036854775807";  // less one
  cases.push_back(
      lie("shape_too_small", one(R"("F32")", "[3]", "[0,16]"), 16, {"tensor \"w\"", "[3]", "12 bytes", "16"}));
  cases.push_back(
      lie("shape_too_large", one(R"("F32")", "[5]", "[0,16]"), 16, {"tensor \"w\"", "[5]", "20 bytes", "16"}));
  cases.push_back(lie("scalar_of_two", one(R"("F32")", "[]", "[0,8]"), 8, {"tensor \"w\"", "[]", "4 bytes", "8"}));
  // 2^32 * 2^32 is 0 in 64 bits, 2^32 * (2^32 + 1) is 2^32, 2^62 * 4 bytes is 0.
  cases.push_back(
      lie("product_wraps_to_zero", one(R"("U8")", "[4294967296,4294967296]", "[0,0]"), 0, {"tensor \"w\"", "wraps"}));
  cases.push_back(
      lie("product_wraps_to_four", one(R"("U8")", "[" + two62 + ",4,1,4]", "[0,4]"), 4, {"tensor \"w\"", "wraps"}));
  cases.push_back(lie("bytes_wrap_to_zero", one(R"("F32")", "[" + two62 + "]", "[0,0]"), 0, {"tensor \"w\"", "wraps"}));
  cases.push_back(lie("bits_wrap", one(R"("U8")", "[2305843009213693953]", "[0,1]"), 1, {"tensor \"w\"", "wraps"}));
  cases.push_back(
      lie("extent_of_2_to_63", one(R"("U8")", "[" + two63 + "]", "[0," + two63 + "]"), 4, {"tensor \"w\"", "wraps"}));
  cases.push_back(lie("zero_hides_huge_after", one(R"("U8")", "[0," + two63 + "," + two63 + "]", "[0,0]"), 0,
                      {"tensor \"w\"", "wraps"}));
  cases.push_back(lie("zero_hides_huge_before", one(R"("U8")", "[" + two63 + "," + two63 + ",0]", "[0,0]"), 0,
                      {"tensor \"w\"", "wraps"}));
  cases.push_back(lie("zero_extent_with_bytes", one(R"("U8")", "[0,4]", "[0,4]"), 4, {"tensor \"w\"", "0 bytes", "4"}));
  cases.push_back(lie("half_a_byte", one(R"("F4")", "[3]", "[0,2]"), 2, {"tensor \"w\"", "F4", "12 bits"}));
  cases.push_back(lie("six_bits", one(R"("F6_E2M3")", "[3]", "[0,3]"), 3, {"tensor \"w\"", "F6_E2M3", "18 bits"}));
  std::string dims = "2";
  for (int i = 1; i < 100; ++i) {
    dims += ",2";
  }
  cases.push_back(
      lie("rank_100_wraps", one(R"("U8")", "[" + dims + "]", "[0,0]"), 0, {"tensor \"w\"", "100 extents", "wraps"}));
}

void add_offset_cases(std::vector<HostileCase>& cases) {
  cases.push_back(
      lie("offsets_reversed", one(R"("U8")", "[4]", "[4,0]"), 4, {"tensor \"w\"", "offset 0", "begins at 4"}));
  cases.push_back(
      lie("ends_past_the_file", one(R"("U8")", "[5]", "[0,5]"), 4, {"tensor \"w\"", "ends at byte", "truncated"}));
  cases.push_back(lie("ends_far_past_the_file", one(R"("F32")", "[268435456]", "[0,1073741824]"), 4,
                      {"tensor \"w\"", "ends at byte 1,073,74", "truncated"}));
  cases.push_back(
      lie("second_ends_past_the_file", two("[4]", "[0,4]", "[5]", "[4,9]"), 8, {"tensor \"b\"", "ends at byte"}));
  cases.push_back(lie("begins_past_the_file", one(R"("U8")", "[1]", "[9223372036854775806,9223372036854775807]"), 4,
                      {"tensor \"w\"", "first tensor", "gap"}));
  cases.push_back(
      lie("gap_at_the_start", one(R"("U8")", "[4]", "[4,8]"), 8, {"tensor \"w\"", "first tensor", "4 bytes", "gap"}));
  cases.push_back(
      lie("gap_between", two("[4]", "[0,4]", "[3]", "[5,8]"), 8, {"tensor \"b\"", "\"a\"", "1 bytes", "gap"}));
  cases.push_back(lie("overlap", two("[4]", "[0,4]", "[5]", "[3,8]"), 8, {"tensor \"b\"", "overlaps", "\"a\""}));
  cases.push_back(
      lie("same_bytes_twice", two("[4]", "[0,4]", "[4]", "[0,4]"), 4, {"tensor \"b\"", "overlaps", "\"a\""}));
  cases.push_back(
      lie("one_inside_the_other", two("[8]", "[0,8]", "[2]", "[3,5]"), 8, {"tensor \"b\"", "overlaps", "\"a\""}));
  cases.push_back(
      lie("nothing_inside_the_other", two("[8]", "[0,8]", "[0]", "[4,4]"), 8, {"tensor \"b\"", "overlaps"}));
  cases.push_back(lie("nothing_past_the_file", two("[8]", "[0,8]", "[0]", "[9,9]"), 8, {"tensor \"b\"", "gap"}));
  cases.push_back(lie("bytes_left_over", one(R"("U8")", "[4]", "[0,4]"), 5, {"1 bytes at the end", "no tensor"}));
  cases.push_back(lie("bytes_without_tensors", "{}", 5, {"5 bytes at the end", "0 tensors"}));
}

}  // namespace

std::string safetensors_file(std::uint64_t length, const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>((length >> (8 * i)) & 0xff);
  }
  return file + header + data;
}

std::string safetensors_file(const std::string& header, const std::string& data) {
  return safetensors_file(header.size(), header, data);
}

std::vector<ValidCase> valid_safetensors() {
  // Wide types first, so that all of them lie aligned.
  const std::vector<std::pair<int, std::vector<std::string>>> types = {
      {8, {"F64", "I64", "U64", "C64"}},
      {4, {"F32", "I32", "U32"}},
      {2, {"F16", "BF16", "I16", "U16"}},
      {1, {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U8", "I8", "BOOL"}}};
  std::string every_type;
  std::string data;
  for (const auto& [bytes, names] : types) {
    for (const std::string& name : names) {
      const std::string begin = std::to_string(data.size());
      data.append(static_cast<std::size_t>(6 * bytes), name.back());
      every_type += every_type.empty() ? "{" : ",";
      every_type += R"("tensor.)" + name + R"(":{"dtype":")" + name + R"(","shape":[2,3],"data_offsets":[)" + begin +
                    "," + std::to_string(data.size()) + "]}";
    }
  }
  return {
      {"valid_nothing", safetensors_file("{}", ""), 0},
      {"valid_metadata_only", safetensors_file(R"({"__metadata__":{"format":"pt","":"\n"}})", ""), 0},
      {"valid_one", safetensors_file(one(R"("U8")", "[4]", "[0,4]"), "data"), 1},
      {"valid_scalar", safetensors_file(one(R"("F64")", "[]", "[0,8]"), "datadata"), 1},
      {"valid_trailing_spaces", safetensors_file(one(R"("U8")", "[4]", "[0,4]") + "      ", "data"), 1},
      {"valid_spaces_within",
       safetensors_file("{ \"w\" :\n{\"dtype\":\t\"U8\",\"shape\":[ 4 ],\"data_offsets\":[0,4]}}", "data"), 1},
      {"valid_unsorted", safetensors_file(two("[4]", "[4,8]", "[4]", "[0,4]"), "bbbbaaaa"), 2},
      {"valid_empty_tensor", safetensors_file(one(R"("F32")", "[0]", "[0,0]"), ""), 1},
      {"valid_empty_before", safetensors_file(two("[8]", "[0,8]", "[0]", "[0,0]"), "datadata"), 2},
      {"valid_empty_after", safetensors_file(two("[8]", "[0,8]", "[3,0,7]", "[8,8]"), "datadata"), 2},
      {"valid_smaller_than_a_byte", safetensors_file(one(R"("F4")", "[4]", "[0,2]"), "dd"), 1},
      {"valid_six_bits", safetensors_file(one(R"("F6_E3M2")", "[4]", "[0,3]"), "ddd"), 1},
      {"valid_rank_nine", safetensors_file(one(R"("U8")", "[1,1,1,1,2,1,1,1,2]", "[0,4]"), "data"), 1},
      {"valid_odd_names",
       safetensors_file(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                        R"("\"\\ / \u00e9\ud83d\ude00":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                        "dd"),
       2},
      {"valid_all_types", safetensors_file(every_type + "}", data), 19},
  };
}

std::vector<HostileCase> hostile_safetensors() {
  std::vector<HostileCase> cases;
  add_length_cases(cases);
  add_json_cases(cases);
  add_metadata_and_name_cases(cases);
  add_field_cases(cases);
  add_size_cases(cases);
  add_offset_cases(cases);
  return cases;
}

}  // namespace caravan::checkpoint
