#include "tests/integration/feature_fixture.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice::testing {

// ---- configs and messages

v1::QueueConfig QueueNamed(const std::string& name) {
  v1::QueueConfig config;
  config.set_name(name);
  *config.mutable_retry()->mutable_min_backoff() = ToProto(absl::ZeroDuration());
  *config.mutable_retry()->mutable_max_backoff() = ToProto(absl::ZeroDuration());
  return config;
}

v1::QueueConfig QueueWithDeadLetters(const std::string& name, const std::string& dead_letter_queue,
                                     int max_attempts) {
  v1::QueueConfig config = QueueNamed(name);
  config.set_dead_letter_queue(dead_letter_queue);
  config.mutable_retry()->set_max_attempts(max_attempts);
  return config;
}

v1::Message MessageOf(const std::string& body) {
  v1::Message message;
  message.set_body(body);
  return message;
}

v1::Message InGroup(const std::string& body, const std::string& group) {
  v1::Message message = MessageOf(body);
  message.set_group(group);
  return message;
}

v1::Message WithPriority(const std::string& body, int priority) {
  v1::Message message = MessageOf(body);
  message.set_priority(priority);
  return message;
}

v1::Message After(const std::string& body, absl::Duration delay) {
  v1::Message message = MessageOf(body);
  *message.mutable_delay() = ToProto(delay);
  return message;
}

v1::Message ExpiringIn(const std::string& body, absl::Duration ttl) {
  v1::Message message = MessageOf(body);
  *message.mutable_ttl() = ToProto(ttl);
  return message;
}

v1::Message Once(const std::string& body, const std::string& dedup_id) {
  v1::Message message = MessageOf(body);
  message.set_dedup_id(dedup_id);
  return message;
}

v1::Exchange ExchangeOf(const std::string& name, v1::ExchangeType type) {
  v1::Exchange exchange;
  exchange.set_name(name);
  exchange.set_type(type);
  return exchange;
}

v1::Binding ToQueue(const std::string& exchange, const std::string& queue,
                    const std::string& key) {
  v1::Binding binding;
  binding.set_exchange(exchange);
  binding.set_queue(queue);
  binding.set_binding_key(key);
  return binding;
}

std::vector<std::string> BodiesOf(const std::vector<v1::StoredMessage>& messages) {
  std::vector<std::string> bodies;
  for (const v1::StoredMessage& message : messages) bodies.push_back(message.message().body());
  return bodies;
}

// ---- FeatureTest

void FeatureTest::Create(const v1::QueueConfig& config) { ASSERT_THAT(TryCreate(config), IsOk()); }

grpc::Status FeatureTest::TryCreate(const v1::QueueConfig& config) {
  v1::CreateQueueRequest request;
  *request.mutable_config() = config;
  v1::CreateQueueResponse response;
  return CallAdmin(&AdminService::Stub::CreateQueue, request, &response);
}

void FeatureTest::Update(const v1::QueueConfig& config) {
  v1::UpdateQueueRequest request;
  *request.mutable_config() = config;
  v1::UpdateQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::UpdateQueue, request, &response), IsOk());
}

v1::Queue FeatureTest::Get(const std::string& queue) {
  v1::GetQueueRequest request;
  request.set_queue(queue);
  v1::GetQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetQueue, request, &response), IsOk());
  return response.queue();
}

void FeatureTest::DeleteQueue(const std::string& queue) {
  v1::DeleteQueueRequest request;
  request.set_queue(queue);
  v1::DeleteQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::DeleteQueue, request, &response), IsOk());
}

void FeatureTest::Pause(const std::string& queue) {
  v1::PauseQueueRequest request;
  request.set_queue(queue);
  v1::PauseQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::PauseQueue, request, &response), IsOk());
  EXPECT_EQ(response.queue().state(), v1::QUEUE_STATE_PAUSED);
}

