// Loads another queue server with the work that `sluice bench` gives a Sluice server, and prints
// its figures as JSON with the same names. The server must run and be empty.
//
//   peer_bench --peer rabbitmq-quorum --port 5672 --work drain --count 100000
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "tests/bench/peers/driver.h"

ABSL_FLAG(std::string, peer, "", "rabbitmq-quorum, rabbitmq-classic, nats, redis or beanstalkd");
ABSL_FLAG(std::string, work, "", "publish, drain, flow or pace");
ABSL_FLAG(int, port, 0, "of the server, on 127.0.0.1");
ABSL_FLAG(int64_t, count, 100'000, "messages; of pace as --rate and --seconds say");
ABSL_FLAG(int64_t, size, 1024, "bytes of each body");
ABSL_FLAG(int, producers, 2, "producers");
ABSL_FLAG(int, consumers, 2, "consumers");
ABSL_FLAG(int64_t, window, 1000, "messages of each producer unconfirmed at a time");
ABSL_FLAG(double, rate, 2000, "messages per second of pace");
ABSL_FLAG(double, seconds, 60, "how long pace takes");

namespace sluice::peers {
namespace {

std::unique_ptr<Peer> NewPeer(const std::string& name, const Settings& settings) {
  if (name == "rabbitmq-quorum") return NewRabbitMq(settings, true);
  if (name == "rabbitmq-classic") return NewRabbitMq(settings, false);
  if (name == "nats") return NewNats(settings);
  if (name == "redis") return NewRedis(settings);
  if (name == "beanstalkd") return NewBeanstalkd(settings);
  Die("no such --peer: " + name);
}

Result Run(Peer& peer, const std::string& name, Work work) {
  if (name == "publish") return Publish(peer, work);
  if (name == "drain") return Drain(peer, work);
  if (name == "flow") return Flow(peer, work);
  if (name == "pace") {
    work.rate = absl::GetFlag(FLAGS_rate);
    work.count = static_cast<int64_t>(work.rate * absl::GetFlag(FLAGS_seconds));
    return Flow(peer, work);
  }
  Die("no such --work: " + name);
}

void Main() {
  const std::unique_ptr<Peer> peer =
      NewPeer(absl::GetFlag(FLAGS_peer),
              {.port = absl::GetFlag(FLAGS_port), .window = absl::GetFlag(FLAGS_window)});
  const Result result = Run(*peer, absl::GetFlag(FLAGS_work),
                            {.count = absl::GetFlag(FLAGS_count),
                             .size = absl::GetFlag(FLAGS_size),
                             .producers = absl::GetFlag(FLAGS_producers),
                             .consumers = absl::GetFlag(FLAGS_consumers)});
  const cli::bench::LatencySummary& latency = result.latency;
  std::cout << absl::StrFormat(
                   "{\"messages\":%d,\"seconds\":%.3f,\"messages_per_second\":%.1f,"
                   "\"latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}",
                   result.messages, result.seconds,
                   static_cast<double>(result.messages) / result.seconds, latency.p50, latency.p99,
                   latency.p999, latency.max)
            << std::endl;
}

}  // namespace
}  // namespace sluice::peers

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  sluice::peers::Main();
  return 0;
}
