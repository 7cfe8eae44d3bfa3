// Random operations on a shard, checked step by step against a naive model (model_state.h).
//
// Repeat a run with SLUICE_MODEL_SEED=n (or --seed=n); SLUICE_MODEL_OPS sets its length.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "tests/unit/broker/model_driver.h"

namespace sluice::broker {
namespace {

constexpr uint64_t kOpsPerSeedDefault = 60'000;

uint64_t g_seed = 0;  // of --seed; 0: none

uint64_t Ops() {
  uint64_t ops = kOpsPerSeedDefault;
  if (const char* text = std::getenv("SLUICE_MODEL_OPS")) {
    if (!absl::SimpleAtoi(text, &ops)) ops = kOpsPerSeedDefault;
  }
  return ops;
}

// A seed asked for replaces all others.
uint64_t SeedAskedFor() {
  uint64_t seed = g_seed;
  const char* text = std::getenv("SLUICE_MODEL_SEED");
  if (seed == 0 && text && !absl::SimpleAtoi(text, &seed)) seed = 0;
  return seed;
}

class ShardModelTest : public testing::TestWithParam<uint64_t> {};

TEST_P(ShardModelTest, AgreesWithTheNaiveModel) {
  if (SeedAskedFor() != 0) GTEST_SKIP() << "another seed was asked for";
  ModelDriver(GetParam()).Run(Ops());
}
INSTANTIATE_TEST_SUITE_P(FixedSeeds, ShardModelTest, testing::Values(1, 2, 3));

TEST(ShardModelFreshSeedTest, AgreesWithTheNaiveModel) {
  uint64_t seed = SeedAskedFor();
  if (seed == 0) seed = 1 + std::random_device()();
  std::printf("model: SLUICE_MODEL_SEED=%llu repeats this run\n",
              static_cast<unsigned long long>(seed));
  ModelDriver(seed).Run(Ops());
}

}  // namespace

void SetModelSeed(uint64_t seed) { g_seed = seed; }

}  // namespace sluice::broker

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    uint64_t seed = 0;
    const std::string argument = argv[i];
    if (absl::StartsWith(argument, "--seed=") && absl::SimpleAtoi(argument.substr(7), &seed)) {
      sluice::broker::SetModelSeed(seed);
    }
  }
  return RUN_ALL_TESTS();
}
