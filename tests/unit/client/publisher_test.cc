#include "client/cpp/publisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "tests/unit/client/fake_server.h"

namespace sluice::client {
namespace {

v1::Message Body(const std::string& body) {
  v1::Message message;
  message.set_body(body);
  return message;
}

class PublisherTest : public ::testing::Test {
 protected:
  // Publishes the bodies "0".."count-1" and notes what became of each.
  void PublishNumbers(Publisher& publisher, int count) {
    for (int i = 0; i < count; ++i) {
      const absl::Status taken =
          publisher.Publish(Body(std::to_string(i)), [this, i](const PublishOutcome& outcome) {
            std::lock_guard lock(mutex_);
            EXPECT_EQ(outcomes_.count(i), 0u) << "two outcomes for " << i;
            outcomes_[i] = outcome;
          });
      if (!taken.ok()) break;
    }
  }

  // Reads the init and then batches; `on_batch` returns false to break the stream.
  static void Serve(FakeServer::PublishStreamType& stream,
                    const std::function<bool(const v1::PublishStreamBatch&)>& on_batch) {
    v1::PublishStreamRequest request;
    ASSERT_TRUE(stream.Read(&request));
    EXPECT_TRUE(request.has_init());
    v1::PublishStreamResponse started;
    started.mutable_started()->set_max_in_flight(1000);
    stream.Write(started);
    while (stream.Read(&request)) {
      if (!on_batch(request.batch())) return;
    }
  }

  // Confirms all, after `take` has seen it, until the client ends the stream.
  static void StoreAll(FakeServer::PublishStreamType& stream,
                       const std::function<void(const v1::PublishStreamBatch&)>& take = nullptr) {
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      if (take) take(batch);
      return stream.Write(StoredThrough(LastOf(batch)));
    });
  }

  static int64_t LastOf(const v1::PublishStreamBatch& batch) {
    return batch.first_sequence() + batch.messages_size() - 1;
  }

  std::mutex mutex_;
  std::map<int, PublishOutcome> outcomes_;
  FakeServer server_;
};

TEST_F(PublisherTest, ConfirmsEveryMessageInOrderAndWithinTheWindow) {
  std::vector<std::string> stored;
  std::string queue;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    StoreAll(stream, [&](const v1::PublishStreamBatch& batch) {
      EXPECT_EQ(batch.first_sequence(), static_cast<int64_t>(stored.size()) + 1);
      EXPECT_LE(batch.messages_size(), 7);
      for (const auto& message : batch.messages()) stored.push_back(message.body());
    });
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(),
                      {.queue = "q", .max_in_flight = 10, .max_batch_messages = 7});
  PublishNumbers(publisher, 500);
  EXPECT_TRUE(publisher.Close().ok());
  ASSERT_EQ(stored.size(), 500u);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(stored[static_cast<size_t>(i)], std::to_string(i));
    EXPECT_TRUE(outcomes_[i].status.ok());
  }
  EXPECT_EQ(publisher.counts().confirmed, 500);
  EXPECT_TRUE(absl::IsFailedPrecondition(publisher.Publish(Body("late"))));
}

