#include "tests/bench/peers/driver.h"

#include <poll.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/atomic_bits.h"
#include "client/cli/bench/body.h"
#include "client/cli/bench/clock.h"
#include "client/cli/bench/schedule.h"

namespace sluice::peers {
namespace {

using cli::bench::AtomicBits;
using cli::bench::BodyMaker;
using cli::bench::LatencyHistogram;
using cli::bench::NowNs;
using cli::bench::RandomBytes;
using cli::bench::RateSchedule;
using cli::bench::ReadStamp;
using cli::bench::ShareOf;
using cli::bench::Stamp;

constexpr double kNanosPerSecond = 1e9;
constexpr int64_t kNanosPerMilli = 1'000'000;
constexpr int64_t kWarmUpPart = 10;
// A consumer looks this often whether all is done.
constexpr int64_t kLookNs = 20 * kNanosPerMilli;
// Nothing came for this long: messages were lost.
constexpr int64_t kPatienceNs = 60'000 * kNanosPerMilli;

// Everything of one phase; phases are numbered so that messages tell theirs.
class Phase {
 public:
  Phase(Peer& peer, const Work& work) : peer_(peer), work_(work) {
    static std::atomic<uint32_t> phases = 0;
    number_ = ++phases;
    queue_ = absl::StrCat("bench", number_);
    peer.MakeQueue(queue_);
    for (int i = 0; i < work.producers; ++i) seen_.push_back(std::make_unique<AtomicBits>());
  }

  struct Times {
    int64_t begin_ns = 0;
    int64_t end_ns = 0;  // the last was confirmed
  };
  // The clock starts when all are connected.
  Times Publish() {
    std::vector<std::unique_ptr<Producer>> producers;
    for (int i = 0; i < work_.producers; ++i) producers.push_back(peer_.NewProducer(queue_));
    Times times{.begin_ns = NowNs()};
    std::vector<std::thread> threads;
    for (int i = 0; i < work_.producers; ++i) {
      threads.emplace_back([&, i] { RunProducer(*producers[i], i, times.begin_ns); });
    }
    for (std::thread& thread : threads) thread.join();
    times.end_ns = NowNs();
    return times;
  }

  void StartConsumers() {
    moved_ns_ = NowNs();
    latencies_.resize(work_.consumers);
    for (int i = 0; i < work_.consumers; ++i) {
      consumers_.emplace_back([this, i] { RunConsumer(i); });
    }
    while (ready_ < work_.consumers) std::this_thread::yield();
  }
  // When the last was acked.
  int64_t JoinConsumers() {
    for (std::thread& thread : consumers_) thread.join();
    return acked_ns_;
  }

  cli::bench::LatencySummary Latency() {
    LatencyHistogram all;
    for (const LatencyHistogram& each : latencies_) all.Merge(each);
    return all.Summary();
  }

 private:
  void RunProducer(Producer& producer, int index, int64_t begin_ns) {
    prctl(PR_SET_TIMERSLACK, 1UL);  // the default of 50 µs would count as latency
    const auto size = static_cast<size_t>(work_.size);
    BodyMaker bodies(Random(size), size, index);
    std::optional<RateSchedule> schedule;
    if (work_.rate > 0) schedule.emplace(work_.rate, work_.producers, index);
    const int64_t count = ShareOf(work_.count, work_.producers, index);
    for (int64_t n = 0; n < count; ++n) {
      int64_t due_ns = NowNs();
      if (schedule) {
        due_ns = begin_ns + schedule->DueNs(n);
        while (NowNs() < due_ns) producer.Idle(due_ns);
      }
      producer.Send(bodies.Make({.run = 0,
                                  .phase = number_,
                                  .producer = static_cast<uint32_t>(index),
                                  .sequence = static_cast<uint64_t>(n),
                                  .due_ns = due_ns}));
    }
    producer.Finish();
  }

