// Making a turn's batch durable: written to the WAL and the memtables, synced. The data goes below
// the working directory (not $TMPDIR, which may be memory: there syncs cost nothing) and is removed.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "benchmark/benchmark.h"
#include "server/model/payload.h"
#include "server/storage/batch.h"
#include "server/storage/local_log.h"
#include "server/storage/rocks_store.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

constexpr size_t kBodyBytes = 1024;
// As many as the engine may have under way.
constexpr int kBatchesInFlight = 64;
constexpr unsigned kSeed = 1;

void Check(bool ok) {
  if (!ok) std::abort();
}

class TempDir {
 public:
  TempDir() {
    std::string name = "bench_commit.XXXXXX";
    Check(mkdtemp(name.data()) != nullptr);
    path_ = std::filesystem::absolute(name);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Waits, when it is asked to, until no more than so many batches are under way.
class InFlight {
 public:
  void Begin(int at_most) {
    absl::MutexLock lock(&mutex_);
    at_most_ = at_most;
    mutex_.Await(absl::Condition(this, &InFlight::MayBegin));
    ++batches_;
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    --batches_;
  }
  void AwaitNone() {
    absl::MutexLock lock(&mutex_);
    at_most_ = 1;
    mutex_.Await(absl::Condition(this, &InFlight::MayBegin));
  }

 private:
  bool MayBegin() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return batches_ < at_most_; }

  absl::Mutex mutex_;
  int batches_ ABSL_GUARDED_BY(mutex_) = 0;
  int at_most_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Publishes: args are messages per batch and the queues that they go to at random. As the shard
// does, each lane that took messages has its row rewritten.
void BM_CommitPublishes(benchmark::State& state) {
  const int messages = static_cast<int>(state.range(0));
  const int queues = static_cast<int>(state.range(1));
  const TempDir dir;
  RocksOptions options;
  options.dir = dir.path();
  auto store = RocksStore::Open(options);
  Check(store.ok());
  LocalLog log(store->get(), nullptr);

  std::mt19937_64 random(kSeed);
  std::string body(kBodyBytes, '\0');
  for (char& c : body) c = static_cast<char>(random());
  std::string header;
  std::vector<LaneRow> lanes(queues);
  std::vector<int> touched;
  InFlight in_flight;
  Lsn lsn = 0;
  for (auto _ : state) {
    Batch batch;
    touched.clear();
    for (int i = 0; i < messages; ++i) {
      const int queue = static_cast<int>(random() % queues);
      const MessagePosition at{0, static_cast<QueueId>(queue + 1), 0, lanes[queue].next_seq++};
      const auto key = MessageKey(at);
      batch.Put(Family::kMessages, {key.data(), key.size()},
                {EncodeMessageHeader({}, &header), body});
      touched.push_back(queue);
    }
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const int queue : touched) {
      batch.Put(Family::kMeta, LaneKey(0, static_cast<QueueId>(queue + 1), 0),
                EncodeLane(lanes[queue]));
    }
    ++lsn;
    batch.SetHeader({0, 1, lsn, 0, lsn - 1});
    in_flight.Begin(kBatchesInFlight);
    log.Append(std::move(batch), [&in_flight](const absl::Status& status) {
      Check(status.ok());
      in_flight.End();
    });
  }
  in_flight.AwaitNone();
  log.Stop();
  state.SetItemsProcessed(state.iterations() * messages);
  state.SetBytesProcessed(state.iterations() * messages * static_cast<int64_t>(kBodyBytes));
}
BENCHMARK(BM_CommitPublishes)
    ->ArgNames({"messages", "queues"})
    ->Args({1, 1})
    ->Args({100, 1})
    ->Args({1000, 1})
    ->Args({1000, 10'000})
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace sluice::storage

BENCHMARK_MAIN();