TEST_F(PublisherTest, ThreadsThatShareAWindowKeepTheirOwnOrder) {
  constexpr int kThreads = 4;
  constexpr int kEach = 500;
  std::vector<std::string> stored;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    StoreAll(stream, [&](const v1::PublishStreamBatch& batch) {
      EXPECT_EQ(batch.first_sequence(), static_cast<int64_t>(stored.size()) + 1);
      for (const auto& message : batch.messages()) stored.push_back(message.body());
    });
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q", .max_in_flight = 10});
  std::atomic<int> confirmed = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kEach; ++i) {
        const auto note = [&](const PublishOutcome& outcome) { confirmed += outcome.status.ok(); };
        const std::string body = std::to_string(thread) + std::to_string(1000 + i);
        EXPECT_TRUE(publisher.Publish(Body(body), note).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(confirmed, kThreads * kEach);
  // Sorted by thread, each one's are as they were published.
  std::vector<std::string> by_thread = stored;
  std::stable_sort(by_thread.begin(), by_thread.end(),
                   [](const std::string& a, const std::string& b) { return a[0] < b[0]; });
  ASSERT_EQ(by_thread.size(), static_cast<size_t>(kThreads * kEach));
  EXPECT_TRUE(std::is_sorted(by_thread.begin(), by_thread.end()));
}

TEST_F(PublisherTest, ACallbackThatWouldWaitForEverIsToldSo) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    StoreAll(stream);
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q"});
  Publisher full(server_.client(), {.queue = "q", .max_in_flight = 1});
  std::vector<absl::Status> refusals;
  ASSERT_TRUE(publisher
                  .Publish(Body("a"),
                           [&](const PublishOutcome&) {
                             refusals.push_back(publisher.Flush());
                             refusals.push_back(publisher.Close());
                             EXPECT_TRUE(full.Publish(Body("b")).ok());
                             refusals.push_back(full.Publish(Body("c")));
                           })
                  .ok());
  EXPECT_TRUE(publisher.Flush().ok());
  ASSERT_EQ(refusals.size(), 3u);
  for (const absl::Status& refusal : refusals) {
    EXPECT_TRUE(absl::IsFailedPrecondition(refusal)) << refusal;
  }
  EXPECT_TRUE(full.Close().ok());
  EXPECT_EQ(full.counts().confirmed, 1);
}

TEST_F(PublisherTest, AServerThatDoesNotEndTheStreamHoldsCloseUpForItsTimeoutOnly) {
  std::promise<void> released;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    StoreAll(stream);
    released.get_future().wait();
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q"});
  PublishNumbers(publisher, 1);
  EXPECT_TRUE(publisher.Flush().ok());
  EXPECT_TRUE(publisher.Close(absl::Milliseconds(20)).ok());
  released.set_value();
  EXPECT_EQ(publisher.counts().confirmed, 1);
}

TEST_F(PublisherTest, ARefusedRangeFailsOnlyItself) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      // One answer for everything once the last came, the refusal of 3..5 first.
      if (LastOf(batch) < 10) return true;
      stream.Write(RefusedRange(3, 5));
      return stream.Write(StoredThrough(10));
    });
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q"});
  PublishNumbers(publisher, 10);
  EXPECT_TRUE(publisher.Flush().ok());
  for (int i = 0; i < 10; ++i) {
    const bool refused = i >= 2 && i <= 4;
    EXPECT_EQ(outcomes_[i].status.ok(), !refused) << i;
    if (refused) {
      EXPECT_EQ(ReasonOf(outcomes_[i].status), v1::ERROR_REASON_QUEUE_FULL);
    }
  }
  EXPECT_EQ(publisher.counts().refused, 3);
  EXPECT_EQ(publisher.counts().confirmed, 7);
}

TEST_F(PublisherTest, ABrokenStreamReportsInFlightAsMaybeAndEndsThePublisher) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      if (LastOf(batch) < 3) return true;
      stream.Write(StoredThrough(2));
      return false;
    });
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  Publisher publisher(server_.client(), {.queue = "q"});
  PublishNumbers(publisher, 3);
  EXPECT_TRUE(absl::IsUnavailable(publisher.Flush()));
  EXPECT_TRUE(outcomes_[0].status.ok());
  EXPECT_TRUE(outcomes_[1].status.ok());
  EXPECT_TRUE(MaybeHappened(outcomes_[2].status));
  EXPECT_EQ(publisher.counts().unknown, 1);
  EXPECT_TRUE(absl::IsUnavailable(publisher.Publish(Body("more"))));
}

