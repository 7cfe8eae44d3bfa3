#include "server/api/queue_codec.h"

#include <gtest/gtest.h>

#include "server/model/error.h"

namespace sluice::api {
namespace {

google::protobuf::FieldMask MaskOf(std::vector<std::string> paths) {
  google::protobuf::FieldMask mask;
  for (auto& path : paths) mask.add_paths(std::move(path));
  return mask;
}

TEST(QueueCodecTest, FieldsOfLaterFeaturesAreRefusedByName) {
  v1::QueueConfig config;
  config.set_max_length(0);  // set, though to its default
  EXPECT_EQ(FieldOf(ToConfigChange(config).status()), "config.max_length");
  config.Clear();
  config.mutable_retry()->set_max_attempts(3);
  EXPECT_EQ(FieldOf(ToConfigChange(config).status()), "config.retry.max_attempts");
  config.Clear();
  config.set_overflow(v1::OVERFLOW_DROP_HEAD);
  EXPECT_EQ(ToConfigChange(config).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(QueueCodecTest, ValuesThatAnEnumLacksAreInvalidRatherThanNotBuilt) {
  v1::QueueConfig config;
  config.set_overflow(static_cast<v1::Overflow>(77));
  EXPECT_EQ(ToConfigChange(config).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(ToConfigChange(config).status()), "config.overflow");
}

TEST(QueueCodecTest, BackoffBoundsMustNotCross) {
  v1::QueueConfig config;
  config.mutable_retry()->mutable_min_backoff()->set_seconds(2);
  config.mutable_retry()->mutable_max_backoff()->set_seconds(1);
  EXPECT_EQ(FieldOf(ToConfigChange(config).status()), "config.retry.max_backoff");
}

TEST(QueueCodecTest, MaskNarrowsToItsFieldsAndResetsWhatIsNotSet) {
  broker::QueueConfigChange change;
  change.name = "work";
  change.lease_ms = 5'000;
  change.min_backoff_ms = 1;
  bool replace = true;
  ASSERT_TRUE(ApplyMask(MaskOf({"retry", "labels"}), &change, &replace).ok());
  EXPECT_FALSE(replace);
  EXPECT_EQ(change.name, "work");
  EXPECT_FALSE(change.lease_ms.has_value());
  EXPECT_EQ(change.min_backoff_ms, 1);
  EXPECT_EQ(change.max_backoff_ms, kMaxBackoffMsDefault);
  EXPECT_TRUE(change.labels->empty());
  ASSERT_TRUE(ApplyMask(MaskOf({"*"}), &change, &replace).ok());
  EXPECT_TRUE(replace);
  EXPECT_EQ(ApplyMask(MaskOf({"ttl"}), &change, &replace).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(FieldOf(ApplyMask(MaskOf({"name"}), &change, &replace)), "update_mask");
}

TEST(QueueCodecTest, WhatIsShownCanBeSentBack) {
  broker::QueueInfo info;
  info.config.name = "work";
  info.config.labels = {{"team", "a"}};
  info.revision = 12;
  v1::Queue queue;
  ToProto(info, &queue);
  const auto change = ToConfigChange(queue.config());
  ASSERT_TRUE(change.ok()) << change.status();
  EXPECT_EQ(change->lease_ms, info.config.lease_ms);
  EXPECT_EQ(*change->labels, info.config.labels);
  EXPECT_EQ(*RevisionOf(queue.etag()), 12u);
}

TEST(QueueCodecTest, EtagsOfNoRevisionMismatch) {
  EXPECT_EQ(*RevisionOf(""), 0u);
  for (const char* bad : {"r", "r0", "12", "rx", "r-1"}) {
    EXPECT_EQ(ReasonOf(RevisionOf(bad).status()), ErrorReason::kEtagMismatch) << bad;
  }
}

}  // namespace
}  // namespace sluice::api
