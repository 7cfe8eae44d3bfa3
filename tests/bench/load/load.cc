#include "tests/bench/load/load.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/client.h"

namespace sluice::bench {
namespace {

using testing::Call;
using testing::Client;
using v1::QueueService;

// The API's limit for receipts of one ack.
constexpr int kReceiptsPerAckMax = 10'000;
constexpr absl::Duration kRunTimeout = absl::Hours(2);

void Require(const grpc::Status& status, const char* what) {
  if (status.ok()) return;
  std::cerr << what << ": " << status.error_code() << " " << status.error_message() << "\n";
  std::_Exit(1);
}

// Receipts on their way from the stream's thread to the acking one.
class Receipts {
 public:
  void Add(std::vector<std::string> receipts) {
    std::lock_guard lock(mutex_);
    waiting_.insert(waiting_.end(), std::make_move_iterator(receipts.begin()),
                    std::make_move_iterator(receipts.end()));
    added_.notify_one();
  }
  // All that wait, at least one.
  std::vector<std::string> Take() {
    std::unique_lock lock(mutex_);
    added_.wait(lock, [this] { return !waiting_.empty(); });
    return std::exchange(waiting_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable added_;
  std::vector<std::string> waiting_;
};

}  // namespace

void MakeQueue(const std::string& address, const std::string& queue) {
  Client client(address);
  v1::CreateQueueRequest request;
  request.mutable_config()->set_name(queue);
  v1::CreateQueueResponse response;
  Require(Call(client.admin, &v1::AdminService::Stub::CreateQueue, request, &response),
          "CreateQueue");
}

void PublishStreamed(const Load& load, int64_t window, int batch) {
  Client client(load.address);
  auto context = testing::NewContext(kRunTimeout);
  auto stream = client.queues->PublishStream(context.get());
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue(load.queue);
  stream->Write(request);

  std::mutex mutex;
  std::condition_variable moved;
  int64_t confirmed = 0;
  std::thread reader([&] {
    v1::PublishStreamResponse response;
    while (stream->Read(&response)) {
      if (response.has_refused()) {
        std::cerr << response.refused().ShortDebugString() << "\n";
        std::_Exit(1);
      }
      std::lock_guard lock(mutex);
      confirmed = std::max(confirmed, response.stored().through_sequence());
      moved.notify_one();
    }
  });
  request.clear_request();
  for (int i = 0; i < batch; ++i) {
    request.mutable_batch()->add_messages()->set_body(std::string(load.body_bytes, 'x'));
  }
  for (int64_t sent = 0; sent < load.messages;) {
    const int64_t some = std::min<int64_t>(batch, load.messages - sent);
    while (request.batch().messages_size() > some) {
      request.mutable_batch()->mutable_messages()->RemoveLast();
    }
    {
      std::unique_lock lock(mutex);
      moved.wait(lock, [&] { return sent + some - confirmed <= window; });
    }
    request.mutable_batch()->set_first_sequence(sent + 1);
    if (!stream->Write(request)) break;
    sent += some;
  }
  stream->WritesDone();
  reader.join();
  Require(stream->Finish(), "PublishStream");
  if (confirmed != load.messages) {
    std::cerr << "only " << confirmed << " confirmed\n";
    std::_Exit(1);
  }
}

void Drain(const Load& load, int credit, const std::function<void(int64_t)>& progress) {
  Client client(load.address);
  Client acking_client(load.address);
  Receipts receipts;
  std::thread acker([&] {
    for (int64_t acked = 0; acked < load.messages;) {
      std::vector<std::string> some = receipts.Take();
      for (size_t i = 0; i < some.size();) {
        v1::AckRequest request;
        request.set_queue(load.queue);
        while (i < some.size() && request.receipts_size() < kReceiptsPerAckMax) {
          request.add_receipts(std::move(some[i++]));
        }
        v1::AckResponse response;
        Require(Call(acking_client.queues, &QueueService::Stub::Ack, request, &response), "Ack");
        acked += response.acked();
        if (response.failures_size() > 0) {
          std::cerr << response.failures(0).ShortDebugString() << "\n";
          std::_Exit(1);
        }
      }
      if (progress) progress(acked);
    }
  });
  auto context = testing::NewContext(kRunTimeout);
  v1::SubscribeRequest request;
  request.set_queue(load.queue);
  request.set_max_in_flight(credit);
  request.set_max_bytes_in_flight(int64_t{64} << 20);
  auto stream = client.queues->Subscribe(context.get(), request);
  v1::SubscribeResponse response;
  int64_t received = 0;
  while (received < load.messages && stream->Read(&response)) {
    std::vector<std::string> some;
    some.reserve(response.deliveries_size());
    for (const v1::Delivery& delivery : response.deliveries()) some.push_back(delivery.receipt());
    received += response.deliveries_size();
    if (!some.empty()) receipts.Add(std::move(some));
  }
  if (received < load.messages) {
    context->TryCancel();
    Require(stream->Finish(), "Subscribe");
  }
  acker.join();
  context->TryCancel();
  while (stream->Read(&response)) {
  }
  stream->Finish();
}

}  // namespace sluice::bench
