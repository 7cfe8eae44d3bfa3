#include "client/cpp/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "client/cpp/status.h"
#include "client/cpp/time.h"
#include "tests/unit/client/fake_server.h"

namespace sluice::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Receipts = std::vector<std::string>;

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() {
    server_.on_consume = [this](FakeServer::ConsumeStream& stream) { return Serve(stream); };
  }

  static void DeliverMessage(FakeServer::ConsumeStream& stream, const std::string& id,
                             const std::string& receipt, bool maybe_redelivered) {
    v1::ConsumeResponse response;
    v1::Delivery& delivery = *response.mutable_deliveries()->add_deliveries();
    delivery.mutable_message()->set_id(id);
    delivery.set_receipt(receipt);
    delivery.set_maybe_redelivered(maybe_redelivered);
    stream.Write(response);
  }
  static void Deliver(FakeServer::ConsumeStream& stream, const Receipts& receipts) {
    v1::ConsumeResponse response;
    for (const std::string& receipt : receipts) {
      response.mutable_deliveries()->add_deliveries()->set_receipt(receipt);
    }
    stream.Write(response);
  }
  static void Answer(FakeServer::ConsumeStream& stream, int64_t request_id) {
    v1::ConsumeResponse response;
    response.mutable_results()->set_request_id(request_id);
    stream.Write(response);
  }
  static v1::ConsumeResponse Started(absl::Duration lease) {
    v1::ConsumeResponse response;
    *response.mutable_started()->mutable_lease() = ToProto(lease);
    return response;
  }

  // Starts, and sends what the test wants; then goes on.
  grpc::Status Serve(FakeServer::ConsumeStream& stream) {
    Begin(stream);
    Deliver(stream, first_);
    return GoOn(stream);
  }
  void Begin(FakeServer::ConsumeStream& stream) {
    v1::ConsumeRequest request;
    stream.Read(&request);
    init_ = request.init();
    stream.Write(Started(lease_));
  }
  // Notes and answers what comes, but for what `takes` says that it has taken.
  grpc::Status GoOn(FakeServer::ConsumeStream& stream,
                    const std::function<bool(const v1::ConsumeRequest&)>& takes = nullptr) {
    v1::ConsumeRequest request;
    while (stream.Read(&request)) {
      std::lock_guard lock(mutex_);
      if (takes && takes(request)) continue;
      switch (request.request_case()) {
        case v1::ConsumeRequest::kAck:
          acked_.insert(request.ack().receipts(0));
          Answer(stream, request.request_id());
          break;
        case v1::ConsumeRequest::kNack:
          nacked_[request.nack().items(0).receipt()] = request.nack().items(0).action();
          Answer(stream, request.request_id());
          break;
        case v1::ConsumeRequest::kExtend:
          for (const std::string& receipt : request.extend().receipts()) ++extended_[receipt];
          break;
        case v1::ConsumeRequest::kDrain: {
          Deliver(stream, late_);
          v1::ConsumeResponse drained;
          drained.mutable_drained();
          stream.Write(drained);
          break;
        }
        default: break;
      }
      changed_.notify_all();
    }
    return grpc::Status::OK;
  }
  void Await(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, condition);
  }

  FakeServer server_;
  absl::Duration lease_ = absl::Seconds(30);
  Receipts first_;  // delivered at once
  Receipts late_;   // when it is asked to drain
  v1::SubscribeRequest init_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multiset<std::string> acked_;
  std::map<std::string, v1::NackAction> nacked_;
  std::map<std::string, int> extended_;
};

TEST_F(WorkerTest, EveryMessageIsSettledAsItsHandlerSays) {
  first_ = {"r0", "r1", "r2"};
  std::set<std::string> settled;
  WorkerOptions options{.queue = "q", .threads = 3, .max_messages = 3};
  options.on_settled = [&](const v1::Delivery& delivery, const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status;
    settled.insert(delivery.receipt());
  };
  Worker worker(server_.client(), options);
  EXPECT_TRUE(worker
                  .Run([](const v1::Delivery& delivery) -> Worker::Verdict {
                    if (delivery.receipt() != "r1") return std::nullopt;
                    v1::NackItem nack;
                    nack.set_action(v1::NACK_ACTION_DEAD_LETTER);
                    return nack;
                  })
                  .ok());
  EXPECT_EQ(init_.max_in_flight(), 3);
  EXPECT_THAT(acked_, UnorderedElementsAre("r0", "r2"));
  EXPECT_EQ(nacked_["r1"], v1::NACK_ACTION_DEAD_LETTER);
  EXPECT_THAT(settled, ElementsAre("r0", "r1", "r2"));
}