void FeatureTest::Resume(const std::string& queue) {
  v1::ResumeQueueRequest request;
  request.set_queue(queue);
  v1::ResumeQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::ResumeQueue, request, &response), IsOk());
  EXPECT_EQ(response.queue().state(), v1::QUEUE_STATE_ACTIVE);
}

grpc::Status FeatureTest::TryCreateExchange(const v1::Exchange& exchange) {
  v1::CreateExchangeRequest request;
  *request.mutable_exchange() = exchange;
  v1::CreateExchangeResponse response;
  return CallAdmin(&AdminService::Stub::CreateExchange, request, &response);
}

void FeatureTest::CreateExchange(const std::string& name, v1::ExchangeType type,
                                 const std::string& alternate) {
  v1::Exchange exchange = ExchangeOf(name, type);
  exchange.set_alternate_exchange(alternate);
  ASSERT_THAT(TryCreateExchange(exchange), IsOk());
}

grpc::Status FeatureTest::TryBind(const v1::Binding& binding) {
  v1::CreateBindingRequest request;
  *request.mutable_binding() = binding;
  v1::CreateBindingResponse response;
  return CallAdmin(&AdminService::Stub::CreateBinding, request, &response);
}

void FeatureTest::Bind(const v1::Binding& binding) { ASSERT_THAT(TryBind(binding), IsOk()); }

v1::PublishResult FeatureTest::Send(const std::string& queue, const v1::Message& message) {
  std::vector<v1::PublishResult> results = SendAll(queue, {message});
  return results.empty() ? v1::PublishResult() : results[0];
}

std::vector<v1::PublishResult> FeatureTest::SendAll(const std::string& queue,
                                                    const std::vector<v1::Message>& messages) {
  v1::PublishRequest request;
  request.set_queue(queue);
  for (const v1::Message& message : messages) *request.add_messages() = message;
  v1::PublishResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  return {response.results().begin(), response.results().end()};
}

grpc::Status FeatureTest::TrySend(const std::string& queue, const v1::Message& message) {
  v1::PublishRequest request;
  request.set_queue(queue);
  *request.add_messages() = message;
  return TryPublish(request);
}

std::vector<v1::StoredMessage> FeatureTest::List(const std::string& queue,
                                                 const v1::MessageFilter& filter) {
  std::vector<v1::StoredMessage> all;
  v1::ListMessagesRequest request;
  request.set_queue(queue);
  *request.mutable_filter() = filter;
  request.set_max_body_bytes(-1);
  do {
    v1::ListMessagesResponse response;
    const grpc::Status status =
        CallAdmin(&AdminService::Stub::ListMessages, request, &response);
    EXPECT_THAT(status, IsOk());
    if (!status.ok()) break;
    all.insert(all.end(), response.messages().begin(), response.messages().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

v1::StoredMessage FeatureTest::Look(const std::string& queue, const std::string& id) {
  v1::GetMessageRequest request;
  request.set_queue(queue);
  request.set_message_id(id);
  request.set_max_body_bytes(-1);
  v1::GetMessageResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetMessage, request, &response), IsOk());
  return response.message();
}

void FeatureTest::FailOnce(const std::string& queue, v1::NackAction action) {
  const std::vector<v1::Delivery> deliveries = ReceiveAll(queue, 1);
  EXPECT_EQ(Nack(queue, deliveries[0].receipt(), action).failures_size(), 0);
}

int64_t FeatureTest::Reschedule(const std::string& queue, const std::string& id,
                                absl::Duration delay) {
  v1::RescheduleMessagesRequest request;
  request.set_queue(queue);
  request.mutable_filter()->add_ids(id);
  *request.mutable_delay() = ToProto(delay);
  v1::RescheduleMessagesResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::RescheduleMessages, request, &response), IsOk());
  return response.rescheduled();
}

std::vector<std::string> FeatureTest::Drain(const std::string& queue) {
  std::vector<std::string> bodies;
  while (true) {
    const std::vector<v1::Delivery> some = Receive(queue, 1000, absl::ZeroDuration());
    if (some.empty()) return bodies;
    for (const std::string& body : BodiesOf(some)) bodies.push_back(body);
    EXPECT_EQ(Ack(queue, ReceiptsOf(some)).acked(), static_cast<int>(some.size()));
  }
}

