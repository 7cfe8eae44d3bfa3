// A producer that streams, as client::Publisher does it.
#ifndef SLUICE_CLIENT_CLI_BENCH_STREAM_PRODUCER_H_
#define SLUICE_CLIENT_CLI_BENCH_STREAM_PRODUCER_H_

#include <memory>
#include <random>

#include "client/cli/bench/producer.h"
#include "client/cpp/publisher.h"

namespace sluice::cli::bench {

class Producers::StreamProducer : public Producers::Producer {
 public:
  StreamProducer(Run& run, const ProducersTarget& target, int index);
  ~StreamProducer() override;

  void Publish(const Phase& phase, Pacer& pacer) override;

 private:
  const std::unique_ptr<client::Client> client_;
  std::minstd_rand random_;
  client::Publisher publisher_;  // its threads use what is above
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_STREAM_PRODUCER_H_