  void RunConsumer(int index) {
    const std::unique_ptr<Consumer> consumer = peer_.NewConsumer(queue_);
    ++ready_;
    int64_t some = 0;
    const Consumer::Handler handler = [&](absl::string_view body, bool redelivered) {
      if (!Take(body, redelivered)) return;
      latencies_[index].Record(NowNs() - ReadStamp(body)->due_ns);
      ++some;
    };
    while (acked_ < work_.count) {
      some = 0;
      consumer->Take(NowNs() + kLookNs, handler);
      if (some > 0) {
        moved_ns_ = NowNs();
        acked_ += some;
      } else if (NowNs() - moved_ns_ > kPatienceNs) {
        Die(absl::StrCat("only ", acked_.load(), " of ", work_.count, " messages came"));
      }
    }
    consumer->Finish();
    const int64_t now = NowNs();
    int64_t last = acked_ns_;
    while (now > last && !acked_ns_.compare_exchange_weak(last, now)) {
    }
  }

  // Whether it is new. Once more is allowed to a server that says so.
  bool Take(absl::string_view body, bool redelivered) {
    const std::optional<Stamp> stamp = ReadStamp(body);
    if (!stamp || stamp->phase != number_ || stamp->producer >= seen_.size()) {
      Die("a message that nobody published");
    }
    if (seen_[stamp->producer]->Set(stamp->sequence)) return true;
    if (!redelivered) Die("a message came twice");
    return false;
  }

  static std::shared_ptr<const RandomBytes> Random(size_t size) {
    static const auto random = std::make_shared<const RandomBytes>(size);
    return random;
  }

  Peer& peer_;
  const Work& work_;
  uint32_t number_;
  std::string queue_;
  std::vector<std::unique_ptr<AtomicBits>> seen_;
  std::vector<LatencyHistogram> latencies_;
  std::vector<std::thread> consumers_;
  std::atomic<int> ready_{0};
  std::atomic<int64_t> acked_{0};
  std::atomic<int64_t> acked_ns_{0};
  std::atomic<int64_t> moved_ns_{0};
};

Work WarmUpOf(Work work) {
  work.count = std::max<int64_t>(work.count / kWarmUpPart, 1);
  return work;
}

Result ResultOf(const Work& work, int64_t begin_ns, int64_t end_ns) {
  return {.messages = work.count,
          .seconds = static_cast<double>(end_ns - begin_ns) / kNanosPerSecond,
          .latency = {}};
}

Result PublishOnce(Peer& peer, const Work& work) {
  const Phase::Times times = Phase(peer, work).Publish();
  return ResultOf(work, times.begin_ns, times.end_ns);
}

Result DrainOnce(Peer& peer, const Work& work) {
  Phase phase(peer, work);
  phase.Publish();
  const int64_t begin_ns = NowNs();
  phase.StartConsumers();
  return ResultOf(work, begin_ns, phase.JoinConsumers());
}

Result FlowOnce(Peer& peer, const Work& work) {
  Phase phase(peer, work);
  phase.StartConsumers();
  const Phase::Times times = phase.Publish();
  Result result = ResultOf(work, times.begin_ns, std::max(phase.JoinConsumers(), times.end_ns));
  result.latency = phase.Latency();
  return result;
}

}  // namespace

void Die(absl::string_view what) {
  std::cerr << "peer_bench: " << what << std::endl;
  std::_Exit(1);
}

bool WaitReadable(int fd, int64_t until_ns) {
  const int64_t left_ns = until_ns - NowNs();
  if (left_ns <= 0) return false;
  pollfd poll{.fd = fd, .events = POLLIN, .revents = 0};
  const timespec timeout{.tv_sec = static_cast<time_t>(left_ns / 1'000'000'000),
                         .tv_nsec = static_cast<long>(left_ns % 1'000'000'000)};
  return ::ppoll(&poll, 1, &timeout, nullptr) > 0;
}

Result Publish(Peer& peer, const Work& work) {
  PublishOnce(peer, WarmUpOf(work));
  return PublishOnce(peer, work);
}

Result Drain(Peer& peer, const Work& work) {
  DrainOnce(peer, WarmUpOf(work));
  return DrainOnce(peer, work);
}

Result Flow(Peer& peer, const Work& work) {
  FlowOnce(peer, WarmUpOf(work));
  return FlowOnce(peer, work);
}

}  // namespace sluice::peers
