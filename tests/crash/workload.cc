#include "tests/crash/workload.h"

#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace sluice::crash {
namespace {

using testing::Call;
using testing::Client;
using v1::AdminService;
using v1::QueueService;

constexpr absl::Duration kCallTimeout = absl::Seconds(5);
// A client waits this long before it tries again; short, so that it meets the server's first moments.
constexpr absl::Duration kRetryPause = absl::Milliseconds(10);
// Backlog at which publishers wait: enough that every kill meets work in all states, little enough
// that the history of a run stays small.
constexpr int64_t kBacklogMax = 3000;
constexpr int kBatchMax = 20;
constexpr int kStreamWindow = 10;  // batches
constexpr absl::Duration kLease = absl::Seconds(1);

Outcome OutcomeOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return Outcome::kOk;
    case grpc::StatusCode::UNAVAILABLE:
      return testing::DetailsOf(status).reason == "DRAINING" ? Outcome::kRefused : Outcome::kMaybe;
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
      return Outcome::kMaybe;
    default:
      return Outcome::kRefused;
  }
}

// The id, then filler that follows from it, so that a garbled body shows.
std::string BodyOf(const std::string& id) {
  const size_t hash = std::hash<std::string>()(id);
  return absl::StrCat(id, "|", std::string(hash % 300, static_cast<char>('a' + hash % 26)));
}

int64_t WallMs() { return absl::ToUnixMillis(absl::Now()); }

}  // namespace

Workload::Workload(std::string address, uint64_t seed, Recorder* recorder)
    : address_(std::move(address)), seed_(seed), recorder_(recorder) {
  recorder_->AddFifoQueue(kFifoQueue);
}

Workload::~Workload() {
  StopPublishers();
  StopConsumers();
}

absl::Status Workload::Setup() {
  Client client(address_);
  for (const char* name : {kFifoQueue, kWorkQueue}) {
    v1::CreateQueueRequest request;
    request.mutable_config()->set_name(name);
    *request.mutable_config()->mutable_lease() = testing::ToProto(kLease);
    v1::RetryPolicy& retry = *request.mutable_config()->mutable_retry();
    *retry.mutable_min_backoff() = testing::ToProto(absl::ZeroDuration());
    *retry.mutable_max_backoff() = testing::ToProto(absl::ZeroDuration());
    v1::CreateQueueResponse response;
    grpc::Status status =
        Call(client.admin, &AdminService::Stub::CreateQueue, request, &response);
    if (!status.ok()) return absl::InternalError(status.error_message());
  }
  return absl::OkStatus();
}

void Workload::Provoke() {
  Client client(address_);
  v1::CreateQueueRequest request;
  request.mutable_config()->set_name(absl::StrCat("provoked-", next_id_.fetch_add(1)));
  v1::CreateQueueResponse response;
  Call(client.admin, &AdminService::Stub::CreateQueue, request, &response, kCallTimeout);
}

void Workload::StartPublishers() {
  publishing_ = true;
  publishers_.emplace_back([this] { PublishUnary(1); });
  publishers_.emplace_back([this] { PublishUnary(2); });
  publishers_.emplace_back([this] { PublishStreamed(3); });
}

void Workload::StartConsumers() {
  consuming_ = true;
  consumers_.emplace_back([this] { ConsumeFifo(11); });
  consumers_.emplace_back([this] { ConsumeWork(12); });
  consumers_.emplace_back([this] { ConsumeWork(13); });
  consumers_.emplace_back([this] { ReceiveWork(14); });
}

void Workload::StopPublishers() {
  publishing_ = false;
  for (std::thread& thread : publishers_) thread.join();
  publishers_.clear();
}

void Workload::StopConsumers() {
  consuming_ = false;
  for (std::thread& thread : consumers_) thread.join();
  consumers_.clear();
}

absl::StatusOr<int64_t> Workload::Depth(const std::string& queue) {
  Client client(address_);
  v1::GetQueueRequest request;
  request.set_queue(queue);
  v1::GetQueueResponse response;
  grpc::Status status = Call(client.admin, &AdminService::Stub::GetQueue, request, &response);
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  const v1::QueueStats& stats = response.queue().stats();
  return stats.ready() + stats.leased() + stats.delayed() + stats.blocked();
}

