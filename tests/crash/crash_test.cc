// Publishers and consumers under load while the server is killed, or its disk loses power, at
// random; then everything that the clients saw is checked. The same seed makes the same choices
// (not the same timing).
//
//   crash_test [--seed N] [--rounds N] [--fault kill|power]
//
// Exit code 77: there is no way to make a disk lose power here (needs root and loop devices).
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/time/clock.h"
#include "tests/crash/checker.h"
#include "tests/crash/workload.h"
#include "tests/support/loop_disk.h"
#include "tests/support/server_process.h"

ABSL_FLAG(uint64_t, seed, 0, "seed of all choices; 0 takes a fresh one");
ABSL_FLAG(int, rounds, 20, "how often the server is ended");
ABSL_FLAG(std::string, fault, "kill",
          "kill: SIGKILL, the operating system keeps what was written; power: its disk loses what "
          "was not synced");

namespace sluice::crash {
namespace {

// From hardly up to well under way.
constexpr int64_t kUptimeMsMin = 50;
constexpr int64_t kUptimeMsMax = 2500;
// One kill in so many comes in the middle of the start, whenever that is.
constexpr int kKillDuringStartOneIn = 5;
constexpr int64_t kStartMsMax = 150;
constexpr absl::Duration kDrainTimeout = absl::Seconds(60);
// A store whose disk is gone must notice and end by itself.
constexpr absl::Duration kFailedExitTimeout = absl::Seconds(20);
// As documented for sluiced; the first while it serves, the second while it starts.
constexpr int kExitStoreFailed = 70;
constexpr int kExitCannotStart = 1;
constexpr int kExitSkipped = 77;
constexpr int64_t kDiskBytes = int64_t{4} << 30;  // a sparse file: takes what is written
constexpr absl::Duration kDepthPause = absl::Milliseconds(50);

bool Ok(const absl::Status& status) {
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok();
}

bool RecordDepths(Workload& workload, Recorder& recorder) {
  for (const char* queue : {kFifoQueue, kWorkQueue}) {
    const absl::StatusOr<int64_t> depth = workload.Depth(queue);
    if (!Ok(depth.status())) return false;
    recorder.Add(DepthRecord{queue, recorder.Now(), *depth});
  }
  return true;
}

// Waits until both queues are empty.
bool Drain(Workload& workload) {
  const absl::Time give_up = absl::Now() + kDrainTimeout;
  while (absl::Now() < give_up) {
    const absl::StatusOr<int64_t> fifo = workload.Depth(kFifoQueue);
    const absl::StatusOr<int64_t> work = workload.Depth(kWorkQueue);
    if (fifo.ok() && work.ok() && *fifo + *work == 0) return true;
    absl::SleepFor(kDepthPause);
  }
  return false;
}

// Ends the server by taking its disk away; false unless that is the end it documents.
bool LosePower(testing::LoopDisk& disk, testing::ServerProcess& server, Workload& workload,
               bool starting) {
  if (!Ok(disk.LosePower())) return false;
  workload.Provoke();
  const absl::StatusOr<int> code = server.WaitForExit(kFailedExitTimeout);
  if (!Ok(code.status())) return false;
  if (*code != kExitStoreFailed && !(starting && *code == kExitCannotStart)) {
    std::cerr << "the server ended with " << *code << " when its disk was gone\n";
    return false;
  }
  return Ok(disk.Remount());
}

// Ends and restarts the server `rounds` times; false if it does not end or come up as it should.
// `disk`: null, or what loses power instead.
bool RunRounds(testing::ServerProcess& server, testing::LoopDisk* disk, Workload& workload,
               Recorder& recorder, int rounds, std::mt19937_64& random) {
  auto end = [&](bool starting) {
    if (disk == nullptr) {
      server.Kill();
    } else if (!LosePower(*disk, server, workload, starting)) {
      return false;
    }
    recorder.AddKill();
    workload.NextGeneration();
    return true;
  };
  for (int round = 1; round <= rounds; ++round) {
    const int64_t uptime_ms = kUptimeMsMin + static_cast<int64_t>(
                                                 random() % (kUptimeMsMax - kUptimeMsMin));
    const int64_t before = workload.deliveries();
    absl::SleepFor(absl::Milliseconds(uptime_ms));
    if (!end(/*starting=*/false)) return false;
    std::cout << "round " << round << "/" << rounds << ": ended after " << uptime_ms << " ms and "
              << workload.deliveries() - before << " deliveries" << std::endl;
    if (random() % kKillDuringStartOneIn == 0) {
      if (!Ok(server.Spawn())) return false;
      absl::SleepFor(absl::Milliseconds(random() % kStartMsMax));
      if (!end(/*starting=*/true)) return false;
    }
    if (!Ok(server.Start())) return false;
  }
  return true;
}

int Run() {
  uint64_t seed = absl::GetFlag(FLAGS_seed);
  if (seed == 0) seed = std::random_device()();
  std::cout << "seed " << seed << " (repeat with --seed " << seed << ")" << std::endl;
  std::mt19937_64 random(seed);
  Recorder recorder;
  // The disk first: it must be there until the server has ended.
  std::unique_ptr<testing::LoopDisk> disk;
  std::vector<std::string> flags;
  if (absl::GetFlag(FLAGS_fault) == "power") {
    auto made = testing::LoopDisk::Make(kDiskBytes);
    if (absl::IsUnavailable(made.status())) {
      std::cout << "SKIPPED power_loss_test: " << made.status().message() << std::endl;
      return kExitSkipped;
    }
    if (!Ok(made.status())) return 1;
    disk = *std::move(made);
    flags = {"--data-dir", disk->path() + "/data"};
  }
  testing::ServerProcess server(flags);
  bool went = false;
  {
    Workload workload(server.address(), seed, &recorder);
    if (!Ok(server.Start()) || !Ok(workload.Setup())) return 1;
    workload.StartConsumers();
    workload.StartPublishers();
    went = RunRounds(server, disk.get(), workload, recorder, absl::GetFlag(FLAGS_rounds), random);
    workload.StopPublishers();
    workload.StopConsumers();
    // Nobody does anything now: what the server says must agree with what the clients know.
    went = went && RecordDepths(workload, recorder);
    if (went) {
      workload.BeGood();
      workload.StartConsumers();
      if (Drain(workload)) recorder.SetDrained();
      workload.StopConsumers();
      went = RecordDepths(workload, recorder);
    }
  }
  const Verdict verdict = Check(recorder.Take());
  std::cout << verdict.summary << "\n";
  for (const Violation& v : verdict.violations) std::cout << v.rule << ": " << v.what << "\n";
  if (verdict.kind == Verdict::Kind::kPass && went) {
    std::cout << "PASS" << std::endl;
    return 0;
  }
  std::cout << (verdict.kind == Verdict::Kind::kUnknown ? "UNKNOWN: " + verdict.why_unknown
                                                        : std::string("FAIL"))
            << " (seed " << seed << ")\n--- log of the server ends ---\n";
  const std::string log = server.Log();
  std::cout << log.substr(log.size() > 8000 ? log.size() - 8000 : 0) << std::endl;
  return 1;
}

}  // namespace
}  // namespace sluice::crash

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  // A channel whose server has gone fails its calls at once, and then nobody looks after the
  // connection that it is making but this poller; by default every 5 s, longer than a round.
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "20", /*overwrite=*/1);
  return sluice::crash::Run();
}