TEST_F(PublisherTest, CountsWhatTheServerHadStoredBefore) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      v1::PublishStreamResponse response = StoredThrough(LastOf(batch));
      // The first seven of all.
      const int64_t known = std::min<int64_t>(LastOf(batch), 7) - batch.first_sequence() + 1;
      response.mutable_stored()->set_duplicates(static_cast<int>(std::max<int64_t>(known, 0)));
      return stream.Write(response);
    });
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(),
                      {.queue = "q", .max_batch_messages = 3, .producer_id = "p"});
  PublishNumbers(publisher, 10);
  ASSERT_TRUE(publisher.Close().ok());
  EXPECT_EQ(publisher.counts().confirmed, 10);
  EXPECT_EQ(publisher.counts().duplicates, 7);
}

TEST_F(PublisherTest, ResendSendsAgainWhatHasNoOutcome) {
  std::atomic<int> streams = 0;
  std::vector<std::string> second;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    const int number = ++streams;
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      if (number == 1) {
        if (LastOf(batch) < 5) return true;
        stream.Write(StoredThrough(2));
        return false;
      }
      for (const auto& message : batch.messages()) second.push_back(message.body());
      return stream.Write(StoredThrough(LastOf(batch)));
    });
    return number == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone") : grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q", .after_break = AfterBreak::kResend});
  PublishNumbers(publisher, 5);
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(second, (std::vector<std::string>{"2", "3", "4"}));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(outcomes_[i].status.ok()) << i;
  EXPECT_EQ(publisher.counts().resent, 3);
}

TEST_F(PublisherTest, ReopenNeverSendsAMessageTwice) {
  std::atomic<int> streams = 0;
  std::mutex mutex;
  std::map<std::string, int> sent;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    const bool first = ++streams == 1;
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      std::lock_guard lock(mutex);
      for (const auto& message : batch.messages()) ++sent[message.body()];
      return !first && stream.Write(StoredThrough(LastOf(batch)));
    });
    return first ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone") : grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q",
                                         .max_in_flight = 10,
                                         .max_batch_messages = 3,
                                         .after_break = AfterBreak::kReopen});
  PublishNumbers(publisher, 100);
  EXPECT_TRUE(publisher.Close().ok());
  ASSERT_EQ(outcomes_.size(), 100u);
  for (const auto& [body, times] : sent) EXPECT_EQ(times, 1) << body;
  const auto counts = publisher.counts();
  EXPECT_GT(counts.unknown, 0);
  EXPECT_LE(counts.unknown, 10);
  EXPECT_EQ(counts.confirmed + counts.unknown, 100);
}

TEST_F(PublisherTest, ARefusedStreamEndsThePublisherWithTheReason) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    return Refusal(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND", "no queue");
  };
  Publisher publisher(server_.client(), {.queue = "q", .after_break = AfterBreak::kResend});
  PublishNumbers(publisher, 1);
  EXPECT_EQ(ReasonOf(publisher.Flush()), v1::ERROR_REASON_QUEUE_NOT_FOUND);
  EXPECT_FALSE(MaybeHappened(outcomes_[0].status));
  // The refusal may be there before the message has left.
  EXPECT_EQ(publisher.counts().refused + publisher.counts().not_sent, 1);
}