TEST_F(WorkerTest, ThreadsWorkSideBySide) {
  first_ = {"r0", "r1"};
  int inside = 0;
  Worker worker(server_.client(), {.queue = "q", .threads = 2, .max_messages = 2});
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery&) -> Worker::Verdict {
                    std::unique_lock lock(mutex_);
                    ++inside;
                    changed_.notify_all();
                    changed_.wait(lock, [&] { return inside == 2; });
                    return std::nullopt;
                  })
                  .ok());
}

TEST_F(WorkerTest, LeasesAreExtendedWhileTheirMessagesWaitOrAreWorkedOn) {
  first_ = {"r0", "r1"};
  lease_ = absl::Milliseconds(30);
  Worker worker(server_.client(), {.queue = "q", .threads = 1, .max_messages = 2});
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery& delivery) -> Worker::Verdict {
                    if (delivery.receipt() == "r0") {
                      Await([&] { return extended_["r0"] >= 3 && extended_["r1"] >= 3; });
                    }
                    return std::nullopt;
                  })
                  .ok());
  EXPECT_THAT(acked_, UnorderedElementsAre("r0", "r1"));
}

TEST_F(WorkerTest, WhatABrokenStreamLeftUnansweredIsSettledOnTheNextOne) {
  first_ = {"r0"};
  int streams = 0;
  std::vector<std::string> called;
  server_.on_ack = [&](const v1::AckRequest& request, v1::AckResponse*) {
    EXPECT_EQ(streams, 1) << "before anything can be given out again";
    EXPECT_EQ(request.queue(), "q");
    called.assign(request.receipts().begin(), request.receipts().end());
    return grpc::Status::OK;
  };
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    if (++streams > 1) {
      first_.clear();
      return Serve(stream);
    }
    Begin(stream);
    EXPECT_TRUE(init_.keep_leases_on_close());
    Deliver(stream, first_);
    v1::ConsumeRequest request;
    while (stream.Read(&request) && !request.has_ack()) {
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  int reopened = 0;
  int settled = 0;
  WorkerOptions options{.queue = "q"};
  options.idle_timeout = absl::Milliseconds(20);
  options.on_reopen = [&](const absl::Status&) { ++reopened; };
  options.on_settled = [&](const v1::Delivery&, const absl::Status& status) {
    settled += status.ok();
  };
  Worker worker(server_.client(), options);
  EXPECT_TRUE(
      worker.Run([](const v1::Delivery&) -> Worker::Verdict { return std::nullopt; }).ok());
  EXPECT_EQ(reopened, 1);
  EXPECT_EQ(settled, 1);
  EXPECT_THAT(called, ElementsAre("r0"));
}

TEST_F(WorkerTest, WhatIsDoneWithAndComesAgainBeforeTheAnswerIsSettledByItsNewReceipt) {
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    Begin(stream);
    DeliverMessage(stream, "m", "before", /*maybe_redelivered=*/false);
    return GoOn(stream, [&](const v1::ConsumeRequest& request) {
      if (!request.has_ack() || request.ack().receipts(0) != "before") return false;
      DeliverMessage(stream, "m", "after", /*maybe_redelivered=*/true);
      // The answer to the old one comes too late to matter.
      v1::ConsumeResponse refused;
      refused.mutable_results()->set_request_id(request.request_id());
      refused.mutable_results()->add_failures()->mutable_status()->set_reason(
          v1::ERROR_REASON_LEASE_EXPIRED);
      stream.Write(refused);
      return true;
    });
  };
  int begun = 0;
  WorkerOptions options{.queue = "q"};
  std::vector<absl::Status> outcomes;
  Worker* running = nullptr;
  options.on_settled = [&](const v1::Delivery&, const absl::Status& status) {
    outcomes.push_back(status);
    running->Stop();
  };
  Worker worker(server_.client(), options);
  running = &worker;
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery&) -> Worker::Verdict {
                    ++begun;
                    return std::nullopt;
                  })
                  .ok());
  EXPECT_EQ(begun, 1);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_TRUE(outcomes[0].ok()) << outcomes[0];
  EXPECT_THAT(acked_, UnorderedElementsAre("after"));
}

TEST_F(WorkerTest, AStopFinishesWhatIsWorkedOnAndGivesBackWhatCameTooLate) {
  first_ = {"r0"};
  late_ = {"r1"};
  Worker worker(server_.client(), {.queue = "q"});
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery& delivery) -> Worker::Verdict {
                    EXPECT_EQ(delivery.receipt(), "r0");
                    worker.Stop();
                    Await([&] { return nacked_.contains("r1"); });
                    return std::nullopt;
                  })
                  .ok());
  EXPECT_THAT(acked_, UnorderedElementsAre("r0"));
  EXPECT_EQ(nacked_["r1"], v1::NACK_ACTION_RELEASE);
}

