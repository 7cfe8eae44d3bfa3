// Queues with limits, for tests of what they refuse and drop and of who waits for them.
#ifndef SLUICE_TESTS_UNIT_BROKER_ROOM_FIXTURE_H_
#define SLUICE_TESTS_UNIT_BROKER_ROOM_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/shard_harness.h"

namespace sluice::broker {

inline QueueConfigChange Limited(int64_t max_length, Overflow overflow = Overflow::kReject) {
  QueueConfigChange config;
  config.name = "q";
  config.max_length = max_length;
  config.overflow = overflow;
  return config;
}

inline std::vector<testing::TestMessage> Many(int count, const std::string& prefix = "") {
  std::vector<testing::TestMessage> messages;
  for (int i = 0; i < count; ++i) messages.push_back({prefix + std::to_string(i)});
  return messages;
}

inline Publish Waiting(const std::vector<testing::TestMessage>& messages, int64_t wait_ms) {
  Publish publish = testing::MakePublish("q", messages);
  publish.wait_when_full_ms = wait_ms;
  return publish;
}

class Room : public ::testing::Test {
 protected:
  using Reply = testing::ShardHarness::PublishReply;
  void Create(const QueueConfigChange& config) {
    const auto created = shard_.CreateQueue(config);
    ASSERT_TRUE(created.ok()) << created.status();
  }
  // kUnspecified: it was taken.
  ErrorReason Refused(const std::vector<testing::TestMessage>& messages) {
    const auto result = shard_.Publish(testing::MakePublish("q", messages));
    return result.ok() ? ErrorReason::kUnspecified : ReasonOf(result.status());
  }
  testing::ShardHarness shard_;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_ROOM_FIXTURE_H_