TEST_F(PublisherTest, AProducersSequencesGoOnOverABreak) {
  std::mutex mutex;
  std::vector<std::string> producer_ids;
  std::map<int64_t, std::string> stored;
  int streams = 0;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    v1::PublishStreamRequest request;
    if (!stream.Read(&request)) return grpc::Status::OK;
    std::unique_lock lock(mutex);
    producer_ids.push_back(request.init().producer_id());
    const bool first_stream = ++streams == 1;
    lock.unlock();
    v1::PublishStreamResponse started;
    started.mutable_started()->set_max_in_flight(1000);
    stream.Write(started);
    int batches = 0;
    while (stream.Read(&request)) {
      const v1::PublishStreamBatch& batch = request.batch();
      lock.lock();
      for (int i = 0; i < batch.messages_size(); ++i) {
        const auto [it, fresh] =
            stored.emplace(batch.first_sequence() + i, batch.messages(i).body());
        EXPECT_EQ(it->second, batch.messages(i).body()) << "a sequence stands for one message";
      }
      lock.unlock();
      // Stored, and the answer is lost on the way.
      if (first_stream && ++batches == 2) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
      }
      stream.Write(StoredThrough(LastOf(batch)));
    }
    return grpc::Status::OK;
  };
  PublisherOptions options;
  options.queue = "q";
  options.producer_id = "import-7";
  options.max_batch_messages = 3;
  options.after_break = AfterBreak::kReopen;  // taken as kResend
  Publisher publisher(server_.client(), options);
  PublishNumbers(publisher, 20);
  ASSERT_TRUE(publisher.Close(absl::Seconds(30)).ok());
  EXPECT_EQ(producer_ids, (std::vector<std::string>{"import-7", "import-7"}));
  ASSERT_EQ(stored.size(), 20u);
  for (const auto& [sequence, body] : stored) EXPECT_EQ(body, std::to_string(sequence - 1));
  ASSERT_EQ(outcomes_.size(), 20u);
  for (const auto& [i, outcome] : outcomes_) EXPECT_TRUE(outcome.status.ok()) << i;
  EXPECT_EQ(publisher.counts().resent, 0);
}

TEST_F(PublisherTest, AStreamThatTheTransportEndsLeavesItsMessagesUnknown) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    Serve(stream, [](const v1::PublishStreamBatch& batch) { return LastOf(batch) < 3; });
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "RST_STREAM with error code 11");
  };
  Publisher publisher(server_.client(), {.queue = "q"});
  PublishNumbers(publisher, 3);
  EXPECT_FALSE(publisher.Flush().ok());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(MaybeHappened(outcomes_[i].status)) << i;
  EXPECT_EQ(publisher.counts().unknown, 3);
  EXPECT_EQ(publisher.counts().refused, 0);
}

TEST_F(PublisherTest, ResendGoesOnAfterTransportErrors) {
  const std::vector<grpc::StatusCode> ends = {grpc::StatusCode::RESOURCE_EXHAUSTED,
                                              grpc::StatusCode::INTERNAL,
                                              grpc::StatusCode::UNKNOWN};
  std::atomic<size_t> streams = 0;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    const size_t number = streams++;
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      return number >= ends.size() && stream.Write(StoredThrough(LastOf(batch)));
    });
    return number < ends.size() ? grpc::Status(ends[number], "RST_STREAM") : grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q", .after_break = AfterBreak::kResend});
  PublishNumbers(publisher, 5);
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(publisher.counts().confirmed, 5);
}

TEST_F(PublisherTest, GivesUpOnAMessageThatBreaksEveryStream) {
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    Serve(stream, [](const v1::PublishStreamBatch&) { return false; });
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large for the proxy");
  };
  Publisher publisher(server_.client(), {.queue = "q",
                                         .after_break = AfterBreak::kResend,
                                         .reopen_timeout = absl::Milliseconds(200)});
  PublishNumbers(publisher, 1);
  EXPECT_EQ(publisher.Flush(absl::Seconds(20)).code(), absl::StatusCode::kResourceExhausted);
}

