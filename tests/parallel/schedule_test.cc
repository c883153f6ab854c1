#include "caravan/parallel/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::parallel {
namespace {

using test::message_of;

// Durations with short binary fractions: sums of them are exact in double, so that formulas hold to the bit.
const Durations kDurations[] = {{1, 1, 1}, {2, 2.5, 1.75}, {1, 3, 0}, {0.5, 1, 4}};

void for_all_sizes(const std::function<void(int stages, int micro_batches)>& body) {
  for (int stages = 1; stages <= 6; ++stages) {
    for (int micro_batches = 1; micro_batches <= 9; ++micro_batches) {
      SCOPED_TRACE(testing::Message() << stages << " stages, " << micro_batches << " micro-batches");
      body(stages, micro_batches);
    }
  }
}

std::vector<Schedule> all_makers(int stages, int micro_batches) {
  return {gpipe(stages, micro_batches), one_forward_one_backward(stages, micro_batches),
          zero_bubble_h1(stages, micro_batches), accumulate(micro_batches)};
}

// ---- makers and print ----

TEST(Schedule, AccumulationIsOneStage) {
  EXPECT_EQ(print(accumulate(3)), "rank 0: F0.0 B0.0 F0.1 B0.1 F0.2 B0.2\n");
}

TEST(Schedule, GPipeDoesAllForwardsThenAllBackwardsInReverse) {
  EXPECT_EQ(print(gpipe(2, 3)),
            "rank 0: F0.0 F0.1 F0.2 B0.2 B0.1 B0.0\n"
            "rank 1: F1.0 F1.1 F1.2 B1.2 B1.1 B1.0\n");
}

TEST(Schedule, OneForwardOneBackwardWarmsUpByTheStagesAfterIt) {
  EXPECT_EQ(print(one_forward_one_backward(3, 4)),
            "rank 0: F0.0 F0.1 F0.2 B0.0 F0.3 B0.1 B0.2 B0.3\n"
            "rank 1: F1.0 F1.1 B1.0 F1.2 B1.1 F1.3 B1.2 B1.3\n"
            "rank 2: F2.0 B2.0 F2.1 B2.1 F2.2 B2.2 F2.3 B2.3\n");
  EXPECT_EQ(print(one_forward_one_backward(4, 1)),
            "rank 0: F0.0 B0.0\nrank 1: F1.0 B1.0\nrank 2: F2.0 B2.0\nrank 3: F3.0 B3.0\n");
}

TEST(Schedule, ZeroBubbleOwesWeightGradientsByTheStagesBeforeIt) {
  EXPECT_EQ(print(zero_bubble_h1(3, 4)),
            "rank 0: F0.0 F0.1 F0.2 I0.0 W0.0 F0.3 I0.1 W0.1 I0.2 W0.2 I0.3 W0.3\n"
            "rank 1: F1.0 F1.1 I1.0 F1.2 I1.1 W1.0 F1.3 I1.2 W1.1 I1.3 W1.2 W1.3\n"
            "rank 2: F2.0 I2.0 F2.1 I2.1 F2.2 I2.2 W2.0 F2.3 I2.3 W2.1 W2.2 W2.3\n");
}

TEST(Schedule, MakersRefuseWhatHasNoSteps) {
  EXPECT_THROW(accumulate(0), ConfigError);
  EXPECT_THROW(gpipe(0, 1), ConfigError);
  EXPECT_THROW(one_forward_one_backward(1, 0), ConfigError);
  EXPECT_EQ(message_of<ConfigError>([] { zero_bubble_h1(-1, 3); }),
            "zero_bubble_h1: at least one stage and one micro-batch expected, found -1 and 3");
}

TEST(Schedule, MakersAreSound) {
  for_all_sizes([](int stages, int micro_batches) {
    for (const Schedule& schedule : all_makers(stages, micro_batches)) {
      EXPECT_EQ(problems(schedule), std::vector<std::string>()) << print(schedule);
    }
  });
}

// ---- parse ----

TEST(Schedule, ParsesWhatItPrints) {
  for_all_sizes([](int stages, int micro_batches) {
    for (const Schedule& schedule : all_makers(stages, micro_batches)) {
      EXPECT_TRUE(parse(print(schedule)) == schedule) << print(schedule);
    }
  });
}

TEST(Schedule, ParsesCommentsSpacesAndSeveralStagesARank) {
  const Schedule schedule = parse(
      "# a V of two ranks\r\n"
      "\n"
      "  rank 0:\tF0.0  F3.0 B3.0 B0.0   # first and last\r\n"
      "rank 1: F1.0 F2.0 B2.0 B1.0");
  EXPECT_EQ(schedule.stages, 4);
  EXPECT_EQ(schedule.micro_batches, 1);
  EXPECT_EQ(schedule.rank_of_stage, (std::vector<int>{0, 1, 1, 0}));
  EXPECT_EQ(schedule.steps[0][2], (Step{Work::kBackward, 3, 0}));
  EXPECT_TRUE(problems(schedule).empty());
}

TEST(Schedule, ParsingNamesLineAndWord) {
  const auto fault = [](const std::string& text) { return message_of<ConfigError>([&] { parse(text); }); };
  EXPECT_EQ(fault("rank 0: F0.0\nrank 1: F1.0 X1.0"),
            "schedule, line 2, word \"X1.0\": a step begins with F, B, I or W, as in F0.3 (forward of stage 0, "
            "micro-batch 3)");
  for (const char* word : {"F", "F0", "F0.", "F.0", "F0.0x", "F-1.0", "F0.-1", "F0,0", "F+0.0", "F0.99999999999"}) {
    EXPECT_EQ(fault(std::string("rank 0: ") + word),
              std::string("schedule, line 1, word \"") + word +
                  "\": a step is a letter, the stage, a dot and the micro-batch, as in F0.3");
  }
  EXPECT_EQ(fault("rank 0: F65536.0"),
            "schedule, line 1, word \"F65536.0\": stages end at 65535 and micro-batches at 16777215");
  EXPECT_EQ(fault("\nrank 1: F0.0"),
            "schedule, line 2, word \"1:\": the line begins with \"rank 0:\"; ranks come in order, a line each");
  for (const char* text : {"rank: F0.0", "rank", "rank 0 F0.0", "rank 00: F0.0", "F0.0", "rank 0:\nrank 0: F0.0"}) {
    EXPECT_NE(fault(text).find("ranks come in order, a line each"), std::string::npos) << text;
  }
  for (const char* text : {"", "\n\n", "# nothing", "rank 0:"}) {
    EXPECT_NE(fault(text).find("there is no step in it"), std::string::npos) << text;
  }
}

// ---- problems ----

// The reasons, a line each.
std::string reasons(const Schedule& schedule) {
  std::string text;
  for (const std::string& reason : problems(schedule)) {
    text += reason + "\n";
  }
  return text;
}

std::string reasons(const std::string& text) {
  return reasons(parse(text));
}

TEST(Schedule, AMissingStepIsFound) {
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F0.1 B0.1\nrank 1: F1.0 B1.0 B1.1"), "F1.1 is missing\n");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F0.1 B0.1\nrank 1: F1.0 B1.0 F1.1"),
            "B1.1 is missing, and there is no I1.1 in its place\n");
  EXPECT_EQ(reasons("rank 0: F0.0 I0.0"), "I0.0 has no W0.0 after it\n");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 W0.0"), "W0.0 has no I0.0 before it\n");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F2.0 B2.0"),
            "F1.0 is missing\nB1.0 is missing, and there is no I1.0 in its place\n");
}

