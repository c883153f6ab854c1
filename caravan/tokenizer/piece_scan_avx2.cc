// Compiled for x86-64-v3, so everything but the one function has internal linkage and nothing inline is included: the
// linker may keep the copy of an inline function that only newer processors can run.
//
// A window of 64 bytes begins at the start of a piece.  One bit a byte says of which kind it is, and the starts of pieces
// follow from these words by shifts: a pattern without look-behind sees nothing before a piece, so that a window needs to
// know nothing either.  Starts are trusted as far as what decides about them lies inside the window; the next window begins
// at the last of them.  tests/tokenizer/piece_scan_test.cc lays this beside the plain scanners.
#include <immintrin.h>

#include <cstring>

#include "caravan/tokenizer/piece_scan.h"

namespace caravan::tokenizer {

namespace {

using Bits = std::uint64_t;

constexpr std::size_t kWindow = 64;

Bits bits_below(unsigned count) {
  return _bzhi_u64(~Bits{0}, count);
}
Bits bits_from(unsigned begin, unsigned count) {
  return bits_below(count) << begin;
}
Bits bit(unsigned at) {
  return at < kWindow ? Bits{1} << at : 0;
}
unsigned lowest(Bits bits) {
  return static_cast<unsigned>(_tzcnt_u64(bits));
}

struct Window {
  Bits letters = 0;
  Bits capitals = 0;  // letters with a capital's part; only for o200k
  Bits numbers = 0;
  Bits spaces = 0;    // all white space
  Bits blanks = 0;    // U+0020
  Bits newlines = 0;  // \r and \n
  Bits quotes = 0;    // the apostrophe
  Bits slashes = 0;
  Bits wide_others = 0;  // first bytes of characters beyond ASCII that are neither letter, number nor white space
  Bits beyond_ascii = 0;
  unsigned valid = kWindow;  // bytes whose kinds are known

  Bits others() const { return ~(letters | numbers | spaces) & bits_below(valid); }
};

struct Half {
  __m256i bytes;
  Bits is(char value) const { return mask(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(value))); }
  // first <= byte <= last
  Bits in(char first, char last) const { return in_range(bytes, first, last); }
  Bits letters() const { return in_range(_mm256_or_si256(bytes, _mm256_set1_epi8(0x20)), 'a', 'z'); }
  Bits high() const { return mask(bytes); }

 private:
  static Bits mask(__m256i all) { return static_cast<std::uint32_t>(_mm256_movemask_epi8(all)); }
  static Bits in_range(__m256i all, char first, char last) {
    const __m256i from = _mm256_sub_epi8(all, _mm256_set1_epi8(first));
    return mask(_mm256_cmpeq_epi8(_mm256_min_epu8(from, _mm256_set1_epi8(static_cast<char>(last - first))), from));
  }
};

template <ScanKind kKind>
constexpr bool kIsGpt2 = kKind == ScanKind::kGpt2 || kKind == ScanKind::kDigitsGpt2;

template <ScanKind kKind>
Window classify(const char* text) {
  const Half low{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(text))};
  const Half high{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32))};
  const auto both = [&](auto of) { return of(low) | of(high) << 32; };
  Window window;
  window.letters = both([](const Half& half) { return half.letters(); });
  window.numbers = both([](const Half& half) { return half.in('0', '9'); });
  window.blanks = both([](const Half& half) { return half.is(' '); });
  window.spaces = window.blanks | both([](const Half& half) { return half.in('\t', '\r'); });
  window.quotes = both([](const Half& half) { return half.is('\''); });
  if constexpr (!kIsGpt2<kKind>) {
    window.newlines = both([](const Half& half) { return half.is('\n') | half.is('\r'); });
  }
  if constexpr (kKind == ScanKind::kO200k) {
    window.capitals = both([](const Half& half) { return half.in('A', 'Z'); });
    window.slashes = both([](const Half& half) { return half.is('/'); });
  }
  window.beyond_ascii = both([](const Half& half) { return half.high(); });
  return window;
}

