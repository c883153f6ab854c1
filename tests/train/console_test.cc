#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "caravan/train/metrics.h"
#include "tests/support/stage.h"

namespace caravan::train {
namespace {

StepMetrics metrics_of(std::int64_t step) {
  return {.step = step,
          .loss = 4.123454,
          .grad_norm = 1.23454,
          .lr = 8e-4,
          .tokens_per_second = 12345.4,
          .mfu = 0.45674,
          .memory_gib = 1.2345,
          .n_tokens_seen = 1000,
          .seconds = 0.5};
}

using test::Stage;

TEST(Console, PrintsTorchtitansLinesOffATerminal) {
  Stage stage;
  Console console(stage.out, false, false, 1, 100, 10, stage.clock());
  for (std::int64_t step = 1; step <= 100; ++step) {
    stage.now += 0.5;
    console.step(metrics_of(step));
    const std::string text = stage.taken();
    if (step == 1 || step % 10 == 0) {
      EXPECT_FALSE(text.empty()) << step;
    } else {
      EXPECT_EQ(text, "") << step;
    }
    if (step == 10) {
      EXPECT_EQ(text,
                "step: 10  loss: 4.12345  grad_norm: 1.2345  memory: 1.23GiB  tps: 12,345  mfu: 45.67%  lr: 0.0008  "
                "eta: 0:45\n");
    }
  }
  console.finish();
  EXPECT_EQ(stage.taken(), "");
}

TEST(Console, PrintsTheFirstStepOfAResumedRunAndTheLast) {
  Stage stage;
  Console console(stage.out, false, false, 43, 45, 10, stage.clock());
  stage.now += 1.0;
  console.step(metrics_of(43));
  EXPECT_EQ(stage.taken().find("step: 43  "), 0u);
  console.step(metrics_of(44));
  EXPECT_EQ(stage.taken(), "");
  console.step(metrics_of(45));
  EXPECT_EQ(stage.taken().find("step: 45  "), 0u);
}

TEST(Console, PaintsFieldsWhenAsked) {
  Stage stage;
  Console console(stage.out, false, true, 1, 10, 1, stage.clock());
  console.step(metrics_of(1));
  const std::string text = stage.taken();
  EXPECT_NE(text.find("\x1b[32mloss: 4.12345\x1b[0m"), std::string::npos) << text;
}

TEST(Console, ShowsABarOnATerminalAndTheRestAboveIt) {
  Stage stage;
  Console console(stage.out, true, false, 1, 100, 10, stage.clock(), 81);
  EXPECT_NE(stage.taken().find("training [>"), std::string::npos);
  stage.now += 1.0;
  console.step(metrics_of(20));
  const std::string bar = stage.taken();
  EXPECT_EQ(bar, "\r\x1b[Ktraining [====>                   ] 20/100  0:04 left  loss 4.1235  12,345 tok/s");
  console.validation({.step = 20, .loss = 3.5, .bits_per_byte = 2.25, .targets = 12345, .seconds = 2.0});
  EXPECT_EQ(stage.taken(),
            "\r\x1b[Kvalidate step: 20  loss: 3.50000  bits/byte: 2.2500  targets: 12,345  time: 0:02\n" + bar);
  console.sample(20, "ROMEO:", " what\x1b[2J\nlight");
  EXPECT_EQ(stage.taken(), "\r\x1b[Ksample step: 20\n  ROMEO: what?[2J\n  light\n" + bar);
  console.line("saved");
  EXPECT_EQ(stage.taken(), "\r\x1b[Ksaved\n" + bar);
  console.finish();
  EXPECT_EQ(stage.taken().back(), '\n');
}

TEST(Console, SurvivesNumbersThatAreNone) {
  Stage stage;
  Console console(stage.out, false, false, 1, 10, 1, stage.clock());
  StepMetrics metrics = metrics_of(1);
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.tokens_per_second = std::numeric_limits<double>::infinity();
  console.step(metrics);
  const std::string text = stage.taken();
  EXPECT_NE(text.find("loss: nan"), std::string::npos) << text;
  EXPECT_NE(text.find("tps: inf"), std::string::npos) << text;
}

}  // namespace
}  // namespace caravan::train