TEST(Schedule, ADoubleStepIsFound) {
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 B0.0"), "B0.0 stands 2 times\n");
  EXPECT_EQ(reasons("rank 0: F0.0 F0.0 F0.0 B0.0"), "F0.0 stands 3 times\n");
  EXPECT_EQ(reasons("rank 0: F0.0 I0.0 W0.0 W0.0"), "W0.0 stands 2 times\n");
  EXPECT_EQ(reasons("rank 0: F0.0 I0.0 I0.0 W0.0"), "I0.0 stands 2 times\n");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 I0.0 W0.0"),
            "B0.0 and I0.0 both stand there, which would take the gradient twice\n");
}

TEST(Schedule, AWrongOrderWithinAStageIsFound) {
  EXPECT_EQ(reasons("rank 0: F0.0 W0.0 I0.0"), "rank 0: W0.0 stands before I0.0\n");
  EXPECT_EQ(reasons("rank 0: B0.0 F0.0"), "rank 0: B0.0 stands before F0.0\n");
  EXPECT_EQ(reasons("rank 0: I0.0 F0.0 W0.0"), "rank 0: I0.0 stands before F0.0\n");
}

TEST(Schedule, AWrongRankIsFound) {
  Schedule schedule = gpipe(2, 2);
  std::swap(schedule.rank_of_stage[0], schedule.rank_of_stage[1]);
  EXPECT_EQ(problems(schedule).size(), 8U);
  EXPECT_EQ(problems(schedule)[0], "rank 0: F0.0 belongs to rank 1, which has stage 0");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F0.1\nrank 1: B0.1 F1.0 F1.1 B1.0 B1.1"),
            "rank 1: B0.1 belongs to rank 0, which has stage 0\n");
}

