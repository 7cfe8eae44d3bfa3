#include "client/cpp/consumer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <numeric>
#include <set>

#include "tests/unit/client/fake_server.h"

namespace sluice::client {
namespace {

v1::SubscribeResponse Deliveries(int first, int count) {
  v1::SubscribeResponse response;
  for (int i = first; i < first + count; ++i) {
    response.add_deliveries()->set_receipt("r" + std::to_string(i));
  }
  return response;
}

class ConsumerTest : public ::testing::Test {
 protected:
  void NoteAcks() {
    server_.on_ack = [this](const v1::AckRequest& request, v1::AckResponse* response) {
      std::lock_guard lock(mutex_);
      ++ack_calls_;
      acked_.insert(request.receipts().begin(), request.receipts().end());
      return grpc::Status::OK;
    };
  }

  std::mutex mutex_;
  std::multiset<std::string> acked_;
  int ack_calls_ = 0;
  FakeServer server_;
};

TEST_F(ConsumerTest, AcksAreGatheredAndFlushedBeforeRunReturns) {
  NoteAcks();
  server_.on_subscribe = [](grpc::ServerContext&, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter& writer) {
    for (int i = 0; i < 10; ++i) writer.Write(Deliveries(i * 100, 100));
    return grpc::Status::OK;
  };
  std::atomic<int> outcomes = 0;
  Consumer consumer(server_.client(), {.queue = "q"});
  const absl::Status status = consumer.Run([&](const v1::Delivery& delivery) {
    consumer.Ack(delivery.receipt(), [&](const absl::Status& acked) {
      EXPECT_TRUE(acked.ok());
      ++outcomes;
    });
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(outcomes, 1000);
  EXPECT_EQ(acked_.size(), 1000u);
  EXPECT_LT(ack_calls_, 1000);
}

TEST_F(ConsumerTest, AnAckCallCarriesNoMoreThanAskedFor) {
  std::vector<int> sizes;
  server_.on_ack = [&](const v1::AckRequest& request, v1::AckResponse*) {
    sizes.push_back(request.receipts_size());
    return grpc::Status::OK;
  };
  server_.on_subscribe = [](grpc::ServerContext&, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter& writer) {
    writer.Write(Deliveries(0, 100));
    return grpc::Status::OK;
  };
  Consumer consumer(server_.client(), {.queue = "q", .ack_batch = 7});
  EXPECT_TRUE(
      consumer.Run([&](const v1::Delivery& delivery) { consumer.Ack(delivery.receipt()); }).ok());
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), 0), 100);
  EXPECT_LE(*std::max_element(sizes.begin(), sizes.end()), 7);
}

TEST_F(ConsumerTest, AnAckThatIsNotAnsweredHoldsRunUpForTheCloseTimeoutOnly) {
  std::promise<void> released;
  server_.on_ack = [&](const v1::AckRequest&, v1::AckResponse*) {
    released.get_future().wait();
    return grpc::Status::OK;
  };
  server_.on_subscribe = [](grpc::ServerContext&, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter& writer) {
    writer.Write(Deliveries(0, 2));
    return grpc::Status::OK;
  };
  std::vector<absl::Status> outcomes;
  Consumer consumer(server_.client(),
                    {.queue = "q", .reopen = true, .close_timeout = absl::Milliseconds(20)});
  const auto note = [&](const absl::Status& status) { outcomes.push_back(status); };
  EXPECT_TRUE(consumer
                  .Run([&](const v1::Delivery& delivery) { consumer.Ack(delivery.receipt(), note); })
                  .ok());
  released.set_value();
  ASSERT_EQ(outcomes.size(), 2u);
  for (const absl::Status& outcome : outcomes) {
    EXPECT_TRUE(absl::IsCancelled(outcome)) << outcome;
    EXPECT_TRUE(MaybeHappened(outcome)) << outcome;
  }
}

TEST_F(ConsumerTest, ClientsShareAConnectionUnlessAskedNotTo) {
  std::set<std::string> peers;
  server_.on_subscribe = [&](grpc::ServerContext& context, const v1::SubscribeRequest&,
                             FakeServer::SubscribeWriter&) {
    std::lock_guard lock(mutex_);
    peers.insert(context.peer());
    return grpc::Status::OK;
  };
  const auto subscribe = [&](bool own_connection) {
    ClientOptions options = server_.client().options();
    options.own_connection = own_connection;
    auto client = std::make_unique<Client>(options);
    EXPECT_TRUE(Consumer(*client, {.queue = "q"}).Run([](const v1::Delivery&) {}).ok());
    return client;
  };
  const auto first = subscribe(false);
  const auto second = subscribe(false);
  EXPECT_EQ(peers.size(), 1u);
  const auto third = subscribe(true);
  const auto fourth = subscribe(true);
  EXPECT_EQ(peers.size(), 3u);
}

TEST_F(ConsumerTest, OneBadReceiptFailsAlone) {
  server_.on_subscribe = [](grpc::ServerContext&, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter& writer) {
    writer.Write(Deliveries(0, 3));
    return grpc::Status::OK;
  };
  server_.on_ack = [](const v1::AckRequest& request, v1::AckResponse* response) {
    for (int i = 0; i < request.receipts_size(); ++i) {
      if (request.receipts(i) != "r1") continue;
      v1::ItemFailure& failure = *response->add_failures();
      failure.set_index(i);
      failure.mutable_status()->set_code(grpc::StatusCode::FAILED_PRECONDITION);
      failure.mutable_status()->set_reason(v1::ERROR_REASON_LEASE_EXPIRED);
    }
    return grpc::Status::OK;
  };
  std::mutex mutex;
  std::map<std::string, absl::Status> outcomes;
  Consumer consumer(server_.client(), {.queue = "q"});
  EXPECT_TRUE(consumer
                  .Run([&](const v1::Delivery& delivery) {
                    consumer.Ack(delivery.receipt(),
                                 [&, receipt = delivery.receipt()](const absl::Status& status) {
                                   std::lock_guard lock(mutex);
                                   outcomes[receipt] = status;
                                 });
                  })
                  .ok());
  EXPECT_TRUE(outcomes["r0"].ok());
  EXPECT_EQ(ReasonOf(outcomes["r1"]), v1::ERROR_REASON_LEASE_EXPIRED);
  EXPECT_TRUE(outcomes["r2"].ok());
}

TEST_F(ConsumerTest, ReopenSubscribesAgainForTheRestAndRepeatsAcks) {
  std::vector<int64_t> asked;
  server_.on_subscribe = [&](grpc::ServerContext&, const v1::SubscribeRequest& request,
                             FakeServer::SubscribeWriter& writer) {
    asked.push_back(request.max_messages());
    writer.Write(Deliveries(static_cast<int>(asked.size()) * 10, 2));
    return asked.size() == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone")
                             : grpc::Status::OK;
  };
  std::atomic<int> calls = 0;
  server_.on_ack = [&](const v1::AckRequest& request, v1::AckResponse* response) {
    return ++calls == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone") : grpc::Status::OK;
  };
  std::atomic<int> acked = 0;
  Consumer consumer(server_.client(), {.queue = "q", .max_messages = 4, .reopen = true});
  EXPECT_TRUE(consumer
                  .Run([&](const v1::Delivery& delivery) {
                    consumer.Ack(delivery.receipt(),
                                 [&](const absl::Status& status) { acked += status.ok(); });
                  })
                  .ok());
  EXPECT_EQ(asked, (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(acked, 4);
}

TEST_F(ConsumerTest, StopGivesBackWhatTheHandlerDidNotSee) {
  NoteAcks();
  server_.on_subscribe = [](grpc::ServerContext& context, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter& writer) {
    writer.Write(Deliveries(0, 5));
    // Never ends by itself: an empty response from time to time notices the cancel.
    while (!context.IsCancelled() && writer.Write(v1::SubscribeResponse())) {
    }
    return grpc::Status::OK;
  };
  std::mutex mutex;
  std::set<std::string> released;
  server_.on_nack = [&](const v1::NackRequest& request) {
    std::lock_guard lock(mutex);
    for (const auto& item : request.items()) {
      EXPECT_EQ(item.action(), v1::NACK_ACTION_RELEASE);
      released.insert(item.receipt());
    }
    return grpc::Status::OK;
  };
  Consumer consumer(server_.client(), {.queue = "q"});
  EXPECT_TRUE(consumer
                  .Run([&](const v1::Delivery& delivery) {
                    consumer.Ack(delivery.receipt());
                    if (delivery.receipt() == "r1") consumer.Stop();
                  })
                  .ok());
  EXPECT_EQ(acked_, (std::multiset<std::string>{"r0", "r1"}));
  EXPECT_EQ(released, (std::set<std::string>{"r2", "r3", "r4"}));
}

TEST_F(ConsumerTest, WithoutReopenTheErrorEndsRun) {
  server_.on_subscribe = [](grpc::ServerContext&, const v1::SubscribeRequest&,
                            FakeServer::SubscribeWriter&) {
    return Refusal(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND", "no queue");
  };
  Consumer consumer(server_.client(), {.queue = "q"});
  EXPECT_EQ(ReasonOf(consumer.Run([](const v1::Delivery&) {})), v1::ERROR_REASON_QUEUE_NOT_FOUND);
}

TEST_F(ConsumerTest, ReopenSubscribesAgainAfterTransportErrors) {
  const std::vector<grpc::StatusCode> ends = {
      grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL, grpc::StatusCode::UNKNOWN};
  size_t streams = 0;
  server_.on_subscribe = [&](grpc::ServerContext&, const v1::SubscribeRequest&,
                             FakeServer::SubscribeWriter& writer) {
    const size_t number = streams++;
    writer.Write(Deliveries(static_cast<int>(number), 1));
    return number < ends.size() ? grpc::Status(ends[number], "RST_STREAM") : grpc::Status::OK;
  };
  int delivered = 0;
  Consumer consumer(server_.client(), {.queue = "q", .reopen = true});
  EXPECT_TRUE(consumer.Run([&](const v1::Delivery&) { ++delivered; }).ok());
  EXPECT_EQ(delivered, 4);
}

TEST_F(ConsumerTest, AnAgedStreamIsFollowedByAnotherWithoutAWord) {
  for (const bool reopen : {false, true}) {
    std::vector<absl::Duration> idle;
    server_.on_subscribe = [&](grpc::ServerContext&, const v1::SubscribeRequest& request,
                               FakeServer::SubscribeWriter& writer) {
      idle.push_back(absl::Seconds(request.idle_timeout().seconds()) +
                     absl::Nanoseconds(request.idle_timeout().nanos()));
      writer.Write(Deliveries(static_cast<int>(idle.size()), 1));
      return idle.size() < 3
                 ? Refusal(grpc::StatusCode::UNAVAILABLE, "STREAM_AGED", "open it again")
                 : grpc::Status::OK;
    };
    int delivered = 0;
    int told = 0;
    Consumer consumer(server_.client(), {.queue = "q",
                                         .idle_timeout = absl::Seconds(60),
                                         .reopen = reopen,
                                         .on_reopen = [&](const absl::Status&) { ++told; }});
    EXPECT_TRUE(consumer.Run([&](const v1::Delivery&) { ++delivered; }).ok());
    EXPECT_EQ(delivered, 3);
    EXPECT_EQ(told, 0);
    // Being idle counts from the last message, not from the new stream.
    ASSERT_EQ(idle.size(), 3u);
    EXPECT_EQ(idle[0], absl::Seconds(60));
    EXPECT_LT(idle[1], absl::Seconds(60));
    EXPECT_GT(idle[1], absl::Seconds(30));
  }
}

}  // namespace
}  // namespace sluice::client