// The character whose first byte, 0xC2 or above, is at `text`, and its bytes.
char32_t decode(const char* text, unsigned& length) {
  const auto byte = [text](int i) { return static_cast<unsigned char>(text[i]); };
  const auto rest = [&](int i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  if (byte(0) < 0xE0) {
    length = 2;
    return static_cast<char32_t>(byte(0) & 0x1F) << 6 | rest(1);
  }
  if (byte(0) < 0xF0) {
    length = 3;
    return static_cast<char32_t>(byte(0) & 0x0F) << 12 | rest(1) << 6 | rest(2);
  }
  length = 4;
  return static_cast<char32_t>(byte(0) & 0x07) << 18 | rest(1) << 12 | rest(2) << 6 | rest(3);
}

// Every byte of a character beyond ASCII gets the character's kind; the window ends before one that is cut or odd.
void classify_wide(const char* text, WideKind (*wide)(char32_t), Window& window) {
  for (Bits left = window.beyond_ascii & bits_below(window.valid); left != 0;) {
    const unsigned at = lowest(left);
    const auto first = static_cast<unsigned char>(text[at]);
    const unsigned bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (at + bytes > window.valid) {
      window.valid = at;
      break;
    }
    unsigned length = 0;
    const WideKind kind = wide(decode(text + at, length));
    const Bits all = bits_from(at, length);
    if (kind == WideKind::kStop) {
      window.valid = at;
      break;
    }
    if (kind == WideKind::kOther) {
      window.wide_others |= bit(at);
    } else {
      window.letters |= all;
      window.capitals |= kind == WideKind::kUpper ? all : 0;
    }
    left &= ~all;
  }
}

void keep_valid(Window& window) {
  const Bits valid = bits_below(window.valid);
  window.letters &= valid;
  window.capitals &= valid;
  window.numbers &= valid;
  window.spaces &= valid;
  window.blanks &= valid;
  window.newlines &= valid;
  window.quotes &= valid;
  window.slashes &= valid;
  window.wide_others &= valid;
}

// The bytes of the contraction whose apostrophe is at `text`, or 0; the four bytes from there may be read.
unsigned contraction(const char* text, char to_small) {
  const auto letter = [&](int i) { return static_cast<char>(text[i] | to_small); };
  // A letter with the bit of small ones set is no other character's: 'S' | 0x20 is 's', and only 'S' and 's' become it.
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

// What is known of starts: these, but nothing from `end` on.
struct Starts {
  Bits bits = 0;
  unsigned end = kWindow;
  void stop(unsigned at) { end = at < end ? at : end; }
};

// A contraction at the start of a piece is one: what follows begins anew.
void cut_contractions(const char* text, const Window& window, char to_small, Starts& starts) {
  for (Bits left = starts.bits & window.quotes & (window.letters >> 1); left != 0; left &= left - 1) {
    const unsigned at = lowest(left);
    if (at + 3 > window.valid) {
      starts.stop(at + 1);
      break;
    }
    if (const unsigned length = contraction(text + at, to_small); length > 0) {
      starts.bits = (starts.bits & ~bits_from(at + 1, length - 1)) | bit(at + length);
    }
  }
}

// A contraction behind a word belongs to it.
void join_contractions(const char* text, const Window& window, Starts& starts) {
  unsigned previous_end = kWindow + 1;
  for (Bits left = window.quotes & (window.letters << 1) & (window.letters >> 1); left != 0; left &= left - 1) {
    const unsigned at = lowest(left);
    if (at + 3 > window.valid) {
      starts.stop(at);
      break;
    }
    // Behind a contraction an apostrophe begins a piece.
    const unsigned length = at == previous_end ? 0 : contraction(text + at, 0x20);
    if (length > 0) {
      starts.bits = (starts.bits & ~bits_from(at, length)) | bit(at + length);
      previous_end = at + length;
    }
  }
}

template <ScanKind kKind>
Starts gpt2_starts(const char* text, const Window& window) {
  const Bits spaces = window.spaces;
  const Bits others = window.others();
  const Bits begins = ((window.letters & ~(window.letters << 1)) | (window.numbers & ~(window.numbers << 1)) |
                       (others & ~(others << 1))) &
                      ~(window.blanks << 1);
  Starts starts;
  starts.bits = begins | (spaces & ~(spaces << 1));
  if constexpr (kKind == ScanKind::kDigitsGpt2) {
    // White space before a number ends a stretch: none of it is left to the number.
    starts.bits |= (spaces & ~(spaces >> 1) & ~(window.numbers >> 1)) | window.numbers;
  } else {
    starts.bits |= spaces & ~(spaces >> 1);
  }
  cut_contractions(text, window, 0, starts);
  return starts;
}

// Behind the last newline of a run of white space a piece begins.  `inner`: white space, not newlines, that follows a
// newline of the run; taken back where another newline follows it.
void begin_behind_newlines(Bits blanks, Bits inner, const Window& window, Starts& starts) {
  const Bits sum = blanks + inner;
  const Bits behind = sum & ~blanks;  // the first byte behind each run that inner bits begin
  starts.bits |= inner;
  const bool runs_out = sum < blanks || (window.valid < kWindow && (behind >> window.valid & 1) != 0);
  if ((behind & window.newlines) == 0 && !runs_out) {
    return;
  }
  for (Bits left = inner; left != 0; left &= left - 1) {
    const unsigned at = lowest(left);
    const unsigned end = at + lowest(~(blanks >> at));
    if (end >= window.valid) {
      starts.stop(at);
      return;
    }
    if ((window.newlines >> end & 1) != 0) {
      starts.bits &= ~bit(at);
    }
  }
}

template <ScanKind kKind>
Starts llama3_starts(const char* text, const Window& window) {
  constexpr bool kCases = kKind == ScanKind::kO200k;
  const Bits letters = window.letters;
  const Bits others = window.others();
  // Newlines right behind other characters belong to them.
  const Bits swallowed = window.newlines & ~(window.newlines + ((others << 1) & window.newlines));
  const Bits spaces = window.spaces & ~swallowed;
  const Bits blanks = window.spaces & ~window.newlines;  // white space within a line
  const Bits last_blanks = blanks & ~(window.spaces >> 1);
  // One character that is neither letter, number nor newline goes with the letters behind it: white space always, others
  // when they are alone.
  const Bits alone = others & ~((others | window.blanks) << 1) & ~(others >> 1);
  Bits joined = (blanks | alone) << 1;
  for (Bits left = window.wide_others; left != 0; left &= left - 1) {
    const unsigned at = lowest(left);
    const auto first = static_cast<unsigned char>(text[at]);
    const unsigned length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    const bool follows = at > 0 && ((others | window.blanks) >> (at - 1) & 1) != 0;
    joined |= follows ? 0 : bit(at + length);
  }
  Starts starts;
  starts.bits = (letters & ~(letters << 1) & ~joined) | (others & ~(others << 1) & ~(window.blanks << 1)) |
                (spaces & ~(spaces << 1)) | last_blanks;
  if constexpr (kKind == ScanKind::kQwen2) {
    starts.bits |= window.numbers;
  } else {
    const Bits two = window.numbers & (window.numbers << 1);
    const Bits three = two & (window.numbers << 2);
    for (Bits third = window.numbers & ~(window.numbers << 1); third != 0; third = (third << 3) & three) {
      starts.bits |= third;
    }
  }
  begin_behind_newlines(blanks, blanks & (window.newlines & ~swallowed) << 1, window, starts);
  if constexpr (kCases) {
    starts.bits |= window.capitals & ((letters & ~window.capitals) << 1);
    join_contractions(text, window, starts);
    // [\r\n/]* goes on behind the newlines: rare, and left to the plain scanner.
    if (const Bits slashes = window.slashes & (swallowed << 1); slashes != 0) {
      starts.stop(lowest(slashes));
    }
  } else {
    cut_contractions(text, window, 0x20, starts);
  }
  return starts;
}

// The starts of pieces behind the first one, as far as they are certain.
template <ScanKind kKind>
Bits window_starts(const char* text, unsigned size, WideKind (*wide)(char32_t)) {
  Window window = classify<kKind>(text);
  window.valid = size;
  if (size < kWindow || window.beyond_ascii != 0) {
    classify_wide(text, wide, window);
    keep_valid(window);
  }
  Starts starts;
  if constexpr (kIsGpt2<kKind>) {
    starts = gpt2_starts<kKind>(text, window);
  } else {
    starts = llama3_starts<kKind>(text, window);
  }
  // A start is certain when the byte behind it is known.
  const unsigned certain = window.valid > 0 ? window.valid - 1 : 0;
  return starts.bits & bits_below(certain < starts.end ? certain : starts.end) & ~Bits{1};
}

template <ScanKind kKind>
std::size_t find(const char* text, std::size_t size, std::size_t at, std::uint32_t* ends, std::size_t room,
                 WideKind (*wide)(char32_t)) {
  std::size_t count = 0;
  while (room - count >= kWindow && at < size) {
    Bits starts = 0;
    if (size - at >= kWindow) {
      starts = window_starts<kKind>(text + at, kWindow, wide);
    } else {
      char padded[kWindow] = {};
      std::memcpy(padded, text + at, size - at);
      starts = window_starts<kKind>(padded, static_cast<unsigned>(size - at), wide);
    }
    if (starts == 0) {
      break;
    }
    const auto base = static_cast<std::uint32_t>(at);
    const auto found = static_cast<std::size_t>(_mm_popcnt_u64(starts));
    std::uint32_t* place = ends + count;
    // More are written than there are, which is cheaper than to ask after each.
    for (std::size_t done = 0; done < found; done += 8) {
      for (std::size_t i = 0; i < 8; ++i) {
        place[done + i] = base + lowest(starts);
        starts &= starts - 1;
      }
    }
    count += found;
    at = ends[count - 1];
  }
  return count;
}

}  // namespace

std::size_t find_piece_ends_avx2(ScanKind kind, const char* text, std::size_t size, std::size_t at, std::uint32_t* ends,
                                 std::size_t room, WideKind (*wide)(char32_t character)) {
  switch (kind) {
    case ScanKind::kGpt2:
      return find<ScanKind::kGpt2>(text, size, at, ends, room, wide);
    case ScanKind::kDigitsGpt2:
      return find<ScanKind::kDigitsGpt2>(text, size, at, ends, room, wide);
    case ScanKind::kLlama3:
      return find<ScanKind::kLlama3>(text, size, at, ends, room, wide);
    case ScanKind::kQwen2:
      return find<ScanKind::kQwen2>(text, size, at, ends, room, wide);
    default:
      return find<ScanKind::kO200k>(text, size, at, ends, room, wide);
  }
}

}  // namespace caravan::tokenizer