TEST(Schedule, ADeadlockIsFoundAndExplained) {
  // Rank 1 wants to give back micro-batch 1 first, whose forward rank 0 does only after having micro-batch 0 back.
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F0.1 B0.1\nrank 1: F1.1 B1.1 F1.0 B1.0"),
            "deadlock: rank 0 stands at B0.0 and waits for B1.0 of rank 1\n"
            "deadlock: rank 1 stands at F1.1 and waits for F0.1 of rank 0\n");
  EXPECT_EQ(reasons("rank 0: F0.0 B0.0 F0.1 B0.1\nrank 1: F1.0 F1.1 I1.0 W1.0 I1.1 W1.1"),
            "deadlock: rank 0 stands at B0.0 and waits for I1.0 of rank 1\n"
            "deadlock: rank 1 stands at F1.1 and waits for F0.1 of rank 0\n");
  // Two stages of one rank in the wrong order lock it alone.
  EXPECT_EQ(reasons("rank 0: F1.0 F0.0 B1.0 B0.0"), "deadlock: rank 0 stands at F1.0 and waits for F0.0 of rank 0\n");
  EXPECT_EQ(reasons("rank 0: F0.0 F1.0 B0.0 B1.0"), "deadlock: rank 0 stands at B0.0 and waits for B1.0 of rank 0\n");
}