grpc::Status FeatureTest::TrySubscribe(const v1::SubscribeRequest& request) {
  auto context = NewContext();
  auto reader = client_->queues->Subscribe(context.get(), request);
  v1::SubscribeResponse response;
  while (reader->Read(&response)) context->TryCancel();
  return reader->Finish();
}

v1::RedriveMessagesResponse FeatureTest::Redrive(const std::string& queue) {
  auto context = NewContext();
  v1::RedriveMessagesRequest request;
  request.set_queue(queue);
  auto reader = client_->admin->RedriveMessages(context.get(), request);
  v1::RedriveMessagesResponse last;
  for (v1::RedriveMessagesResponse response; reader->Read(&response);) last = response;
  EXPECT_THAT(reader->Finish(), IsOk());
  return last;
}

void FeatureTest::AwaitReady(const std::string& queue, int64_t count) {
  ASSERT_TRUE(WaitUntil([&] { return Stats(queue).ready() == count; }))
      << queue << ": " << Stats(queue).ShortDebugString();
}

double FeatureTest::Metric(const std::string& name, const std::vector<std::string>& labels) {
  // The page comes up right behind the service, which the fixture waits for.
  absl::StatusOr<HttpAnswer> answer;
  EXPECT_TRUE(WaitUntil([&] {
    answer = HttpGet(server_.http_port(), "/metrics");
    return answer.ok() && answer->code == 200;
  }));
  if (!answer.ok()) return -1;
  for (absl::string_view line : absl::StrSplit(answer->body, '\n')) {
    if (!absl::StartsWith(line, name + "{") && !absl::StartsWith(line, name + " ")) continue;
    bool all = true;
    for (const std::string& label : labels) all = all && absl::StrContains(line, label);
    double value = 0;
    if (all && absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) return value;
  }
  return -1;
}

double FeatureTest::Total(const std::string& what, const std::string& queue) {
  return Metric(absl::StrCat("sluice_messages_", what, "_total"),
                {absl::StrCat("queue=\"", queue, "\"")});
}

// ---- ConsumeStream

ConsumeStream::ConsumeStream(Client& client, const v1::SubscribeRequest& init)
    : context_(NewContext()), stream_(client.queues->Consume(context_.get())) {
  v1::ConsumeRequest request;
  *request.mutable_init() = init;
  stream_->Write(request);
  v1::ConsumeResponse response;
  if (!stream_->Read(&response)) return;
  EXPECT_TRUE(response.has_started()) << response.ShortDebugString();
  started_ = response.started();
}

ConsumeStream::~ConsumeStream() {
  context_->TryCancel();
  if (!finished_) Finish();
}

void ConsumeStream::Ack(int64_t request_id, const std::vector<std::string>& receipts) {
  v1::ConsumeRequest request;
  request.set_request_id(request_id);
  request.mutable_ack();
  for (const std::string& receipt : receipts) request.mutable_ack()->add_receipts(receipt);
  stream_->Write(request);
}

void ConsumeStream::Nack(int64_t request_id, const std::string& receipt, v1::NackAction action) {
  v1::ConsumeRequest request;
  request.set_request_id(request_id);
  v1::NackItem& item = *request.mutable_nack()->add_items();
  item.set_receipt(receipt);
  item.set_action(action);
  stream_->Write(request);
}

void ConsumeStream::SetCredit(int32_t messages, int64_t bytes) {
  v1::ConsumeRequest request;
  request.mutable_credit()->set_max_in_flight(messages);
  request.mutable_credit()->set_max_bytes_in_flight(bytes);
  stream_->Write(request);
}

void ConsumeStream::Drain() {
  v1::ConsumeRequest request;
  request.mutable_drain();
  stream_->Write(request);
}

