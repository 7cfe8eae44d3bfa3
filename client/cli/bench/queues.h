// The queues of a benchmark: made for it, gone after it.
#ifndef SLUICE_CLIENT_CLI_BENCH_QUEUES_H_
#define SLUICE_CLIENT_CLI_BENCH_QUEUES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client.h"

namespace sluice::cli::bench {

// Makes queues that did not exist and deletes these and no others. One thread.
class Queues {
 public:
  // Names begin with `name`, or with bench. and a random number if it is empty. `keep`: they stay.
  Queues(client::Client& client, const std::string& name, bool keep);
  // Deletes what DeleteAll did not.
  ~Queues();
  Queues(const Queues&) = delete;
  Queues& operator=(const Queues&) = delete;

  // Makes the queue "NAME" or "NAME.suffix". ALREADY_EXISTS if there is one.
  absl::StatusOr<std::string> Make(const std::string& suffix = "");

  // Makes queues "NAME.0" and on, and a direct exchange "NAME" that leads to each by its name.
  struct Routed {
    std::string exchange;
    std::vector<std::string> queues;
  };
  absl::StatusOr<Routed> MakeRouted(int count);

  // Messages in all queues made.
  absl::StatusOr<int64_t> CountMessages();

  // Deletes everything made, unless it is to stay. The first error; the rest is tried all the same.
  absl::Status DeleteAll();

  const std::string& name() const { return name_; }

 private:
  absl::Status DeleteQueues();

  client::Client& client_;
  const std::string name_;
  const bool keep_;
  std::vector<std::string> made_;
  std::string exchange_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_QUEUES_H_
