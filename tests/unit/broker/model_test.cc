// Random operations on a shard, checked step by step: the plain ones against a naive model
// (model_state.h), all features together against the rules of the contract (model_rules.h).
//
// Every run takes fresh seeds, beside a few fixed ones. A failure names the seed that repeats it
// exactly: SLUICE_MODEL_SEED=n (or --seed=n); SLUICE_MODEL_OPS=n sets how long a run, or a share,
// goes on.
#include <sys/personality.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "tests/unit/broker/model_driver.h"
#include "tests/unit/broker/model_features.h"

namespace sluice::broker {
namespace {

constexpr uint64_t kOpsPerSeedDefault = 60'000;

uint64_t g_seed = 0;  // of --seed; 0: none

uint64_t OpsOr(uint64_t otherwise) {
  uint64_t ops = otherwise;
  if (const char* text = std::getenv("SLUICE_MODEL_OPS")) {
    if (!absl::SimpleAtoi(text, &ops)) ops = otherwise;
  }
  return ops;
}
uint64_t Ops() { return OpsOr(kOpsPerSeedDefault); }

uint64_t FreshSeed() { return 1 + uint64_t{std::random_device()()}; }

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

TEST(ShardModelSeedTest, AgreesWithTheNaiveModel) {
  uint64_t seed = SeedAskedFor();
  if (seed == 0) seed = FreshSeed();
  std::printf("model: SLUICE_MODEL_SEED=%llu repeats this run\n",
              static_cast<unsigned long long>(seed));
  ModelDriver(seed).Run(Ops());
}

// ---- every feature

// Runs are short and many: every one begins with an empty store.
constexpr uint64_t kFeatureOpsPerRun = 20'000;
// Fresh seeds are shared out to cases that can run side by side.
constexpr int kShares = 4;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kFeatureOpsPerShare = 20'000;
#else
constexpr uint64_t kFeatureOpsPerShare = 520'000;
static_assert(kShares * kFeatureOpsPerShare >= 2'000'000, "what a run of all tests promises");
#endif
// From here on a share has met everything in kMustBeSeen.
constexpr uint64_t kOpsThatMeetEverything = 500'000;

// What happens in a run of that length, if the features are all there and all tried.
constexpr const char* kMustBeSeen[] = {
    "bindings", "calls not written", "calls written",
    "ages told exactly", "consumers listed", "definitions applied", "definitions exported",
    "definitions pruned", "definitions refused", "definitions tried",
    "died: attempts", "died: expired", "died: overflow", "died: rejected", "dropped away",
    "duplicates", "edited", "exchanges deleted", "exchanges in use", "exhausted away",
    "exhausted away beside a dead-letter queue",
    "expired away", "fanned out", "given for its age", "given at a consumer's rate", "given at a queue's rate",
    "given by consumer priority", "joined", "listed", "moved", "no route",
    "producers of what is gone", "producers opened",
    "queues deleted", "queues gone idle", "queues gone with their boot",
    "queues gone with their stream", "received with auto_ack", "refused: EXCHANGE_NOT_FOUND",
    "refused: NO_ROUTE", "refused: PRODUCER_FENCED", "refused: QUEUE_DELETED",
    "refused: QUEUE_FULL",
    "refused: SEQUENCE_REFUSED", "repeated sequences", "rescheduled", "routed",
    "publishes abandoned", "stored by producers", "stored in line", "streams ended idle", "temporary queues", "transactions",
    "transactions refused"};

struct FeatureTotals {
  uint64_t runs = 0;
  uint64_t operations = 0;
  uint64_t deliveries = 0;
  uint64_t redeliveries = 0;
  uint64_t boots = 0;
  std::map<std::string, uint64_t> seen;
};

// False: it has failed.
bool RunFeatures(uint64_t seed, uint64_t ops, FeatureTotals* totals) {
  FeatureDriver driver(seed);
  driver.Run(ops);
  const FeatureModel& model = driver.model();
  ++totals->runs;
  totals->operations += driver.ops();
  totals->deliveries += model.deliveries;
  totals->redeliveries += model.redeliveries;
  totals->boots += driver.boots();
  for (const auto& [what, count] : model.seen) totals->seen[what] += count;
  return !driver.failed();
}

void Print(const FeatureTotals& totals) {
  std::printf("features: %llu runs, %llu operations, %llu deliveries (%llu again), %llu boots\n",
              static_cast<unsigned long long>(totals.runs),
              static_cast<unsigned long long>(totals.operations),
              static_cast<unsigned long long>(totals.deliveries),
              static_cast<unsigned long long>(totals.redeliveries),
              static_cast<unsigned long long>(totals.boots));
  for (const auto& [what, count] : totals.seen) {
    std::printf("  %s: %llu\n", what.c_str(), static_cast<unsigned long long>(count));
  }
}

class FeatureModelTest : public testing::TestWithParam<uint64_t> {};

TEST_P(FeatureModelTest, EveryFeatureKeepsItsRules) {
  if (SeedAskedFor() != 0) GTEST_SKIP() << "another seed was asked for";
  FeatureTotals totals;
  RunFeatures(GetParam(), kFeatureOpsPerRun, &totals);
}
INSTANTIATE_TEST_SUITE_P(FixedSeeds, FeatureModelTest, testing::Values(1, 2, 3));

class FeatureModelShareTest : public testing::TestWithParam<int> {};

// One seed after the other from a fresh one on, until the operations of a share are done; a failure
// names the seed of its run. A seed that is asked for is run alone.
TEST_P(FeatureModelShareTest, EveryFeatureKeepsItsRules) {
  FeatureTotals totals;
  if (const uint64_t seed = SeedAskedFor(); seed != 0) {
    if (GetParam() != 0) GTEST_SKIP() << "another seed was asked for";
    RunFeatures(seed, OpsOr(kFeatureOpsPerRun), &totals);
    return Print(totals);
  }
  const uint64_t ops = OpsOr(kFeatureOpsPerShare);
  uint64_t seed = FreshSeed();
  std::printf("features: seeds from %llu on\n", static_cast<unsigned long long>(seed));
  bool ok = true;
  for (; ok && totals.operations < ops; ++seed) ok = RunFeatures(seed, kFeatureOpsPerRun, &totals);
  Print(totals);
  EXPECT_GE(totals.operations, ok ? ops : 0);
  if (!ok || ops < kOpsThatMeetEverything) return;
  for (const char* what : kMustBeSeen) EXPECT_GT(totals.seen[what], 0u) << what;
  // Met in 500 thousand operations: 0 to 5 of the one, 30 and more of the other.
  EXPECT_LE(totals.seen["passed over though aged"] * 2, totals.seen["given for its age"]);
}
INSTANTIATE_TEST_SUITE_P(Shares, FeatureModelShareTest, testing::Range(0, kShares));

}  // namespace

void SetModelSeed(uint64_t seed) { g_seed = seed; }

}  // namespace sluice::broker

// What is kept in order of addresses, or of hashes that are salted with one, is gone through in the
// same order each time only if addresses are the same: then a seed repeats a run exactly.
static void FixAddresses(char** argv) {
  const int flags = personality(0xffffffff);  // asks
  if (flags == -1 || (flags & ADDR_NO_RANDOMIZE) != 0) return;
  if (personality(static_cast<unsigned long>(flags) | ADDR_NO_RANDOMIZE) == -1) return;
  execv("/proc/self/exe", argv);
}

int main(int argc, char** argv) {
  FixAddresses(argv);
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