bool ConsumeStream::ReadOne() {
  v1::ConsumeResponse response;
  if (finished_ || !stream_->Read(&response)) return false;
  switch (response.response_case()) {
    case v1::ConsumeResponse::kDeliveries:
      for (const v1::Delivery& delivery : response.deliveries().deliveries()) {
        deliveries_.push_back(delivery);
      }
      break;
    case v1::ConsumeResponse::kResults: results_.push_back(response.results()); break;
    case v1::ConsumeResponse::kLeaseLost: lost_.push_back(response.lease_lost()); break;
    case v1::ConsumeResponse::kDrained: ++drained_; break;
    case v1::ConsumeResponse::kStarted:
    case v1::ConsumeResponse::RESPONSE_NOT_SET:
      ADD_FAILURE() << "not expected here: " << response.ShortDebugString();
  }
  return true;
}

std::optional<v1::Delivery> ConsumeStream::Next() {
  while (deliveries_.empty()) {
    if (!ReadOne()) return std::nullopt;
  }
  v1::Delivery delivery = deliveries_.front();
  deliveries_.pop_front();
  return delivery;
}

std::vector<v1::Delivery> ConsumeStream::Next(size_t count) {
  std::vector<v1::Delivery> all;
  while (all.size() < count) {
    std::optional<v1::Delivery> delivery = Next();
    if (!delivery) break;
    all.push_back(*std::move(delivery));
  }
  EXPECT_EQ(all.size(), count);
  all.resize(count);
  return all;
}

v1::ItemResults ConsumeStream::NextResults() {
  while (results_.empty()) {
    if (!ReadOne()) return {};
  }
  v1::ItemResults results = results_.front();
  results_.pop_front();
  return results;
}

v1::LeaseLost ConsumeStream::NextLeaseLost() {
  while (lost_.empty()) {
    if (!ReadOne()) return {};
  }
  v1::LeaseLost lost = lost_.front();
  lost_.pop_front();
  return lost;
}

bool ConsumeStream::NextDrained() {
  while (drained_ == 0) {
    if (!ReadOne()) return false;
  }
  --drained_;
  return true;
}

grpc::Status ConsumeStream::Finish() {
  while (ReadOne()) {
  }
  finished_ = true;
  return stream_->Finish();
}

// ---- ProducerStream

ProducerStream::ProducerStream(Client& client, const v1::PublishStreamInit& init)
    : context_(NewContext()), stream_(client.queues->PublishStream(context_.get())) {
  v1::PublishStreamRequest request;
  *request.mutable_init() = init;
  stream_->Write(request);
  v1::PublishStreamResponse response;
  if (!stream_->Read(&response)) return;
  EXPECT_TRUE(response.has_started()) << response.ShortDebugString();
  started_ = response.started();
}

ProducerStream::~ProducerStream() {
  context_->TryCancel();
  if (!finished_) Finish();
}

bool ProducerStream::Send(int64_t first_sequence, const std::vector<std::string>& bodies) {
  v1::PublishStreamRequest request;
  request.mutable_batch()->set_first_sequence(first_sequence);
  for (const std::string& body : bodies) request.mutable_batch()->add_messages()->set_body(body);
  return stream_->Write(request);
}

std::optional<v1::PublishStreamResponse> ProducerStream::Read() {
  v1::PublishStreamResponse response;
  if (finished_ || !stream_->Read(&response)) return std::nullopt;
  return response;
}

int ProducerStream::AwaitStored(int64_t sequence) {
  int duplicates = 0;
  for (int64_t through = 0; through < sequence;) {
    const std::optional<v1::PublishStreamResponse> response = Read();
    EXPECT_TRUE(response && response->has_stored());
    if (!response || !response->has_stored()) break;
    through = response->stored().through_sequence();
    duplicates += response->stored().duplicates();
  }
  return duplicates;
}

grpc::Status ProducerStream::Finish() {
  while (Read()) {
  }
  finished_ = true;
  return stream_->Finish();
}

}  // namespace sluice::testing