TEST(Schedule, SwappingTwoStepsOfOneRankIsFoundOrHarmless) {
  // Any exchange of two neighbours either is refused, or leaves a schedule whose clock comes to the end.
  int refused = 0;
  int harmless = 0;
  for (const Schedule& sound : all_makers(3, 4)) {
    for (std::size_t rank = 0; rank < sound.steps.size(); ++rank) {
      for (std::size_t i = 0; i + 1 < sound.steps[rank].size(); ++i) {
        Schedule swapped = sound;
        std::swap(swapped.steps[rank][i], swapped.steps[rank][i + 1]);
        if (problems(swapped).empty()) {
          EXPECT_GE(simulate(swapped, {}).time, 12.0);
          ++harmless;
        } else {
          EXPECT_THROW(simulate(swapped, {}), ConfigError);
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(harmless, 0);
}

TEST(Schedule, LeavingOutOrDoublingAnyStepIsFound) {
  for (const Schedule& sound : all_makers(3, 4)) {
    for (std::size_t rank = 0; rank < sound.steps.size(); ++rank) {
      for (std::size_t i = 0; i < sound.steps[rank].size(); ++i) {
        Schedule less = sound;
        less.steps[rank].erase(less.steps[rank].begin() + static_cast<std::ptrdiff_t>(i));
        EXPECT_FALSE(problems(less).empty());
        Schedule more = sound;
        more.steps[rank].push_back(sound.steps[rank][i]);
        EXPECT_FALSE(problems(more).empty());
      }
    }
  }
}

TEST(Schedule, AMalformedValueIsFoundWithoutBeingFollowed) {
  Schedule schedule = gpipe(2, 2);
  schedule.rank_of_stage = {0};
  EXPECT_EQ(reasons(schedule), "2 stages, but rank_of_stage has 1\n");
  schedule.rank_of_stage = {0, 2};
  EXPECT_EQ(reasons(schedule), "stage 1 is on rank 2, but there are 2 ranks\n");
  schedule = gpipe(2, 2);
  schedule.micro_batches = 1;
  EXPECT_EQ(problems(schedule).size(), 4U);
  EXPECT_EQ(problems(schedule)[0], "rank 0: F0.1 is not a step of 2 stages and 1 micro-batches");
  schedule = gpipe(1, 1);
  schedule.steps[0][0].work = static_cast<Work>('Z');
  EXPECT_EQ(reasons(schedule), "rank 0: an unknown kind of work is not a step of 1 stages and 1 micro-batches\n");
  schedule.stages = -5;
  EXPECT_FALSE(problems(schedule).empty());
  EXPECT_FALSE(problems({0, 0, {}, {}}).empty());
}

TEST(Schedule, AHostileFileGetsFewReasonsQuickly) {
  // 2^16 stages times 2^24 micro-batches would be 10^12 steps to miss.
  EXPECT_EQ(problems(parse("rank 0: F65535.16777215")).size(), 20U);
}

// ---- simulate ----

// Bubble of every rank and their common time, as each rank does m (F + I + W) of work.
void expect_bubble(const Schedule& schedule, const Durations& durations, double bubble) {
  const Simulation simulation = simulate(schedule, durations);
  const double work =
      schedule.micro_batches * (durations.forward + durations.input_gradient + durations.weight_gradient);
  EXPECT_EQ(simulation.time, work + bubble);
  EXPECT_EQ(simulation.bubble, std::vector<double>(schedule.steps.size(), bubble));
}

// Huang et al. 2019, Narayanan et al. 2019: (p - 1)(F + B) whatever the number of micro-batches.
TEST(Schedule, GPipeAnd1F1BWaitForOneMicroBatchToPassTheOtherStages) {
  for_all_sizes([](int stages, int micro_batches) {
    for (const Durations& durations : kDurations) {
      const double bubble = (stages - 1) * (durations.forward + durations.input_gradient + durations.weight_gradient);
      expect_bubble(gpipe(stages, micro_batches), durations, bubble);
      expect_bubble(one_forward_one_backward(stages, micro_batches), durations, bubble);
    }
  });
}

// Qi et al. 2024, table 2: (p - 1)(F + B - 2W) with B = I + W, once there are micro-batches for every stage.
TEST(Schedule, ZeroBubbleH1WaitsLessByTwoWeightGradients) {
  for_all_sizes([](int stages, int micro_batches) {
    const double time = simulate(zero_bubble_h1(stages, micro_batches), {}).time;
    if (micro_batches >= stages) {
      expect_bubble(zero_bubble_h1(stages, micro_batches), {1, 1, 1}, stages - 1);
      expect_bubble(zero_bubble_h1(stages, micro_batches), {2, 2.5, 1.75}, (stages - 1) * (2 + 4.25 - 2 * 1.75));
    } else {
      // With fewer, each that is missing leaves a gap more; never as many as without the split.
      EXPECT_EQ(time, 3 * micro_batches + stages - 1 + stages - micro_batches);
    }
    if (stages > 1) {
      EXPECT_LT(time, simulate(one_forward_one_backward(stages, micro_batches), {}).time);
    }
  });
}

TEST(Schedule, PeaksAreThoseOfTheTable) {
  for_all_sizes([](int stages, int micro_batches) {
    for (const Durations& durations : kDurations) {
      const Simulation all = simulate(gpipe(stages, micro_batches), durations);
      const Simulation alternating = simulate(one_forward_one_backward(stages, micro_batches), durations);
      const Simulation split = simulate(zero_bubble_h1(stages, micro_batches), durations);
      for (int rank = 0; rank < stages; ++rank) {
        const auto r = static_cast<std::size_t>(rank);
        EXPECT_EQ(all.peak_micro_batches[r], micro_batches);
        EXPECT_EQ(alternating.peak_micro_batches[r], std::min(micro_batches, stages - rank));
        EXPECT_EQ(split.peak_micro_batches[r], std::min(micro_batches, stages)) << "never above 1F1B's first rank";
      }
    }
  });
}

TEST(Schedule, AccumulationNeverWaitsAndHoldsOne) {
  const Simulation simulation = simulate(accumulate(5), {1, 2, 3});
  EXPECT_EQ(simulation.time, 30.0);
  EXPECT_EQ(simulation.bubble, std::vector<double>{0.0});
  EXPECT_EQ(simulation.peak_micro_batches, std::vector<int>{1});
}

TEST(Schedule, AnInputGradientGoesOnBeforeItsWeightGradient) {
  // I1 ends at 3, so I0 can begin there though W1 runs until 4.
  EXPECT_EQ(simulate(parse("rank 0: F0.0 I0.0 W0.0\nrank 1: F1.0 I1.0 W1.0"), {}).time, 5.0);
  // A B gives its gradient away when all of it has ended.
  EXPECT_EQ(simulate(parse("rank 0: F0.0 B0.0\nrank 1: F1.0 B1.0"), {}).time, 6.0);
  // A mixture: the first stage takes what either gives.
  EXPECT_EQ(simulate(parse("rank 0: F0.0 B0.0\nrank 1: F1.0 I1.0 W1.0"), {}).time, 5.0);
}

TEST(Schedule, SeveralStagesOfARankShareItsTime) {
  const Simulation simulation = simulate(parse("rank 0: F0.0 F1.0 B1.0 B0.0\nrank 1:"), {1, 1, 1});
  EXPECT_EQ(simulation.time, 6.0);
  EXPECT_EQ(simulation.bubble, (std::vector<double>{0.0, 6.0}));
  EXPECT_EQ(simulation.peak_micro_batches, (std::vector<int>{2, 0}));
}

TEST(Schedule, SimulationRefusesWhatCannotRun) {
  EXPECT_EQ(message_of<ConfigError>([] { simulate(parse("rank 0: F0.0"), {}); }),
            "simulate: the schedule cannot run: B0.0 is missing, and there is no I0.0 in its place");
  EXPECT_EQ(message_of<ConfigError>([] { simulate(parse("rank 0: F0.0 F0.1"), {}); }),
            "simulate: the schedule cannot run: B0.0 is missing, and there is no I0.0 in its place (and 1 more)");
  EXPECT_THROW(simulate(gpipe(1, 1), {-1, 1, 1}), ConfigError);
  EXPECT_THROW(simulate(gpipe(1, 1), {1, std::nan(""), 1}), ConfigError);
  EXPECT_THROW(draw(gpipe(1, 1), {1, 1, std::numeric_limits<double>::infinity()}), ConfigError);
}

// ---- draw ----

TEST(Schedule, DrawsAColumnAUnitOfTime) {
  EXPECT_EQ(draw(gpipe(2, 2), {}),
            "rank 0: F0 F1 .  .  .  B1 B1 B0 B0\n"
            "rank 1: .  F0 F1 B1 B1 B0 B0 .  .\n");
  EXPECT_EQ(draw(zero_bubble_h1(2, 3), {}),
            "rank 0: F0 F1 .  I0 W0 F2 I1 W1 I2 W2\n"
            "rank 1: .  F0 I0 F1 I1 W0 F2 I2 W1 W2\n");
}

TEST(Schedule, DrawsTheStageWhereARankHasSeveral) {
  EXPECT_EQ(draw(parse("rank 0: F0.0 F2.0 B2.0 B0.0\nrank 1: F1.0 B1.0"), {1, 1, 0}),
            "rank 0: F0.0 .    F2.0 B2.0 .    B0.0\n"
            "rank 1: .    F1.0 .    .    B1.0 .\n");
}

TEST(Schedule, DrawsTenRanksInLine) {
  const std::string drawing = draw(gpipe(11, 1), {1, 0, 0});
  EXPECT_EQ(drawing.substr(0, 11), "rank  0: F0");
  EXPECT_NE(drawing.find("\nrank 10: .  .  .  .  .  .  .  .  .  .  F0\n"), std::string::npos);
}

TEST(Schedule, RefusesADrawingOfAMillionColumns) {
  EXPECT_EQ(message_of<ConfigError>([] {
              draw(gpipe(1, 1), {1e6, 0, 0});
            }),
            "draw: the drawing would be 1000000 columns wide, 100000 are allowed; give durations in a larger unit of "
            "time");
}

TEST(ScheduleProblems, NeighboursMustAgreeOnTheOrderOfMicroBatches) {
  const Schedule crossed = parse("rank 0: F0.0 F0.1 B0.0 B0.1\nrank 1: F1.1 B1.1 F1.0 B1.0\n");
  ASSERT_FALSE(problems(crossed).empty());
  EXPECT_NE(problems(crossed).front().find("different orders"), std::string::npos) << problems(crossed).front();
}

}  // namespace
}  // namespace caravan::parallel
