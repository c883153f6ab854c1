// The names in a folder of training checkpoints, and the moves by which directories come and go there, so that a crash
// at any moment leaves each either whole or not a checkpoint.  Private to this room.
//
//   step-500             a checkpoint, when its COMPLETE fits
//   .saving-step-500     a save under way; after an exchange, what step-500 was before
//   .replaced-step-500   what step-500 was, between two renames (file systems that cannot exchange)
//   .removing-step-500   a checkpoint that retention is removing
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace caravan::checkpoint {

inline constexpr char kTensorsFile[] = "rank-0.safetensors";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kCompleteFile[] = "COMPLETE";

std::filesystem::path saving_directory(const std::filesystem::path& folder, std::int64_t step);

// What COMPLETE holds for that manifest.
std::string complete_text(const std::string& manifest);

// The text of the manifest that COMPLETE vouches for.  Throws FileError, or FormatError where the two do not fit.
std::string read_vouched_manifest(const std::filesystem::path& directory);

// Steps of the directories named step-N, whole or not, ascending.  No folder, no steps.  Throws FileError.
std::vector<std::int64_t> step_directories(const std::filesystem::path& folder);

// The following throw FileError naming path and cause.

void make_directory(const std::filesystem::path& directory);
// Makes the names in a directory durable.
void sync_directory(const std::filesystem::path& directory);

// Whether step-N is there, as a directory.  Throws FileError when something else has that name.
bool step_exists(const std::filesystem::path& folder, std::int64_t step);
// Renames the staged directory to step-N, which must not exist.  Not durable before sync_directory(folder).
void place_step(const std::filesystem::path& folder, std::int64_t step);
// The staged directory, which has its COMPLETE, and step-N change places: whenever this is cut off, one of the two is
// step-N, or clean_leftovers() makes it so.  Not durable before sync_directory(folder).
void exchange_step(const std::filesystem::path& folder, std::int64_t step);
// Takes step-N away: out of sight first, then its COMPLETE, then the rest.
void remove_step(const std::filesystem::path& folder, std::int64_t step);
// Removes what killed runs left behind, and puts back a checkpoint whose replacement was cut off.
void clean_leftovers(const std::filesystem::path& folder);

}  // namespace caravan::checkpoint
