#include "caravan/base/progress.h"
#include "tests/support/stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sstream>

namespace caravan {
namespace {

TEST(ClockText, WritesHoursOnlyWhenThereAreSome) {
  EXPECT_EQ(clock_text(0.0), "0:00");
  EXPECT_EQ(clock_text(7.4), "0:07");
  EXPECT_EQ(clock_text(59.6), "1:00");
  EXPECT_EQ(clock_text(245.0), "4:05");
  EXPECT_EQ(clock_text(3723.0), "1:02:03");
  EXPECT_EQ(clock_text(360000.0), "100:00:00");
  EXPECT_EQ(clock_text(-1.0), "?");
  EXPECT_EQ(clock_text(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(clock_text(std::numeric_limits<double>::quiet_NaN()), "?");
}

TEST(TerminalText, KeepsLettersOfAllScriptsAndNoControlCharacters) {
  EXPECT_EQ(terminal_text("Zürich 東京\n\tx"), "Zürich 東京\n\tx");
  EXPECT_EQ(terminal_text("a\x1b[2Jb\r\x07\x7f"), "a?[2Jb???");
  EXPECT_EQ(terminal_text("a\xc2\x9b"
                          "2Jb\xc2\xa0"),
            "a?2Jb\xc2\xa0");
  EXPECT_EQ(terminal_text("\xc2"), "\xc2");
}

TEST(TerminalColumns, ComeFromTheEnvironmentFirst) {
  setenv("COLUMNS", "57", 1);
  EXPECT_EQ(terminal_columns(), 57);
  setenv("COLUMNS", "wide", 1);
  EXPECT_GT(terminal_columns(), 0);
  unsetenv("COLUMNS");
  EXPECT_GT(terminal_columns(), 0);
}

using test::Stage;

TEST(ProgressBar, DrawsInPlaceOnATerminalWithTheTimeLeft) {
  Stage stage;
  ProgressBar bar(stage.out, true, "reading", 100, 10.0, stage.clock(), 61);
  bar.update(0);
  EXPECT_EQ(stage.taken(), "\r\x1b[Kreading [>                                       ] 0/100");
  stage.now += 5.0;
  bar.update(25, "12 MB/s");
  EXPECT_EQ(stage.taken(), "\r\x1b[Kreading [=====>                 ] 25/100  0:15 left  12 MB/s");
  stage.now += 15.0;
  bar.update(100);
  stage.taken();
  bar.finish();
  EXPECT_EQ(stage.taken(), "\r\x1b[Kreading [====================================] 100/100  0:20\n");
  bar.finish();
  EXPECT_EQ(stage.taken(), "");
}

TEST(ProgressBar, CountsThePaceFromWhereItBegan) {
  Stage stage;
  ProgressBar bar(stage.out, true, "training", 1000, 10.0, stage.clock(), 80);
  bar.update(900);  // resumed: what was done before took no time here
  EXPECT_EQ(bar.seconds_left(), -1.0);
  stage.now += 2.0;
  bar.update(910);
  EXPECT_DOUBLE_EQ(bar.seconds_left(), 18.0);
}

TEST(ProgressBar, RedrawsAtMostTenTimesASecond) {
  Stage stage;
  ProgressBar bar(stage.out, true, "x", 1000, 10.0, stage.clock(), 80);
  int drawings = 0;
  for (int i = 0; i <= 1000; ++i, stage.now += 0.001) {
    bar.update(i);
    drawings += stage.taken().empty() ? 0 : 1;
  }
  EXPECT_GE(drawings, 9);
  EXPECT_LE(drawings, 11);
}

TEST(ProgressBar, NeverFillsTheLine) {
  for (int columns = 1; columns <= 120; ++columns) {
    Stage stage;
    ProgressBar bar(stage.out, true, "training", 1'000'000, 10.0, stage.clock(), columns);
    bar.update(0);
    stage.taken();
    stage.now += 1.0;
    bar.update(1000, "loss 4.1234  12,345 tok/s");
    const std::string drawn = stage.taken().substr(4);  // behind "\r", ESC, "[K"
    EXPECT_LE(drawn.size(), static_cast<std::size_t>(std::max(columns - 1, 1))) << drawn;
    EXPECT_EQ(drawn.find('\n'), std::string::npos);
  }
}

TEST(ProgressBar, PutsLinesAboveTheBar) {
  Stage stage;
  ProgressBar bar(stage.out, true, "x", 10, 10.0, stage.clock(), 30);
  bar.line("before");
  EXPECT_EQ(stage.taken(), "before\n");
  bar.update(5);
  const std::string drawn = stage.taken();
  bar.line("a note");
  EXPECT_EQ(stage.taken(), "\r\x1b[Ka note\n" + drawn);
  bar.finish();
  stage.taken();
  bar.line("after");
  EXPECT_EQ(stage.taken(), "after\n");
}

TEST(ProgressBar, PrintsALineNowAndThenOffATerminal) {
  Stage stage;
  ProgressBar bar(stage.out, false, "reading", 100, 10.0, stage.clock());
  bar.update(0);
  stage.now += 9.0;
  bar.update(9);
  EXPECT_EQ(stage.taken(), "");
  stage.now += 1.0;
  bar.update(10, "a.txt");
  EXPECT_EQ(stage.taken(), "reading 10/100  1:30 left  a.txt\n");
  bar.line("a note");
  EXPECT_EQ(stage.taken(), "a note\n");
  stage.now += 1.0;
  bar.update(100);
  EXPECT_EQ(stage.taken(), "");
  bar.finish();
  EXPECT_EQ(stage.taken(), "reading 100/100  0:11\n");
}

TEST(ProgressBar, OfNothingIsSilent) {
  Stage stage;
  ProgressBar bar(stage.out, true, "x", 0, 10.0, stage.clock(), 40);
  bar.finish();
  EXPECT_EQ(stage.taken(), "");
  bar.update(0);
  EXPECT_NE(stage.taken().find("0/0"), std::string::npos);
}

}  // namespace
}  // namespace caravan
