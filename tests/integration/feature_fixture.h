// What the tests of single features share: configs and messages in short forms, and the two
// bidirectional streams.
#ifndef SLUICE_TESTS_INTEGRATION_FEATURE_FIXTURE_H_
#define SLUICE_TESTS_INTEGRATION_FEATURE_FIXTURE_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/integration/fixture.h"

namespace sluice::testing {

// A queue whose failed messages are ready again at once.
v1::QueueConfig QueueNamed(const std::string& name);
// The same, with a dead-letter queue that takes what failed `max_attempts` times.
v1::QueueConfig QueueWithDeadLetters(const std::string& name, const std::string& dead_letter_queue,
                                     int max_attempts);

v1::Message MessageOf(const std::string& body);
v1::Message InGroup(const std::string& body, const std::string& group);
v1::Message WithPriority(const std::string& body, int priority);
v1::Message After(const std::string& body, absl::Duration delay);
v1::Message ExpiringIn(const std::string& body, absl::Duration ttl);
v1::Message Once(const std::string& body, const std::string& dedup_id);

v1::Exchange ExchangeOf(const std::string& name, v1::ExchangeType type);
v1::Binding ToQueue(const std::string& exchange, const std::string& queue,
                    const std::string& key = "");

std::vector<std::string> BodiesOf(const std::vector<v1::StoredMessage>& messages);

class FeatureTest : public ServerTest {
 protected:
  void Create(const v1::QueueConfig& config);
  grpc::Status TryCreate(const v1::QueueConfig& config);
  // Changes the fields that are set.
  void Update(const v1::QueueConfig& config);
  v1::Queue Get(const std::string& queue);
  void DeleteQueue(const std::string& queue);
  void Pause(const std::string& queue);
  void Resume(const std::string& queue);

  grpc::Status TryCreateExchange(const v1::Exchange& exchange);
  void CreateExchange(const std::string& name, v1::ExchangeType type,
                      const std::string& alternate = "");
  grpc::Status TryBind(const v1::Binding& binding);
  void Bind(const v1::Binding& binding);

  // One call; expects OK.
  v1::PublishResult Send(const std::string& queue, const v1::Message& message);
  std::vector<v1::PublishResult> SendAll(const std::string& queue,
                                         const std::vector<v1::Message>& messages);
  grpc::Status TrySend(const std::string& queue, const v1::Message& message);

  // All pages, with whole bodies.
  std::vector<v1::StoredMessage> List(const std::string& queue,
                                      const v1::MessageFilter& filter = {});
  v1::StoredMessage Look(const std::string& queue, const std::string& id);
  // Takes one, expects it to be there, and nacks it.
  void FailOnce(const std::string& queue, v1::NackAction action = v1::NACK_ACTION_RETRY);
  // How many were moved, 0 or 1: the message may have gone.
  int64_t Reschedule(const std::string& queue, const std::string& id, absl::Duration delay);
  // Takes and acks until nothing is left to take at once; the bodies.
  std::vector<std::string> Drain(const std::string& queue);
  // How the stream ends that is cancelled as soon as it has begun.
  grpc::Status TrySubscribe(const v1::SubscribeRequest& request);
  // All that may be moved; the last report.
  v1::RedriveMessagesResponse Redrive(const std::string& queue);
  // Waits until the queue has so many ready messages, and fails the test if it never has.
  void AwaitReady(const std::string& queue, int64_t count);

  // The value of the series of that name whose labels contain all of `labels`; -1: none.
  double Metric(const std::string& name, const std::vector<std::string>& labels);
  double Total(const std::string& what, const std::string& queue);
};

// One Consume stream, read in the test's own thread.
class ConsumeStream {
 public:
  // Sends init and reads `started`.
  ConsumeStream(Client& client, const v1::SubscribeRequest& init);
  ~ConsumeStream();  // cancels

  const v1::SubscriptionStarted& started() const { return started_; }
  void Write(const v1::ConsumeRequest& request) { stream_->Write(request); }
  void Ack(int64_t request_id, const std::vector<std::string>& receipts);
  void Nack(int64_t request_id, const std::string& receipt, v1::NackAction action);
  void SetCredit(int32_t messages, int64_t bytes);
  void Drain();
  void HalfClose() { stream_->WritesDone(); }

  // The next of its kind; others are kept. Nothing, or an empty one: the stream has ended.
  std::optional<v1::Delivery> Next();
  std::vector<v1::Delivery> Next(size_t count);
  v1::ItemResults NextResults();
  v1::LeaseLost NextLeaseLost();
  bool NextDrained();
  // Deliveries that have come and were not taken by Next.
  size_t unread_deliveries() const { return deliveries_.size(); }
  // Reads until the stream's end.
  grpc::Status Finish();
  void Cancel() { context_->TryCancel(); }

 private:
  bool ReadOne();

  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConsumeRequest, v1::ConsumeResponse>> stream_;
  v1::SubscriptionStarted started_;
  std::deque<v1::Delivery> deliveries_;
  std::deque<v1::ItemResults> results_;
  std::deque<v1::LeaseLost> lost_;
  int drained_ = 0;
  bool finished_ = false;
};

// One PublishStream, read in the test's own thread.
class ProducerStream {
 public:
  // Sends init and reads `started`, which stays empty if the stream is refused.
  ProducerStream(Client& client, const v1::PublishStreamInit& init);
  ~ProducerStream();  // cancels

  const v1::PublishStreamStarted& started() const { return started_; }
  bool Send(int64_t first_sequence, const std::vector<std::string>& bodies);
  // Nothing: the stream has ended.
  std::optional<v1::PublishStreamResponse> Read();
  // Reads until everything up to `sequence` is confirmed; how many of it were duplicates.
  int AwaitStored(int64_t sequence);
  void HalfClose() { stream_->WritesDone(); }
  grpc::Status Finish();

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PublishStreamRequest, v1::PublishStreamResponse>>
      stream_;
  v1::PublishStreamStarted started_;
  bool finished_ = false;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_INTEGRATION_FEATURE_FIXTURE_H_