TEST_F(WorkerTest, AMessageThatIsLostBeforeItsTurnIsNotWorkedOn) {
  lease_ = absl::Milliseconds(30);
  // Loses r1 at the first extend.
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    Begin(stream);
    Deliver(stream, {"r0", "r1"});
    v1::ConsumeRequest request;
    while (stream.Read(&request) && !request.has_extend()) {
    }
    v1::ConsumeResponse lost;
    lost.mutable_lease_lost()->add_receipts("r1");
    stream.Write(lost);
    return GoOn(stream, [&](const v1::ConsumeRequest& request) {
      if (!request.has_extend() || request.extend().receipts_size() != 1) return false;
      ++extended_["alone"];
      changed_.notify_all();
      return true;
    });
  };
  Worker worker(server_.client(), {.queue = "q"});
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery& delivery) -> Worker::Verdict {
                    EXPECT_EQ(delivery.receipt(), "r0");
                    Await([&] { return extended_["alone"] > 0; });
                    worker.Stop();
                    return std::nullopt;
                  })
                  .ok());
  EXPECT_THAT(acked_, UnorderedElementsAre("r0"));
}

TEST_F(WorkerTest, WhatComesAgainAfterACrashWhileItIsWorkedOnIsNotBegunAgain) {
  int streams = 0;
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    const bool first = ++streams == 1;
    Begin(stream);
    DeliverMessage(stream, "m", first ? "before" : "after", /*maybe_redelivered=*/!first);
    if (first) {
      Await([&] { return extended_["begun"] > 0; });
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
    }
    // When this one is worked on, that one has been seen.
    Deliver(stream, {"second"});
    return GoOn(stream);
  };
  std::multiset<std::string> begun;
  Worker worker(server_.client(), {.queue = "q", .threads = 2, .max_messages = 2});
  EXPECT_TRUE(worker
                  .Run([&](const v1::Delivery& delivery) -> Worker::Verdict {
                    std::unique_lock lock(mutex_);
                    begun.insert(delivery.receipt());
                    ++extended_["begun"];
                    changed_.notify_all();
                    if (delivery.receipt() == "before") {
                      changed_.wait(lock, [&] { return begun.contains("second"); });
                    }
                    return std::nullopt;
                  })
                  .ok());
  EXPECT_THAT(begun, UnorderedElementsAre("before", "second"));
  EXPECT_THAT(acked_, UnorderedElementsAre("after", "second"));
}

TEST_F(WorkerTest, EndsWhenNothingIsThereForLongEnough) {
  Worker worker(server_.client(), {.queue = "q", .idle_timeout = absl::Milliseconds(20)});
  EXPECT_TRUE(
      worker.Run([](const v1::Delivery&) -> Worker::Verdict { return std::nullopt; }).ok());
  EXPECT_THAT(acked_, IsEmpty());
}

// The time in which there is no server to ask does not count.
TEST_F(WorkerTest, AServerThatIsAwayIsNoIdleOne) {
  int streams = 0;
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    if (++streams == 1) {
      // Longer than the idle timeout without an answer, then gone.
      v1::ConsumeRequest request;
      stream.Read(&request);
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(300), [] { return false; });
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
    }
    first_ = {"r0"};
    return Serve(stream);
  };
  Worker worker(server_.client(), {.queue = "q", .idle_timeout = absl::Milliseconds(100)});
  EXPECT_TRUE(
      worker.Run([](const v1::Delivery&) -> Worker::Verdict { return std::nullopt; }).ok());
  EXPECT_THAT(acked_, UnorderedElementsAre("r0"));
}

TEST_F(WorkerTest, WhatIsNotSettledWhenRunEndsIsTold) {
  first_ = {"r0"};
  server_.on_consume = [&](FakeServer::ConsumeStream& stream) {
    Begin(stream);
    Deliver(stream, first_);
    v1::ConsumeRequest request;
    while (stream.Read(&request) && !request.has_ack()) {
    }
    return Refusal(grpc::StatusCode::NOT_FOUND, "QUEUE_DELETED", "the queue is gone");
  };
  std::vector<absl::Status> outcomes;
  WorkerOptions options{.queue = "q"};
  options.on_settled = [&](const v1::Delivery&, const absl::Status& status) {
    outcomes.push_back(status);
  };
  Worker worker(server_.client(), options);
  EXPECT_FALSE(
      worker.Run([](const v1::Delivery&) -> Worker::Verdict { return std::nullopt; }).ok());
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(ReasonOf(outcomes[0]), v1::ERROR_REASON_QUEUE_DELETED);
}

TEST_F(WorkerTest, ARefusalEndsRun) {
  server_.on_consume = [](FakeServer::ConsumeStream& stream) {
    v1::ConsumeRequest request;
    stream.Read(&request);
    return Refusal(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND", "no queue");
  };
  Worker worker(server_.client(), {.queue = "q"});
  EXPECT_EQ(ReasonOf(worker.Run([](const v1::Delivery&) -> Worker::Verdict {
    return std::nullopt;
  })),
            v1::ERROR_REASON_QUEUE_NOT_FOUND);
}

}  // namespace
}  // namespace sluice::client
