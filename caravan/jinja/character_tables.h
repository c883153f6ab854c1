// Characters that utf8proc's simple mappings and categories do not settle: Unicode 14, SpecialCasing.txt,
// DerivedCoreProperties.txt and the field Numeric_Type of UnicodeData.txt.
#pragma once

namespace caravan::jinja {

struct Range {
  char32_t first;
  char32_t last;
};

// Lowercase without being of category Ll.
inline constexpr Range kOtherLowercase[] = {
    {0xAA, 0xAA},     {0xBA, 0xBA},     {0x2B0, 0x2B8},     {0x2C0, 0x2C1},     {0x2E0, 0x2E4},     {0x345, 0x345},
    {0x37A, 0x37A},   {0x1D2C, 0x1D6A}, {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C}, {0x2170, 0x217F}, {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},
    {0xA7F8, 0xA7F9}, {0xAB5C, 0xAB5F}, {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}};

// Uppercase without being of category Lu.
inline constexpr Range kOtherUppercase[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};

// Digits that are no decimal ones.
inline constexpr Range kOtherDigits[] = {
    {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
    {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
    {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};

// Case_Ignorable without being of category Mn, Me, Cf, Lm or Sk.
inline constexpr Range kOtherCaseIgnorable[] = {{0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
                                                {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
                                                {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
                                                {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};

// Mappings of one character to several: upper and title.  The only such mapping to lower case is that of U+0130.
struct SpecialCase {
  char32_t character;
  const char32_t* upper;
  const char32_t* title;
};
inline constexpr SpecialCase kSpecialCases[] = {{0xDF, U"\x53\x53", U"\x53\x73"},
                                                {0x149, U"\x2BC\x4E", U"\x2BC\x4E"},
                                                {0x1F0, U"\x4A\x30C", U"\x4A\x30C"},
                                                {0x390, U"\x399\x308\x301", U"\x399\x308\x301"},
                                                {0x3B0, U"\x3A5\x308\x301", U"\x3A5\x308\x301"},
                                                {0x587, U"\x535\x552", U"\x535\x582"},
                                                {0x1E96, U"\x48\x331", U"\x48\x331"},
                                                {0x1E97, U"\x54\x308", U"\x54\x308"},
                                                {0x1E98, U"\x57\x30A", U"\x57\x30A"},
                                                {0x1E99, U"\x59\x30A", U"\x59\x30A"},
                                                {0x1E9A, U"\x41\x2BE", U"\x41\x2BE"},
                                                {0x1F50, U"\x3A5\x313", U"\x3A5\x313"},
                                                {0x1F52, U"\x3A5\x313\x300", U"\x3A5\x313\x300"},
                                                {0x1F54, U"\x3A5\x313\x301", U"\x3A5\x313\x301"},
                                                {0x1F56, U"\x3A5\x313\x342", U"\x3A5\x313\x342"},
                                                {0x1F80, U"\x1F08\x399", U"\x1F88"},
                                                {0x1F81, U"\x1F09\x399", U"\x1F89"},
                                                {0x1F82, U"\x1F0A\x399", U"\x1F8A"},
                                                {0x1F83, U"\x1F0B\x399", U"\x1F8B"},
                                                {0x1F84, U"\x1F0C\x399", U"\x1F8C"},
                                                {0x1F85, U"\x1F0D\x399", U"\x1F8D"},
                                                {0x1F86, U"\x1F0E\x399", U"\x1F8E"},
                                                {0x1F87, U"\x1F0F\x399", U"\x1F8F"},
                                                {0x1F88, U"\x1F08\x399", U"\x1F88"},
                                                {0x1F89, U"\x1F09\x399", U"\x1F89"},
                                                {0x1F8A, U"\x1F0A\x399", U"\x1F8A"},
                                                {0x1F8B, U"\x1F0B\x399", U"\x1F8B"},
                                                {0x1F8C, U"\x1F0C\x399", U"\x1F8C"},
                                                {0x1F8D, U"\x1F0D\x399", U"\x1F8D"},
                                                {0x1F8E, U"\x1F0E\x399", U"\x1F8E"},
                                                {0x1F8F, U"\x1F0F\x399", U"\x1F8F"},
                                                {0x1F90, U"\x1F28\x399", U"\x1F98"},
                                                {0x1F91, U"\x1F29\x399", U"\x1F99"},
                                                {0x1F92, U"\x1F2A\x399", U"\x1F9A"},
                                                {0x1F93, U"\x1F2B\x399", U"\x1F9B"},
                                                {0x1F94, U"\x1F2C\x399", U"\x1F9C"},
                                                {0x1F95, U"\x1F2D\x399", U"\x1F9D"},
                                                {0x1F96, U"\x1F2E\x399", U"\x1F9E"},
                                                {0x1F97, U"\x1F2F\x399", U"\x1F9F"},
                                                {0x1F98, U"\x1F28\x399", U"\x1F98"},
                                                {0x1F99, U"\x1F29\x399", U"\x1F99"},
                                                {0x1F9A, U"\x1F2A\x399", U"\x1F9A"},
                                                {0x1F9B, U"\x1F2B\x399", U"\x1F9B"},
                                                {0x1F9C, U"\x1F2C\x399", U"\x1F9C"},
                                                {0x1F9D, U"\x1F2D\x399", U"\x1F9D"},
                                                {0x1F9E, U"\x1F2E\x399", U"\x1F9E"},
                                                {0x1F9F, U"\x1F2F\x399", U"\x1F9F"},
                                                {0x1FA0, U"\x1F68\x399", U"\x1FA8"},
                                                {0x1FA1, U"\x1F69\x399", U"\x1FA9"},
                                                {0x1FA2, U"\x1F6A\x399", U"\x1FAA"},
                                                {0x1FA3, U"\x1F6B\x399", U"\x1FAB"},
                                                {0x1FA4, U"\x1F6C\x399", U"\x1FAC"},
                                                {0x1FA5, U"\x1F6D\x399", U"\x1FAD"},
                                                {0x1FA6, U"\x1F6E\x399", U"\x1FAE"},
                                                {0x1FA7, U"\x1F6F\x399", U"\x1FAF"},
                                                {0x1FA8, U"\x1F68\x399", U"\x1FA8"},
                                                {0x1FA9, U"\x1F69\x399", U"\x1FA9"},
                                                {0x1FAA, U"\x1F6A\x399", U"\x1FAA"},
                                                {0x1FAB, U"\x1F6B\x399", U"\x1FAB"},
                                                {0x1FAC, U"\x1F6C\x399", U"\x1FAC"},
                                                {0x1FAD, U"\x1F6D\x399", U"\x1FAD"},
                                                {0x1FAE, U"\x1F6E\x399", U"\x1FAE"},
                                                {0x1FAF, U"\x1F6F\x399", U"\x1FAF"},
                                                {0x1FB2, U"\x1FBA\x399", U"\x1FBA\x345"},
                                                {0x1FB3, U"\x391\x399", U"\x1FBC"},
                                                {0x1FB4, U"\x386\x399", U"\x386\x345"},
                                                {0x1FB6, U"\x391\x342", U"\x391\x342"},
                                                {0x1FB7, U"\x391\x342\x399", U"\x391\x342\x345"},
                                                {0x1FBC, U"\x391\x399", U"\x1FBC"},
                                                {0x1FC2, U"\x1FCA\x399", U"\x1FCA\x345"},
                                                {0x1FC3, U"\x397\x399", U"\x1FCC"},
                                                {0x1FC4, U"\x389\x399", U"\x389\x345"},
                                                {0x1FC6, U"\x397\x342", U"\x397\x342"},
                                                {0x1FC7, U"\x397\x342\x399", U"\x397\x342\x345"},
                                                {0x1FCC, U"\x397\x399", U"\x1FCC"},
                                                {0x1FD2, U"\x399\x308\x300", U"\x399\x308\x300"},
                                                {0x1FD3, U"\x399\x308\x301", U"\x399\x308\x301"},
                                                {0x1FD6, U"\x399\x342", U"\x399\x342"},
                                                {0x1FD7, U"\x399\x308\x342", U"\x399\x308\x342"},
                                                {0x1FE2, U"\x3A5\x308\x300", U"\x3A5\x308\x300"},
                                                {0x1FE3, U"\x3A5\x308\x301", U"\x3A5\x308\x301"},
                                                {0x1FE4, U"\x3A1\x313", U"\x3A1\x313"},
                                                {0x1FE6, U"\x3A5\x342", U"\x3A5\x342"},
                                                {0x1FE7, U"\x3A5\x308\x342", U"\x3A5\x308\x342"},
                                                {0x1FF2, U"\x1FFA\x399", U"\x1FFA\x345"},
                                                {0x1FF3, U"\x3A9\x399", U"\x1FFC"},
                                                {0x1FF4, U"\x38F\x399", U"\x38F\x345"},
                                                {0x1FF6, U"\x3A9\x342", U"\x3A9\x342"},
                                                {0x1FF7, U"\x3A9\x342\x399", U"\x3A9\x342\x345"},
                                                {0x1FFC, U"\x3A9\x399", U"\x1FFC"},
                                                {0xFB00, U"\x46\x46", U"\x46\x66"},
                                                {0xFB01, U"\x46\x49", U"\x46\x69"},
                                                {0xFB02, U"\x46\x4C", U"\x46\x6C"},
                                                {0xFB03, U"\x46\x46\x49", U"\x46\x66\x69"},
                                                {0xFB04, U"\x46\x46\x4C", U"\x46\x66\x6C"},
                                                {0xFB05, U"\x53\x54", U"\x53\x74"},
                                                {0xFB06, U"\x53\x54", U"\x53\x74"},
                                                {0xFB13, U"\x544\x546", U"\x544\x576"},
                                                {0xFB14, U"\x544\x535", U"\x544\x565"},
                                                {0xFB15, U"\x544\x53B", U"\x544\x56B"},
                                                {0xFB16, U"\x54E\x546", U"\x54E\x576"},
                                                {0xFB17, U"\x544\x53D", U"\x544\x56D"}};

}  // namespace caravan::jinja
