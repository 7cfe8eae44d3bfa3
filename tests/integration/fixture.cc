#include "tests/integration/fixture.h"

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace sluice::testing {

void ServerTest::SetUp() { StartServer(); }

void ServerTest::TearDown() {
  if (HasFailure()) std::cerr << "--- log of the server ---\n" << server_.Log() << "---\n";
}

void ServerTest::StartServer() {
  const absl::Status status = server_.Start();
  ASSERT_TRUE(status.ok()) << status;
  client_ = std::make_unique<Client>(server_.address());
  // A connection that takes longer than the short backoff would fail the first call of a test.
  ASSERT_TRUE(client_->channel->WaitForConnected(
      absl::ToChronoTime(absl::Now() + ServerProcess::kStartTimeout)));
}

void ServerTest::KillAndRestart() {
  server_.Kill();
  StartServer();
}

void ServerTest::TerminateAndRestart() {
  const absl::StatusOr<int> code = server_.Terminate();
  ASSERT_TRUE(code.ok()) << code.status();
  ASSERT_EQ(*code, 0);
  StartServer();
}

void ServerTest::MakeQueue(const std::string& name, absl::Duration lease) {
  v1::CreateQueueRequest request;
  v1::QueueConfig& config = *request.mutable_config();
  config.set_name(name);
  *config.mutable_retry()->mutable_min_backoff() = ToProto(absl::ZeroDuration());
  *config.mutable_retry()->mutable_max_backoff() = ToProto(absl::ZeroDuration());
  if (lease > absl::ZeroDuration()) *config.mutable_lease() = ToProto(lease);
  v1::CreateQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::CreateQueue, request, &response), IsOk());
}

std::vector<std::string> ServerTest::Publish(const std::string& queue,
                                             const std::vector<std::string>& bodies) {
  v1::PublishRequest request;
  request.set_queue(queue);
  for (const std::string& body : bodies) request.add_messages()->set_body(body);
  v1::PublishResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  EXPECT_EQ(response.results_size(), static_cast<int>(bodies.size()));
  std::vector<std::string> ids;
  for (const v1::PublishResult& result : response.results()) ids.push_back(result.message_id());
  return ids;
}

grpc::Status ServerTest::TryPublish(const v1::PublishRequest& request) {
  v1::PublishResponse response;
  return CallQueues(&QueueService::Stub::Publish, request, &response);
}

std::vector<v1::Delivery> ServerTest::Receive(const std::string& queue, int count,
                                              absl::Duration wait, absl::Duration lease) {
  v1::ReceiveRequest request;
  request.set_queue(queue);
  request.set_max_messages(count);
  *request.mutable_wait() = ToProto(wait);
  if (lease > absl::ZeroDuration()) *request.mutable_lease() = ToProto(lease);
  v1::ReceiveResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response), IsOk());
  return {response.deliveries().begin(), response.deliveries().end()};
}

std::vector<v1::Delivery> ServerTest::ReceiveAll(const std::string& queue, size_t count,
                                                 absl::Duration lease) {
  std::vector<v1::Delivery> all;
  while (all.size() < count) {
    std::vector<v1::Delivery> some =
        Receive(queue, static_cast<int>(count - all.size()), absl::Seconds(5), lease);
    if (some.empty()) break;  // the caller's expectation on the size then fails
    all.insert(all.end(), some.begin(), some.end());
  }
  EXPECT_EQ(all.size(), count);
  all.resize(count);
  return all;
}

v1::AckResponse ServerTest::Ack(const std::string& queue,
                                const std::vector<std::string>& receipts) {
  v1::AckRequest request;
  request.set_queue(queue);
  for (const std::string& receipt : receipts) request.add_receipts(receipt);
  v1::AckResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Ack, request, &response), IsOk());
  return response;
}

