#include "caravan/generate/stop_strings.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"

namespace caravan::generate {
namespace {

// What is shown of a text that comes in pieces of `size` bytes.
std::string shown(const std::string& text, const std::vector<std::string>& stops, std::size_t size) {
  StopStrings ends(stops);
  std::string result;
  for (std::size_t at = 0; at < text.size(); at += size) {
    result += ends.push(text.substr(at, size));
  }
  return result + ends.finish();
}

TEST(StopStrings, ShowsTheTextBeforeTheFirstHoweverItIsCut) {
  for (std::size_t size = 1; size <= 20; ++size) {
    EXPECT_EQ(shown("to be or not to be", {"not", "or"}, size), "to be ");
    EXPECT_EQ(shown("aaab, aab", {"aab"}, size), "a");
    EXPECT_EQ(shown("one\n\ntwo", {"\n\n"}, size), "one");
    EXPECT_EQ(shown("the end, nearly", {"nearly!", "ending"}, size), "the end, nearly");
    EXPECT_EQ(shown("stop", {"stop"}, size), "");
    EXPECT_EQ(shown("nothing ends it", {}, size), "nothing ends it");
  }
}

// Two that overlap: the one that begins first counts, as soon as either is there.
TEST(StopStrings, HoldsBackOnlyWhatMayBecomeOne) {
  StopStrings ends({"User:", "\n\n"});
  EXPECT_EQ(ends.push("Hello U"), "Hello ");
  EXPECT_EQ(ends.push("sed"), "Used");
  EXPECT_EQ(ends.push("\nUs"), "\n");
  EXPECT_FALSE(ends.stopped());
  EXPECT_EQ(ends.push("er: and more"), "");
  EXPECT_TRUE(ends.stopped());
  EXPECT_EQ(ends.push("nothing of this"), "");
  EXPECT_EQ(ends.finish(), "");
}

TEST(StopStrings, RefusesAnEmptyOne) {
  EXPECT_THROW(StopStrings({"a", ""}), InputError);
}

}  // namespace
}  // namespace caravan::generate