// Each end leaves something unanswered that was not stored.
TEST_F(PublisherTest, AgedStreamsAreFollowedByOthersAlsoWithoutRetrying) {
  for (const AfterBreak after_break : {AfterBreak::kStop, AfterBreak::kReopen}) {
    outcomes_.clear();
    std::atomic<int> streams = 0;
    std::vector<std::string> stored;
    server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
      const bool last = ++streams == 4;
      Serve(stream, [&](const v1::PublishStreamBatch& batch) {
        const int kept = last ? batch.messages_size() : batch.messages_size() / 2;
        for (int i = 0; i < kept; ++i) stored.push_back(batch.messages(i).body());
        if (kept > 0) stream.Write(StoredThrough(batch.first_sequence() + kept - 1));
        return last;
      });
      return last ? grpc::Status::OK
                  : Refusal(grpc::StatusCode::UNAVAILABLE, "STREAM_AGED", "open it again");
    };
    Publisher publisher(server_.client(), {.queue = "q", .after_break = after_break});
    PublishNumbers(publisher, 500);
    EXPECT_TRUE(publisher.Close().ok());
    EXPECT_EQ(streams, 4);
    ASSERT_EQ(stored.size(), 500u);
    for (int i = 0; i < 500; ++i) {
      EXPECT_EQ(stored[static_cast<size_t>(i)], std::to_string(i));
      EXPECT_TRUE(outcomes_[i].status.ok()) << outcomes_[i].status;
    }
    EXPECT_EQ(publisher.counts().confirmed, 500);
    EXPECT_EQ(publisher.counts().resent, 0);
  }
}

TEST_F(PublisherTest, ReopenSendsAgainWhatADrainingServerDidNotTake) {
  std::atomic<int> streams = 0;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    const bool first = ++streams == 1;
    Serve(stream, [&](const v1::PublishStreamBatch& batch) {
      return !first && stream.Write(StoredThrough(LastOf(batch)));
    });
    return first ? Refusal(grpc::StatusCode::UNAVAILABLE, "DRAINING", "bye") : grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q", .after_break = AfterBreak::kReopen});
  PublishNumbers(publisher, 5);
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(publisher.counts().confirmed, 5);
}

TEST_F(PublisherTest, AMessageThatNoRequestCanCarryIsRefusedAlone) {
  std::vector<size_t> sizes;
  server_.on_publish_stream = [&](FakeServer::PublishStreamType& stream) {
    StoreAll(stream, [&](const v1::PublishStreamBatch& batch) {
      for (const auto& message : batch.messages()) sizes.push_back(message.body().size());
    });
    return grpc::Status::OK;
  };
  Publisher publisher(server_.client(), {.queue = "q", .max_bytes_in_flight = 64 << 20});
  EXPECT_TRUE(publisher.Publish(Body("a")).ok());
  v1::Message message = Body(std::string(16 << 20, 'x'));
  while (!CheckMessageSize(message).ok()) message.mutable_body()->pop_back();
  const size_t largest = message.body().size();
  EXPECT_GE(largest, (16u << 20) - 2048);
  EXPECT_TRUE(publisher.Publish(Body(std::string(largest, 'x'))).ok());
  const absl::Status refused = publisher.Publish(Body(std::string(largest + 1, 'x')));
  EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  EXPECT_FALSE(MaybeHappened(refused));
  EXPECT_TRUE(publisher.Publish(Body("b")).ok());
  EXPECT_TRUE(publisher.Close().ok());
  EXPECT_EQ(sizes, (std::vector<size_t>{1, largest, 1}));
  EXPECT_EQ(publisher.counts().refused, 1);
  EXPECT_EQ(publisher.counts().confirmed, 3);
}

TEST_F(PublisherTest, WithoutAServerNothingIsSentAndNothingIsUnknown) {
  Client nobody({.address = "127.0.0.1:1"});
  Publisher publisher(nobody, {.queue = "q"});
  PublishNumbers(publisher, 10);
  EXPECT_TRUE(NotConnected(publisher.Flush()));
  for (const auto& [number, outcome] : outcomes_) {
    EXPECT_TRUE(IsNotSent(outcome.status)) << outcome.status;
  }
  EXPECT_EQ(publisher.counts().not_sent, static_cast<int64_t>(outcomes_.size()));
  EXPECT_EQ(publisher.counts().unknown, 0);
  EXPECT_EQ(publisher.counts().refused, 0);
}

}  // namespace
}  // namespace sluice::client
