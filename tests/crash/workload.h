// Publishers and consumers that do their work, badly behaved at times, and record all of it.
#ifndef SLUICE_TESTS_CRASH_WORKLOAD_H_
#define SLUICE_TESTS_CRASH_WORKLOAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/crash/history.h"
#include "tests/support/client.h"

namespace sluice::crash {

// Queue with one consumer that never leaves by itself: first deliveries must come in order.
inline constexpr char kFifoQueue[] = "fifo";
// Queue with several consumers that ack, retry, release, discard, extend, dawdle and leave.
inline constexpr char kWorkQueue[] = "work";

// Runs against one address while the server there comes and goes. Everything is public to the
// thread that made it; the clients are threads of its own.
class Workload {
 public:
  Workload(std::string address, uint64_t seed, Recorder* recorder);
  ~Workload();

  // Makes the queues; the server must be up.
  absl::Status Setup();
  void StartPublishers();
  void StartConsumers();
  void StopPublishers();  // returns when they have stopped
  void StopConsumers();
  // From now on consumers only ack.
  void BeGood() { good_ = true; }
  // Makes the server write something if it is there. A server without work does not notice that its
  // disk is gone.
  void Provoke();
  // Called after each end of a server and before its next start.
  void NextGeneration() { ++generation_; }

  // Messages that the server holds in `queue`, in any state; an error if it cannot say.
  absl::StatusOr<int64_t> Depth(const std::string& queue);
  int64_t deliveries() const { return deliveries_; }

 private:
  void PublishUnary(int number);
  void PublishStreamed(int number);
  void ConsumeFifo(int number);
  void ConsumeWork(int number);
  void ReceiveWork(int number);
  // Reads one Subscribe stream until it ends or this consumer leaves.
  void ReadStream(testing::Client& client, const std::string& queue, std::mt19937_64& random,
                  bool may_leave);
  // What the consumer does about one response; false when it wants to leave.
  void Handle(testing::Client& client, const std::string& queue,
              const std::vector<DeliveryRecord>& deliveries, std::mt19937_64& random);
  void Settle(testing::Client& client, const std::string& queue, Action action,
              const std::vector<DeliveryRecord>& deliveries);
  DeliveryRecord Record(const v1::Delivery& delivery, uint64_t stream, int generation);
  std::vector<PublishRecord> NewBatch(int number, const std::string& queue,
                                      std::mt19937_64& random);
  void Finish(std::vector<PublishRecord>& batch, Outcome outcome);
  // Keeps the backlog bounded.
  bool MayPublish() const;

  const std::string address_;
  const uint64_t seed_;
  Recorder* const recorder_;
  std::atomic<bool> publishing_{false};
  std::atomic<bool> consuming_{false};
  std::atomic<bool> good_{false};
  std::atomic<int> generation_{1};
  std::atomic<uint64_t> next_stream_{1};
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int64_t> published_{0};
  std::atomic<int64_t> settled_{0};
  std::atomic<int64_t> deliveries_{0};
  std::vector<std::thread> publishers_;
  std::vector<std::thread> consumers_;
};

}  // namespace sluice::crash

#endif  // SLUICE_TESTS_CRASH_WORKLOAD_H_
