// A test with a server of its own and short forms for the calls that most tests make.
#ifndef SLUICE_TESTS_INTEGRATION_FIXTURE_H_
#define SLUICE_TESTS_INTEGRATION_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/client.h"
#include "tests/support/server_process.h"

namespace sluice::testing {

using v1::AdminService;
using v1::QueueService;

// The shortest lease that the API takes: tests of expiry wait this long.
inline constexpr absl::Duration kShortestLease = absl::Seconds(1);

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Starts the server again on the same data and ports, and connects anew.
  void StartServer();
  void KillAndRestart();
  void TerminateAndRestart();

  // A queue whose failed messages are ready again at once (min_backoff = max_backoff = 0).
  void MakeQueue(const std::string& name, absl::Duration lease = absl::ZeroDuration());
  // Publishes all in one call and expects OK; the ids.
  std::vector<std::string> Publish(const std::string& queue,
                                   const std::vector<std::string>& bodies);
  grpc::Status TryPublish(const v1::PublishRequest& request);

  // Takes up to `count` messages, waiting for the first.
  std::vector<v1::Delivery> Receive(const std::string& queue, int count = 1,
                                    absl::Duration wait = absl::Seconds(5),
                                    absl::Duration lease = absl::ZeroDuration());
  // The same until there are `count`.
  std::vector<v1::Delivery> ReceiveAll(const std::string& queue, size_t count,
                                       absl::Duration lease = absl::ZeroDuration());
  // Settling calls expect the call to be OK and answer the failures per item.
  v1::AckResponse Ack(const std::string& queue, const std::vector<std::string>& receipts);
  v1::NackResponse Nack(const std::string& queue, const std::string& receipt,
                        v1::NackAction action, absl::Duration delay = absl::ZeroDuration());
  v1::ExtendLeaseResponse Extend(const std::string& queue, const std::string& receipt,
                                 absl::Duration lease);
  v1::QueueStats Stats(const std::string& queue);

  template <typename Request, typename Response>
  grpc::Status CallQueues(grpc::Status (QueueService::Stub::*method)(grpc::ClientContext*,
                                                                     const Request&, Response*),
                          const Request& request, Response* response) {
    return Call(client_->queues, method, request, response);
  }
  template <typename Request, typename Response>
  grpc::Status CallAdmin(grpc::Status (AdminService::Stub::*method)(grpc::ClientContext*,
                                                                    const Request&, Response*),
                         const Request& request, Response* response) {
    return Call(client_->admin, method, request, response);
  }

  ServerProcess server_;
  std::unique_ptr<Client> client_;
};

// One Subscribe stream, read in the test's own thread.
class Subscription {
 public:
  Subscription(Client& client, const v1::SubscribeRequest& request);
  ~Subscription();  // cancels

  const v1::SubscriptionStarted& started() const { return started_; }
  // The next delivery, or nothing once the stream has ended.
  std::optional<v1::Delivery> Next();
  std::vector<v1::Delivery> Next(size_t count);
  // The next LeaseLost; deliveries before it are kept for Next.
  std::optional<v1::LeaseLost> NextLeaseLost();
  // Reads until the stream's end.
  grpc::Status Finish();
  void Cancel() { context_->TryCancel(); }

 private:
  bool ReadOne();

  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::SubscribeResponse>> reader_;
  v1::SubscriptionStarted started_;
  std::vector<v1::Delivery> deliveries_;
  std::vector<v1::LeaseLost> lost_;
  bool finished_ = false;
};

v1::SubscribeRequest SubscribeTo(const std::string& queue);

std::vector<std::string> BodiesOf(const std::vector<v1::Delivery>& deliveries);
std::vector<std::string> ReceiptsOf(const std::vector<v1::Delivery>& deliveries);
// "prefix0", "prefix1", ...
std::vector<std::string> Numbered(const std::string& prefix, int count);

// Matches a grpc::Status by code and the reason in its ErrorInfo (whose domain must be `sluice`).
MATCHER_P2(FailsWith, code, reason, "") {
  const ErrorDetails details = DetailsOf(arg);
  *result_listener << "code " << arg.error_code() << " '" << arg.error_message() << "' reason '"
                   << details.reason << "' domain '" << details.domain << "'";
  return arg.error_code() == code && details.reason == reason && details.domain == "sluice" &&
         !arg.error_message().empty() && details.bytes <= 4096;
}
// The same for a bad field: BadRequest must name it.
MATCHER_P3(FailsWithField, code, reason, field, "") {
  const ErrorDetails details = DetailsOf(arg);
  *result_listener << "code " << arg.error_code() << " '" << arg.error_message() << "' reason '"
                   << details.reason << "' fields " << ::testing::PrintToString(details.fields);
  return arg.error_code() == code && details.reason == reason && details.domain == "sluice" &&
         ::testing::Value(details.fields, ::testing::Contains(std::string(field)));
}
MATCHER(IsOk, "") {
  *result_listener << "code " << arg.error_code() << " '" << arg.error_message() << "'";
  return arg.ok();
}
// Matches an ItemFailure.
MATCHER_P3(ItemFails, index, code, reason, "") {
  *result_listener << arg.ShortDebugString();
  return arg.index() == index && arg.status().code() == static_cast<int>(code) &&
         arg.status().reason() == reason;
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_INTEGRATION_FIXTURE_H_