bool Workload::MayPublish() const { return published_ - settled_ < kBacklogMax; }

std::vector<PublishRecord> Workload::NewBatch(int number, const std::string& queue,
                                              std::mt19937_64& random) {
  std::vector<PublishRecord> batch(1 + random() % kBatchMax);
  const Tick begin = recorder_->Now();
  int index = 0;
  for (PublishRecord& record : batch) {
    record.id = absl::StrCat("p", number, "-", next_id_.fetch_add(1));
    record.queue = queue;
    record.begin = begin;
    record.index = index++;
  }
  return batch;
}

void Workload::Finish(std::vector<PublishRecord>& batch, Outcome outcome) {
  const Tick end = recorder_->Now();
  for (PublishRecord& record : batch) {
    record.end = end;
    record.outcome = outcome;
    if (outcome == Outcome::kOk) ++published_;
    recorder_->Add(std::move(record));
  }
}

void Workload::PublishUnary(int number) {
  std::mt19937_64 random(seed_ * 1000 + number);
  Client client(address_);
  while (publishing_) {
    if (!MayPublish()) {
      absl::SleepFor(kRetryPause);
      continue;
    }
    v1::PublishRequest request;
    request.set_queue(random() % 2 == 0 ? kFifoQueue : kWorkQueue);
    // One in twenty is refused: its good messages must then not appear either.
    const bool bad = random() % 20 == 0;
    std::vector<PublishRecord> batch = NewBatch(number, request.queue(), random);
    for (const PublishRecord& record : batch) request.add_messages()->set_body(BodyOf(record.id));
    if (bad) request.add_messages()->set_routing_key(std::string(256, 'x'));
    v1::PublishResponse response;
    const grpc::Status status =
        Call(client.queues, &QueueService::Stub::Publish, request, &response, kCallTimeout);
    Finish(batch, OutcomeOf(status));
    if (!status.ok() && !bad) absl::SleepFor(kRetryPause);
  }
}

void Workload::PublishStreamed(int number) {
  std::mt19937_64 random(seed_ * 1000 + number);
  Client client(address_);
  while (publishing_) {
    // One stream: a window of batches under way, confirmed from the front.
    auto context = testing::NewContext(absl::Minutes(2));
    auto stream = client.queues->PublishStream(context.get());
    v1::PublishStreamRequest request;
    const std::string queue = random() % 2 == 0 ? kFifoQueue : kWorkQueue;
    request.mutable_init()->set_queue(queue);
    v1::PublishStreamResponse response;
    bool open = stream->Write(request) && stream->Read(&response);
    int64_t next = 1;
    std::deque<std::pair<int64_t, std::vector<PublishRecord>>> window;  // by last sequence
    while (open && (publishing_ || !window.empty())) {
      if (publishing_ && window.size() < kStreamWindow && MayPublish()) {
        std::vector<PublishRecord> batch = NewBatch(number, queue, random);
        v1::PublishStreamRequest batch_request;
        batch_request.mutable_batch()->set_first_sequence(next);
        for (const PublishRecord& record : batch) {
          batch_request.mutable_batch()->add_messages()->set_body(BodyOf(record.id));
        }
        next += static_cast<int64_t>(batch.size());
        open = stream->Write(batch_request);
        window.emplace_back(next - 1, std::move(batch));
      } else if (window.empty()) {
        absl::SleepFor(kRetryPause);
      } else if ((open = stream->Read(&response))) {
        while (!window.empty() && window.front().first <= response.stored().through_sequence()) {
          Finish(window.front().second, Outcome::kOk);
          window.pop_front();
        }
      }
    }
    for (auto& [last, batch] : window) Finish(batch, Outcome::kMaybe);
    context->TryCancel();
    stream->Finish();
    if (publishing_) absl::SleepFor(kRetryPause);
  }
}

