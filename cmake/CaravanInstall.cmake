# What `cmake --install` leaves behind: the program, the libraries, the public headers, and the package files that let
# find_package(caravan) give the target caravan::caravan.  The room cli is the program's and stays at home.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME library)
get_property(rooms GLOBAL PROPERTY CARAVAN_ROOMS)
list(REMOVE_ITEM rooms caravan_cli)

# One name for all rooms.  caravan/base/json.h and those that hold JSON values include another library's header.
find_package(nlohmann_json REQUIRED)
add_library(caravan INTERFACE)
add_library(caravan::caravan ALIAS caravan)
target_link_libraries(caravan INTERFACE ${rooms} nlohmann_json::nlohmann_json)

# What an installation needs besides the program.
add_custom_target(caravan_libraries DEPENDS ${rooms})

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/caravan)
install(TARGETS caravan ${rooms} EXPORT caravanTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT caravanTargets NAMESPACE caravan:: DESTINATION ${package_folder})
# Helpers of the rooms' own sources, which no public header includes (tests/house/embed_test checks that).
set(private
    "cli"
    "ops/cpu"
    "ops/cuda"
    "tensor/cuda_.*"
    "ops/ref"
    "ops/args.h"
    "ops/argument_check.h"
    "ops/dispatch.h"
    "ops/host_checks.h"
    "ops/sampling_arithmetic.h"
    "base/cgroup.h"
    "base/cpu_features.h"
    "base/descriptor.h"
    "base/system_error.h"
    "base/text.h"
    "autograd/nodes.h"
    "checkpoint/gguf_format.h"
    "checkpoint/safetensors_format.h"
    "checkpoint/step_folder.h"
    "checkpoint/xxh3.h"
    "comm/checks.h"
    "comm/sum.h"
    "data/byte_source.h"
    "data/encoder.h"
    "data/jsonl.h"
    "data/line_reader.h"
    "data/prepare.h"
    "data/row_cutter.h"
    "data/shard.h"
    "data/shard_cache.h"
    "data/tokenise.h"
    "jinja/ast.h"
    "jinja/call.h"
    "jinja/character_tables.h"
    "jinja/engine.h"
    "jinja/expression_parser.h"
    "jinja/filters.h"
    "jinja/lexer.h"
    "jinja/parser.h"
    "jinja/python.h"
    "jinja/renderer.h"
    "jinja/text.h"
    "jinja/value.h"
    "model_io/json_fields.h"
    "model_io/rope_rows.h"
    "quant/block_layout.h"
    "quant/fit.h"
    "tokenizer/added_tokens.h"
    "tokenizer/bpe.h"
    "tokenizer/byte_alphabet.h"
    "tokenizer/byte_trie.h"
    "tokenizer/charsmap.h"
    "tokenizer/decoder.h"
    "tokenizer/fingerprint.h"
    "tokenizer/json_source.h"
    "tokenizer/llama_tokens.h"
    "tokenizer/merge_heap.h"
    "tokenizer/merge_table.h"
    "tokenizer/model_scan.h"
    "tokenizer/named_tokens.h"
    "tokenizer/normalizer.h"
    "tokenizer/pages.h"
    "tokenizer/parts_reading.h"
    "tokenizer/pattern.h"
    "tokenizer/piece_cache.h"
    "tokenizer/piece_encoder.h"
    "tokenizer/piece_scan.h"
    "tokenizer/readers.h"
    "tokenizer/sentencepiece.h"
    "tokenizer/short_merges.h"
    "tokenizer/split.h"
    "tokenizer/table.h"
    "tokenizer/unicode.h"
    "tokenizer/utf8.h"
    "tokenizer/vocabulary.h"
    "tokenizer/word_counts.h"
    "train/append_file.h"
    "train/config_table.h"
    "train/tensorboard.h"
    "train/toml_ascii.h")
list(JOIN private "|" private)
install(
  DIRECTORY ${PROJECT_SOURCE_DIR}/caravan
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING
  PATTERN "*.h"
  REGEX "/caravan/(${private})$" EXCLUDE)

write_basic_package_version_file(${PROJECT_BINARY_DIR}/caravanConfigVersion.cmake COMPATIBILITY SameMinorVersion)
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/caravanConfig.cmake.in ${PROJECT_BINARY_DIR}/caravanConfig.cmake
  INSTALL_DESTINATION ${package_folder}
  NO_SET_AND_CHECK_MACRO)
install(FILES ${PROJECT_BINARY_DIR}/caravanConfig.cmake ${PROJECT_BINARY_DIR}/caravanConfigVersion.cmake
        DESTINATION ${package_folder})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