v1::NackResponse ServerTest::Nack(const std::string& queue, const std::string& receipt,
                                  v1::NackAction action, absl::Duration delay) {
  v1::NackRequest request;
  request.set_queue(queue);
  v1::NackItem& item = *request.add_items();
  item.set_receipt(receipt);
  item.set_action(action);
  if (delay > absl::ZeroDuration()) *item.mutable_delay() = ToProto(delay);
  v1::NackResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());
  return response;
}

v1::ExtendLeaseResponse ServerTest::Extend(const std::string& queue, const std::string& receipt,
                                           absl::Duration lease) {
  v1::ExtendLeaseRequest request;
  request.set_queue(queue);
  request.add_receipts(receipt);
  *request.mutable_lease() = ToProto(lease);
  v1::ExtendLeaseResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::ExtendLease, request, &response), IsOk());
  return response;
}

v1::QueueStats ServerTest::Stats(const std::string& queue) {
  v1::GetQueueRequest request;
  request.set_queue(queue);
  v1::GetQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetQueue, request, &response), IsOk());
  return response.queue().stats();
}

Subscription::Subscription(Client& client, const v1::SubscribeRequest& request)
    : context_(NewContext()), reader_(client.queues->Subscribe(context_.get(), request)) {
  v1::SubscribeResponse response;
  if (!reader_->Read(&response)) return;
  EXPECT_TRUE(response.has_started()) << "the first response says what was granted";
  started_ = response.started();
  deliveries_.assign(response.deliveries().begin(), response.deliveries().end());
}

Subscription::~Subscription() {
  context_->TryCancel();
  if (!finished_) Finish();
}

bool Subscription::ReadOne() {
  v1::SubscribeResponse response;
  if (finished_ || !reader_->Read(&response)) return false;
  EXPECT_FALSE(response.has_started()) << "only in the first response";
  deliveries_.insert(deliveries_.end(), response.deliveries().begin(),
                     response.deliveries().end());
  if (response.has_lease_lost()) lost_.push_back(response.lease_lost());
  return true;
}

std::optional<v1::Delivery> Subscription::Next() {
  while (deliveries_.empty()) {
    if (!ReadOne()) return std::nullopt;
  }
  v1::Delivery delivery = deliveries_.front();
  deliveries_.erase(deliveries_.begin());
  return delivery;
}

std::vector<v1::Delivery> Subscription::Next(size_t count) {
  std::vector<v1::Delivery> result;
  while (result.size() < count) {
    std::optional<v1::Delivery> delivery = Next();
    if (!delivery) break;
    result.push_back(*std::move(delivery));
  }
  EXPECT_EQ(result.size(), count);
  result.resize(count);
  return result;
}

std::optional<v1::LeaseLost> Subscription::NextLeaseLost() {
  while (lost_.empty()) {
    if (!ReadOne()) return std::nullopt;
  }
  v1::LeaseLost lost = lost_.front();
  lost_.erase(lost_.begin());
  return lost;
}

grpc::Status Subscription::Finish() {
  while (ReadOne()) {
  }
  finished_ = true;
  return reader_->Finish();
}

v1::SubscribeRequest SubscribeTo(const std::string& queue) {
  v1::SubscribeRequest request;
  request.set_queue(queue);
  return request;
}

std::vector<std::string> BodiesOf(const std::vector<v1::Delivery>& deliveries) {
  std::vector<std::string> bodies;
  for (const v1::Delivery& delivery : deliveries) bodies.push_back(delivery.message().body());
  return bodies;
}

std::vector<std::string> ReceiptsOf(const std::vector<v1::Delivery>& deliveries) {
  std::vector<std::string> receipts;
  for (const v1::Delivery& delivery : deliveries) receipts.push_back(delivery.receipt());
  return receipts;
}

std::vector<std::string> Numbered(const std::string& prefix, int count) {
  std::vector<std::string> bodies;
  for (int i = 0; i < count; ++i) bodies.push_back(absl::StrCat(prefix, i));
  return bodies;
}

}  // namespace sluice::testing
