// What the driver wants of another queue server: queues, producers with a window, consumers that
// ack all they take.
//
// A failed call ends the process: a benchmark that lost messages has no figures.
#ifndef SLUICE_TESTS_BENCH_PEERS_PEER_H_
#define SLUICE_TESTS_BENCH_PEERS_PEER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice::peers {

struct Settings {
  std::string host = "127.0.0.1";
  int port = 0;
  int64_t window = 1000;  // unconfirmed, of each producer
  int prefetch = 1000;    // unacked, of each consumer, where the protocol has that
};

// Used by one thread, with a connection of its own.
class Producer {
 public:
  virtual ~Producer() = default;
  // Takes the message; may wait for confirms, and may hold it back until the window is full or one
  // of the other calls comes.
  virtual void Send(absl::string_view body) = 0;
  // Nothing comes until then (steady nanoseconds): sends what is held back, takes confirms.
  virtual void Idle(int64_t until_ns) = 0;
  // Waits until all is confirmed.
  virtual void Finish() = 0;
};

// Used by one thread, with a connection of its own.
class Consumer {
 public:
  // `redelivered`: the server says that this message may have been handed out before.
  using Handler = std::function<void(absl::string_view body, bool redelivered)>;

  virtual ~Consumer() = default;
  // Waits for messages until then; hands over each and acks it. Returns after some came.
  virtual void Take(int64_t until_ns, const Handler& handler) = 0;
  // Waits until the server has every ack, as far as its protocol can tell.
  virtual void Finish() = 0;
};

class Peer {
 public:
  virtual ~Peer() = default;
  // A new, durable queue. Each phase has its own: a server may take in the last acks of the phase
  // before it after all.
  virtual void MakeQueue(const std::string& queue) = 0;
  virtual std::unique_ptr<Producer> NewProducer(const std::string& queue) = 0;
  virtual std::unique_ptr<Consumer> NewConsumer(const std::string& queue) = 0;
};

std::unique_ptr<Peer> NewRabbitMq(const Settings& settings, bool quorum);
std::unique_ptr<Peer> NewNats(const Settings& settings);
std::unique_ptr<Peer> NewRedis(const Settings& settings);
std::unique_ptr<Peer> NewBeanstalkd(const Settings& settings);

[[noreturn]] void Die(absl::string_view what);

// Waits until the socket can be read, or until then. False: the time came first.
bool WaitReadable(int fd, int64_t until_ns);

}  // namespace sluice::peers

#endif  // SLUICE_TESTS_BENCH_PEERS_PEER_H_
