#include "client/cli/bench/queues.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"

namespace sluice::cli::bench {
namespace {

using Admin = v1::AdminService::StubInterface;

// Made by one call: well within the size of a request, and done well within its deadline.
constexpr int kQueuesPerCall = 500;
// Each waits for a sync; the server commits together what comes at the same time.
constexpr size_t kDeletesInFlight = 32;
// A thousand syncs on a slow disk.
constexpr absl::Duration kApplyTimeout = absl::Seconds(60);
constexpr int kPageSize = 1000;

std::string RandomName() {
  return absl::StrCat("bench.", absl::Hex(std::random_device{}(), absl::kZeroPad8));
}

}  // namespace

Queues::Queues(client::Client& client, const std::string& name, bool keep)
    : client_(client), name_(name.empty() ? RandomName() : name), keep_(keep) {}

Queues::~Queues() { DeleteAll().IgnoreError(); }

absl::StatusOr<std::string> Queues::Make(const std::string& suffix) {
  v1::CreateQueueRequest request;
  std::string name = suffix.empty() ? name_ : absl::StrCat(name_, ".", suffix);
  request.mutable_config()->set_name(name);
  const auto response = client_.Call(&Admin::CreateQueue, request);
  // What may have happened all the same must not stay.
  if (client::MaybeHappened(response.status())) made_.push_back(name);
  if (!response.ok()) return response.status();
  if (!response->created()) {
    return absl::AlreadyExistsError(
        absl::StrCat("there is a queue ", name, " already; bench only uses queues of its own"));
  }
  made_.push_back(name);
  return name;
}

absl::StatusOr<Queues::Routed> Queues::MakeRouted(int count) {
  v1::CreateExchangeRequest exchange;
  exchange.mutable_exchange()->set_name(name_);
  exchange.mutable_exchange()->set_type(v1::EXCHANGE_TYPE_DIRECT);
  const auto created = client_.Call(&Admin::CreateExchange, exchange);
  if (!created.ok()) return created.status();
  exchange_ = name_;
  Routed routed;
  routed.exchange = name_;
  while (static_cast<int>(routed.queues.size()) < count) {
    v1::ApplyDefinitionsRequest request;
    v1::Definitions& definitions = *request.mutable_definitions();
    const int made = static_cast<int>(routed.queues.size());
    for (int i = made; i < std::min(count, made + kQueuesPerCall); ++i) {
      routed.queues.push_back(absl::StrCat(name_, ".", i));
      definitions.add_queues()->set_name(routed.queues.back());
      v1::Binding& binding = *definitions.add_bindings();
      binding.set_exchange(name_);
      binding.set_queue(routed.queues.back());
      binding.set_binding_key(routed.queues.back());
    }
    made_.insert(made_.end(), routed.queues.begin() + made, routed.queues.end());
    const auto applied = client_.Call(&Admin::ApplyDefinitions, request, kApplyTimeout);
    if (!applied.ok()) return applied.status();
  }
  return routed;
}

absl::StatusOr<int64_t> Queues::CountMessages() {
  v1::ListQueuesRequest request;
  request.set_name_glob(absl::StrCat(name_, "*"));
  request.set_page_size(kPageSize);
  int64_t messages = 0;
  do {
    const auto response = client_.Call(&Admin::ListQueues, request);
    if (!response.ok()) return response.status();
    for (const v1::Queue& queue : response->queues()) {
      const v1::QueueStats& stats = queue.stats();
      messages += stats.ready() + stats.leased() + stats.delayed() + stats.blocked();
    }
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return messages;
}

absl::Status Queues::DeleteAll() {
  if (keep_) return absl::OkStatus();
  absl::Status status;
  if (!exchange_.empty()) {
    v1::DeleteExchangeRequest request;
    request.set_exchange(exchange_);
    status.Update(client_.Call(&Admin::DeleteExchange, request).status());
    exchange_.clear();
  }
  status.Update(DeleteQueues());
  return status;
}

absl::Status Queues::DeleteQueues() {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  absl::Status status;
  const auto remove = [&] {
    for (size_t i = next++; i < made_.size(); i = next++) {
      v1::DeleteQueueRequest request;
      request.set_queue(made_[i]);
      const absl::Status deleted = client_.Call(&Admin::DeleteQueue, request).status();
      if (deleted.ok() || absl::IsNotFound(deleted)) continue;
      std::lock_guard lock(mutex);
      status.Update(deleted);
    }
  };
  std::vector<std::thread> threads;
  const size_t others = std::min(made_.size(), kDeletesInFlight);
  for (size_t i = 1; i < others; ++i) threads.emplace_back(remove);
  remove();
  for (std::thread& thread : threads) thread.join();
  made_.clear();
  return status;
}

}  // namespace sluice::cli::bench
