// A producer that makes unary Publish calls, several at a time on one connection.
#ifndef SLUICE_CLIENT_CLI_BENCH_UNARY_PRODUCER_H_
#define SLUICE_CLIENT_CLI_BENCH_UNARY_PRODUCER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "client/cli/bench/producer.h"

namespace sluice::cli::bench {

class Producers::UnaryProducer : public Producers::Producer {
 public:
  UnaryProducer(Run& run, const ProducersTarget& target, int index);
  ~UnaryProducer() override;

  void Publish(const Phase& phase, Pacer& pacer) override;

 private:
  struct Call;

  // An idle call, once there is one.
  Call* WaitForIdle();
  // Fills the call's request. False: the phase has ended and there is nothing to send.
  bool Fill(const Phase& phase, Pacer& pacer, Call* call);
  void Send(Call* call);
  // Takes answers as they come, whatever the producer waits for: its own thread.
  void TakeAnswers();

  const std::unique_ptr<client::Client> client_;
  grpc::CompletionQueue completions_;
  std::vector<std::unique_ptr<Call>> calls_;

  std::mutex mutex_;
  std::condition_variable taken_;
  std::vector<Call*> idle_;  // guarded by mutex_

  std::thread taker_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_UNARY_PRODUCER_H_