void Workload::ConsumeFifo(int number) {
  std::mt19937_64 random(seed_ * 1000 + number);
  Client client(address_);
  while (consuming_) {
    ReadStream(client, kFifoQueue, random, /*may_leave=*/false);
    absl::SleepFor(kRetryPause);
  }
}

void Workload::ConsumeWork(int number) {
  std::mt19937_64 random(seed_ * 1000 + number);
  Client client(address_);
  while (consuming_) {
    ReadStream(client, kWorkQueue, random, /*may_leave=*/true);
    absl::SleepFor(kRetryPause);
  }
}

void Workload::ReadStream(Client& client, const std::string& queue, std::mt19937_64& random,
                          bool may_leave) {
  const uint64_t id = next_stream_.fetch_add(1);
  auto context = testing::NewContext(absl::Minutes(10));
  v1::SubscribeRequest request;
  request.set_queue(queue);
  request.set_consumer(absl::StrCat("stream-", id));
  request.set_max_in_flight(1 + static_cast<int>(random() % 200));
  // Ends by itself when there is nothing left, so that a stop is noticed without a cancel.
  *request.mutable_idle_timeout() = testing::ToProto(absl::Milliseconds(500));
  const int generation = generation_;
  auto reader = client.queues->Subscribe(context.get(), request);
  v1::SubscribeResponse response;
  while (reader->Read(&response)) {
    // A stream lives in one run of the server only, and the number rises between two runs. If it
    // did so while this stream opened, nobody knows which run it is of: leave it unseen.
    if (response.has_started() && generation_ != generation) {
      recorder_->Add(CloseRecord{id, recorder_->Now()});
      context->TryCancel();
      reader->Finish();
      return;
    }
    std::vector<DeliveryRecord> deliveries;
    for (const v1::Delivery& delivery : response.deliveries()) {
      deliveries.push_back(Record(delivery, id, generation));
    }
    Handle(client, queue, deliveries, random);
    const bool leave = may_leave && !good_ && random() % 200 == 0;
    if (leave || !consuming_) {
      recorder_->Add(CloseRecord{id, recorder_->Now()});
      context->TryCancel();
      break;
    }
  }
  while (reader->Read(&response)) {
    for (const v1::Delivery& delivery : response.deliveries()) Record(delivery, id, generation);
  }
  reader->Finish();
}

void Workload::ReceiveWork(int number) {
  std::mt19937_64 random(seed_ * 1000 + number);
  Client client(address_);
  while (consuming_) {
    v1::ReceiveRequest request;
    request.set_queue(kWorkQueue);
    request.set_max_messages(1 + static_cast<int>(random() % 50));
    *request.mutable_wait() = testing::ToProto(absl::Milliseconds(200));
    v1::ReceiveResponse response;
    const uint64_t id = next_stream_.fetch_add(1);
    const int generation = generation_;
    const grpc::Status status =
        Call(client.queues, &QueueService::Stub::Receive, request, &response, kCallTimeout);
    // As in ReadStream: an answer over a change of runs stays unseen, and its leases expire.
    if (!status.ok() || generation_ != generation) {
      absl::SleepFor(kRetryPause);
      continue;
    }
    std::vector<DeliveryRecord> deliveries;
    for (const v1::Delivery& delivery : response.deliveries()) {
      deliveries.push_back(Record(delivery, id, generation));
    }
    Handle(client, kWorkQueue, deliveries, random);
  }
}

DeliveryRecord Workload::Record(const v1::Delivery& delivery, uint64_t stream, int generation) {
  DeliveryRecord record;
  const std::string& body = delivery.message().body();
  record.id = body.substr(0, body.find('|'));
  record.body_intact = body == BodyOf(record.id);
  record.queue = delivery.queue();
  record.receipt = delivery.receipt();
  record.message_id = delivery.message().id();
  record.stream = stream;
  record.generation = generation;
  record.attempt = delivery.attempt();
  record.delivery_count = delivery.delivery_count();
  record.maybe_redelivered = delivery.maybe_redelivered();
  record.at = recorder_->Now();
  record.at_wall_ms = WallMs();
  record.lease_until_wall_ms = absl::ToUnixMillis(testing::FromProto(delivery.lease_expires_at()));
  recorder_->Add(record);
  ++deliveries_;
  return record;
}

