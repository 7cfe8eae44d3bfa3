// Streams that the server ends for their age, and clients that do not notice.
#include <atomic>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cpp/client.h"
#include "client/cpp/consumer.h"
#include "client/cpp/publisher.h"
#include "tests/integration/fixture.h"
#include "tests/support/command.h"

namespace sluice::testing {
namespace {

// As often as the tests wait for; a stream lives for 900 ms here.
constexpr int kEnds = 2;

class StreamAgeTest : public ServerTest {
 protected:
  void SetUp() override {
    server_.set_flags({"--connection-age-grace", "1s"});
    ServerTest::SetUp();
    MakeQueue("q");
  }

  // How many streams of `method` ended STREAM_AGED; nothing else ends them UNAVAILABLE here.
  int Aged(const std::string& method) {
    const absl::StatusOr<HttpAnswer> page = HttpGet(server_.http_port(), "/metrics");
    if (!page.ok()) return 0;
    double count = 0;
    for (const absl::string_view line : absl::StrSplit(page->body, '\n')) {
      if (absl::StartsWith(line, "grpc_server_handled_total{") &&
          absl::StrContains(line, absl::StrCat("grpc_method=\"", method, "\"")) &&
          absl::StrContains(line, "grpc_code=\"Unavailable\"") &&
          absl::SimpleAtod(std::vector<absl::string_view>(absl::StrSplit(line, ' ')).back(),
                           &count)) {
        return static_cast<int>(count);
      }
    }
    return 0;
  }
  bool WaitForAged(const std::string& method) {
    return WaitUntil([&] { return Aged(method) >= kEnds; });
  }
};

TEST_F(StreamAgeTest, StreamsSayWhyTheyEnd) {
  Subscription subscription(*client_, SubscribeTo("q"));
  EXPECT_THAT(subscription.Finish(), FailsWith(grpc::StatusCode::UNAVAILABLE, "STREAM_AGED"));
  auto context = NewContext();
  auto stream = client_->queues->PublishStream(context.get());
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("q");
  stream->Write(request);
  v1::PublishStreamResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_THAT(stream->Finish(), FailsWith(grpc::StatusCode::UNAVAILABLE, "STREAM_AGED"));
}

// At full speed, so that each end finds messages in flight.
TEST_F(StreamAgeTest, APublisherThatDoesNotRetryGoesOnWithoutLossOrDuplicate) {
  client::Client client({.address = server_.address()});
  client::Publisher publisher(client, {.queue = "q"});
  std::atomic<bool> enough = false;
  std::jthread watcher([&] {
    EXPECT_TRUE(WaitForAged("PublishStream"));
    enough = true;
  });
  std::atomic<int64_t> failures = 0;
  int64_t published = 0;
  for (; !enough; ++published) {
    v1::Message message;
    message.set_body("x");
    const absl::Status taken =
        publisher.Publish(std::move(message), [&](const client::PublishOutcome& outcome) {
          if (!outcome.status.ok()) ++failures;
        });
    ASSERT_TRUE(taken.ok()) << taken;
  }
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(publisher.counts().confirmed, published);
  EXPECT_EQ(Stats("q").ready(), published);
}

TEST_F(StreamAgeTest, AnIdlePublisherOutlivesItsStream) {
  client::Client client({.address = server_.address()});
  client::Publisher publisher(client, {.queue = "q"});
  for (int end = 1; end <= kEnds; ++end) {
    EXPECT_TRUE(publisher.Publish({}).ok());
    EXPECT_TRUE(publisher.Flush(kCallTimeout).ok());
    EXPECT_TRUE(WaitUntil([&] { return Aged("PublishStream") >= end; }));
  }
  EXPECT_TRUE(publisher.Publish({}).ok());
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(publisher.counts().confirmed, kEnds + 1);
}

TEST_F(StreamAgeTest, AConsumerOutlivesItsStreamsWithAndWithoutReopen) {
  for (const bool reopen : {false, true}) {
    const int before = Aged("Subscribe");
    client::Client client({.address = server_.address()});
    client::Consumer consumer(client, {.queue = "q", .max_messages = 1, .reopen = reopen});
    absl::Status status = absl::UnknownError("Run did not return");
    std::jthread runner([&] {
      status = consumer.Run([&](const v1::Delivery& got) { consumer.Ack(got.receipt()); });
    });
    EXPECT_TRUE(WaitUntil([&] { return Aged("Subscribe") >= before + kEnds; }));
    Publish("q", {"late"});
    runner.join();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(Stats("q").ready() + Stats("q").leased(), 0);
  }
}

TEST_F(StreamAgeTest, TheCommandLineSubscribesOnUntilItsCount) {
  CommandResult result;
  std::jthread runner([&] {
    result = RunSluice(server_.address(),
                       {"subscribe", "q", "--ack", "--count", "1", "--idle-timeout", "0"});
  });
  EXPECT_TRUE(WaitForAged("Subscribe"));
  Publish("q", {"late"});
  runner.join();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "late\n");
  EXPECT_EQ(result.err, "");
}

// Being idle is counted over streams: each alone is too short for it.
TEST_F(StreamAgeTest, AnIdleTimeoutLongerThanAStreamStillEnds) {
  const CommandResult result =
      RunSluice(server_.address(), {"subscribe", "q", "--ack", "--idle-timeout", "2s"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GE(Aged("Subscribe"), kEnds);
}

}  // namespace
}  // namespace sluice::testing
