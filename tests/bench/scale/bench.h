// What every work of the scale benchmark needs: a server of its own, a table, checks.
#ifndef SLUICE_TESTS_BENCH_SCALE_BENCH_H_
#define SLUICE_TESTS_BENCH_SCALE_BENCH_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/consumer.h"
#include "sluice/v1/routing.pb.h"
#include "tests/bench/load/figures.h"
#include "tests/support/server_process.h"

namespace sluice::bench {

struct ScaleOptions {
  double scale = 1;  // multiplies every count; times shrink with it
  uint64_t seed = 1;

  int64_t Scaled(int64_t count) const {
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(count) * scale));
  }
  absl::Duration Scaled(absl::Duration least, absl::Duration full) const {
    return least + (full - least) * std::min(1.0, scale);
  }
};

// The works. Each starts its own server with default settings and prints one table.
void RunDelayed(const ScaleOptions& options);
void RunRetries(const ScaleOptions& options);
void RunGroups(const ScaleOptions& options);
void RunQueues(const ScaleOptions& options);
void RunFanOut(const ScaleOptions& options);

// Says so on stderr when it does not hold; the program then fails at its end.
void Check(bool holds, const std::string& what);
bool AllChecksHeld();
// Ends the process when it is an error.
void Require(const absl::Status& status, const std::string& what);

struct Row {
  std::string step = {};
  int64_t count = 0;                    // 0: none to tell
  absl::Duration took = absl::ZeroDuration();
  const Latencies* latencies = nullptr; // null: none to tell
};

// Its server and its client. Of one thread; the client may be used by any.
class Bench {
 public:
  explicit Bench(const std::string& title);

  testing::ServerProcess& server() { return server_; }
  client::Client& client() { return *client_; }
  const std::string& address() const { return server_.address(); }

  // Peak memory and processor time are those since the row before.
  void Print(const Row& row);
  // Rows for SIGTERM, the start after it, and the start after SIGKILL.
  void PrintRestarts();

  void CreateQueue(const std::string& name);
  void CreateExchange(const std::string& name, v1::ExchangeType type);
  void Bind(const std::string& exchange, const std::string& key, const std::string& queue);

 private:
  void Start();

  testing::ServerProcess server_;
  std::unique_ptr<client::Client> client_;
  absl::Duration cpu_told_ = absl::ZeroDuration();
};

// Bodies carry numbers: two of 8 bytes, then filling.
std::string MakeBody(int64_t first, int64_t second, size_t bytes);
// The numbers of a body that MakeBody made.
struct BodyNumbers {
  int64_t first = 0;
  int64_t second = 0;
};
BodyNumbers ReadBody(std::string_view body);

// Wall time, as the numbers of bodies carry it.
int64_t NowNs();

// Calls `call(i)` for i of [0, count) at a fixed pace, whatever each takes.
void Paced(int64_t count, double per_second, const std::function<void(int64_t)>& call);

// Publishes one message in one call.
void PublishOne(client::Client& client, const std::string& queue, v1::Message message);

// A consumer on a thread of its own. Stops and joins at the latest when it goes.
class Consuming {
 public:
  // The handler settles through the consumer that it is given.
  using Handler = std::function<void(client::Consumer&, const v1::Delivery&)>;
  Consuming(client::Client& client, client::ConsumerOptions options, Handler handler);
  ~Consuming();
  // Waits for Run's end: a limit of the options.
  void Join();
  void Stop();

 private:
  client::Consumer consumer_;
  std::thread thread_;
};

}  // namespace sluice::bench

#endif  // SLUICE_TESTS_BENCH_SCALE_BENCH_H_