void Workload::Handle(Client& client, const std::string& queue,
                      const std::vector<DeliveryRecord>& deliveries, std::mt19937_64& random) {
  std::vector<DeliveryRecord> ack;
  std::vector<DeliveryRecord> retry;
  std::vector<DeliveryRecord> release;
  std::vector<DeliveryRecord> discard;
  std::vector<DeliveryRecord> extend;
  for (const DeliveryRecord& delivery : deliveries) {
    const uint64_t dice = good_ ? 0 : random() % 100;
    if (dice < 84) {
      ack.push_back(delivery);
    } else if (dice < 88) {
      retry.push_back(delivery);
    } else if (dice < 92) {
      release.push_back(delivery);
    } else if (dice < 94) {
      discard.push_back(delivery);
    } else if (dice < 97) {
      extend.push_back(delivery);  // and acked later, or left to expire
      if (dice < 96) ack.push_back(delivery);
    }  // else: forgotten, its lease expires
  }
  Settle(client, queue, Action::kExtend, extend);
  Settle(client, queue, Action::kRetry, retry);
  Settle(client, queue, Action::kRelease, release);
  Settle(client, queue, Action::kDiscard, discard);
  Settle(client, queue, Action::kAck, ack);
  // Impatient clients repeat themselves; that must stay without effect.
  if (!ack.empty() && random() % 10 == 0) Settle(client, queue, Action::kAck, ack);
}

void Workload::Settle(Client& client, const std::string& queue, Action action,
                      const std::vector<DeliveryRecord>& deliveries) {
  if (deliveries.empty()) return;
  const Tick begin = recorder_->Now();
  grpc::Status status;
  google::protobuf::RepeatedPtrField<v1::ItemFailure> failures;
  int64_t lease_until_wall_ms = 0;
  if (action == Action::kAck) {
    v1::AckRequest request;
    request.set_queue(queue);
    for (const DeliveryRecord& d : deliveries) request.add_receipts(d.receipt);
    v1::AckResponse response;
    status = Call(client.queues, &QueueService::Stub::Ack, request, &response, kCallTimeout);
    failures = response.failures();
  } else if (action == Action::kExtend) {
    v1::ExtendLeaseRequest request;
    request.set_queue(queue);
    *request.mutable_lease() = testing::ToProto(2 * kLease);
    for (const DeliveryRecord& d : deliveries) request.add_receipts(d.receipt);
    v1::ExtendLeaseResponse response;
    status =
        Call(client.queues, &QueueService::Stub::ExtendLease, request, &response, kCallTimeout);
    failures = response.failures();
    lease_until_wall_ms = absl::ToUnixMillis(testing::FromProto(response.lease_expires_at()));
  } else {
    v1::NackRequest request;
    request.set_queue(queue);
    for (const DeliveryRecord& d : deliveries) {
      v1::NackItem& item = *request.add_items();
      item.set_receipt(d.receipt);
      item.set_action(action == Action::kRetry     ? v1::NACK_ACTION_RETRY
                      : action == Action::kRelease ? v1::NACK_ACTION_RELEASE
                                                   : v1::NACK_ACTION_DISCARD);
    }
    v1::NackResponse response;
    status = Call(client.queues, &QueueService::Stub::Nack, request, &response, kCallTimeout);
    failures = response.failures();
  }
  const Tick end = recorder_->Now();
  std::vector<Outcome> outcomes(deliveries.size(), OutcomeOf(status));
  for (const v1::ItemFailure& failure : failures) outcomes[failure.index()] = Outcome::kRefused;
  for (size_t i = 0; i < deliveries.size(); ++i) {
    // Also what may have happened: else every end of a server would leave less to publish, until
    // nothing is under way any more.
    if (outcomes[i] != Outcome::kRefused &&
        (action == Action::kAck || action == Action::kDiscard)) {
      ++settled_;
    }
    recorder_->Add(SettleRecord{deliveries[i].id, deliveries[i].receipt, action, begin, end,
                                outcomes[i], lease_until_wall_ms});
  }
}

}  // namespace sluice::crash
