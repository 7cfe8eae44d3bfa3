#include "client/cli/bench/producers.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "client/cli/bench/clock.h"
#include "client/cli/bench/stream_producer.h"
#include "client/cli/bench/unary_producer.h"

namespace sluice::cli::bench {
namespace {

constexpr double kNanosPerSecond = 1e9;

}  // namespace

double Published::seconds() const {
  return static_cast<double>(ended_ns - begun_ns) / kNanosPerSecond;
}

Row Published::AsRow(const std::string& work) const {
  return {.work = work,
          .messages = messages,
          .seconds = seconds(),
          .latency_of = "publish to confirm",
          .latency = latency.Summary()};
}

Producers::Producers(Run& run, ProducersTarget target) : run_(run), target_(std::move(target)) {
  for (int i = 0; i < run.options().producers; ++i) {
    if (run.options().unary) {
      producers_.push_back(std::make_unique<UnaryProducer>(run, target_, i));
    } else {
      producers_.push_back(std::make_unique<StreamProducer>(run, target_, i));
    }
  }
}

Producers::~Producers() = default;

Published Producers::Publish(const Phase& phase) {
  Published published;
  published.begun_ns = NowNs();
  published.ended_ns = published.begun_ns;
  std::vector<std::thread> threads;
  for (int i = 0; i < count(); ++i) {
    producers_[i]->Reset();
    threads.emplace_back([&, i] {
      Pacer pacer(run_, phase, count(), i, published.begun_ns);
      producers_[i]->Publish(phase, pacer);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& producer : producers_) {
    // A stopped run may leave publishes open, whose callbacks still come: the counts are safe to
    // read, the rest is not, and nobody asks for it.
    published.messages += producer->confirmed();
    if (run_.stopping()) continue;
    published.ended_ns = std::max(published.ended_ns, producer->last_confirmed_ns());
    published.latency.Merge(producer->latency());
  }
  if (run_.stopping()) published.ended_ns = NowNs();
  confirmed_ += published.messages;
  return published;
}

}  // namespace sluice::cli::bench
