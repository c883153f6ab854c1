#include "caravan/tokenizer/byte_alphabet.h"

#include <array>

#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr std::size_t kCharacters = 0x100 + 68;

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int, kCharacters> bytes{};  // -1: the character stands for no byte
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.bytes) {
    byte = -1;
  }
  char32_t stand_in = kFirstStandIn;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet.characters[byte] = printable ? byte : stand_in++;
    alphabet.bytes[alphabet.characters[byte]] = static_cast<int>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t character_of(unsigned char byte) {
  return kAlphabet.characters[byte];
}

std::optional<std::string> spelled_bytes(std::string_view spelling) {
  std::string bytes;
  for (std::size_t at = 0; at < spelling.size();) {
    const CodePoint character = code_point_at(spelling, at);
    const int byte = character.value < kCharacters ? kAlphabet.bytes[character.value] : -1;
    if (byte < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(byte);
    at += character.length;
  }
  return bytes;
}

std::string spelling_of(std::string_view bytes) {
  std::string spelling;
  for (const char byte : bytes) {
    append_utf8(spelling, character_of(static_cast<unsigned char>(byte)));
  }
  return spelling;
}

}  // namespace caravan::tokenizer
