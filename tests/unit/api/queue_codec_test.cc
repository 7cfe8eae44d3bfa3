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

std::string FieldRefused(const v1::QueueConfig& config) {
  const auto change = ToConfigChange(config);
  EXPECT_EQ(change.status().code(), absl::StatusCode::kInvalidArgument);
  return FieldOf(change.status());
}

// Every field away from its default.
QueueConfig FullConfig() {
  QueueConfig config;
  config.name = "work";
  config.lease_ms = 1'500;
  config.retry = {3, 20, 30'000, true};
  config.dead_letter_queue = "dead";
  config.ttl_ms = 1;
  config.max_length = 2;
  config.max_bytes = 3;
  config.overflow = Overflow::kDropHead;
  config.dedup_window_ms = 0;
  config.delivery_rate = {0.5, 7};
  config.single_active_consumer = true;
  config.labels = {{"team", "a"}};
  config.priority_aging_ms = kPriorityAgingMsMin;
  config.idle_expiry_ms = kIdleExpiryMsMin;
  return config;
}

void ExpectAsks(const broker::QueueConfigChange& change, const QueueConfig& config) {
  EXPECT_EQ(change.name, config.name);
  EXPECT_EQ(change.lease_ms, config.lease_ms);
  EXPECT_EQ(change.max_attempts, config.retry.max_attempts);
  EXPECT_EQ(change.min_backoff_ms, config.retry.min_backoff_ms);
  EXPECT_EQ(change.max_backoff_ms, config.retry.max_backoff_ms);
  EXPECT_EQ(change.discard_when_exhausted.value_or(false), config.retry.discard_when_exhausted);
  EXPECT_EQ(change.dead_letter_queue.value_or(""), config.dead_letter_queue);
  EXPECT_EQ(change.ttl_ms.value_or(0), config.ttl_ms);
  EXPECT_EQ(change.max_length, config.max_length);
  EXPECT_EQ(change.max_bytes, config.max_bytes);
  EXPECT_EQ(change.overflow, config.overflow);
  EXPECT_EQ(change.dedup_window_ms, config.dedup_window_ms);
  EXPECT_EQ(change.delivery_rate.value_or(RateLimit()), config.delivery_rate);
  EXPECT_EQ(change.single_active_consumer, config.single_active_consumer);
  EXPECT_EQ(change.labels.value_or(std::map<std::string, std::string>()), config.labels);
  EXPECT_EQ(change.priority_aging_ms.value_or(0), config.priority_aging_ms);
  EXPECT_EQ(change.idle_expiry_ms.value_or(0), config.idle_expiry_ms);
}

TEST(QueueCodecTest, NothingSetAsksForNothing) {
  v1::QueueConfig config;
  config.set_name("work");
  const auto change = ToConfigChange(config);
  ASSERT_TRUE(change.ok());
  EXPECT_FALSE(change->lease_ms || change->max_attempts || change->min_backoff_ms ||
               change->max_backoff_ms || change->discard_when_exhausted ||
               change->dead_letter_queue || change->ttl_ms || change->max_length ||
               change->max_bytes || change->overflow || change->dedup_window_ms ||
               change->delivery_rate || change->single_active_consumer || change->labels ||
               change->priority_aging_ms || change->idle_expiry_ms);
}

TEST(QueueCodecTest, NumbersAreRefusedBelowZeroAndBeyondTheirLimits) {
  v1::QueueConfig config;
  config.mutable_retry()->set_max_attempts(kMaxAttemptsCeiling);
  EXPECT_EQ(ToConfigChange(config)->max_attempts, kMaxAttemptsCeiling);
  for (const int32_t bad : {-1, kMaxAttemptsCeiling + 1}) {
    config.mutable_retry()->set_max_attempts(bad);
    EXPECT_EQ(FieldRefused(config), "config.retry.max_attempts") << bad;
  }
  config.Clear();
  config.set_max_length(INT64_MAX);
  config.set_max_bytes(INT64_MAX);
  EXPECT_TRUE(ToConfigChange(config).ok());
  config.set_max_length(-1);
  EXPECT_EQ(FieldRefused(config), "config.max_length");
  config.clear_max_length();
  config.set_max_bytes(-1);
  EXPECT_EQ(FieldRefused(config), "config.max_bytes");
  config.Clear();
  config.set_overflow(static_cast<v1::Overflow>(3));
  EXPECT_EQ(FieldRefused(config), "config.overflow");
  config.Clear();
  config.set_dead_letter_queue("no spaces");
  EXPECT_EQ(FieldRefused(config), "config.dead_letter_queue");
  config.Clear();
  config.mutable_delivery_rate();
  EXPECT_EQ(FieldRefused(config), "config.delivery_rate.per_second");
}

struct DurationField {
  const char* name;
  google::protobuf::Duration* (v1::QueueConfig::*field)();
  std::optional<int64_t> broker::QueueConfigChange::*value;
  int64_t ms_min;  // beside 0
  int64_t ms_max;
  bool zero;
};

class QueueDurationTest : public testing::TestWithParam<DurationField> {};

TEST_P(QueueDurationTest, IsTakenWithinItsBoundsOnly) {
  const DurationField& field = GetParam();
  v1::QueueConfig config;
  auto* const duration = (config.*field.field)();
  const auto at = [&](int64_t ms) {
    duration->set_seconds(ms / 1000);
    duration->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
    return ToConfigChange(config);
  };
  EXPECT_EQ((*at(field.ms_min)).*field.value, field.ms_min);
  EXPECT_EQ((*at(field.ms_max)).*field.value, field.ms_max);
  EXPECT_EQ(FieldOf(at(field.ms_max + 1).status()), field.name);
  EXPECT_EQ(FieldOf(at(-1).status()), field.name);
  EXPECT_EQ(at(0).ok(), field.zero);
  if (field.ms_min > 1) {
    EXPECT_EQ(FieldOf(at(field.ms_min - 1).status()), field.name);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, QueueDurationTest,
    testing::Values(
        DurationField{"config.lease", &v1::QueueConfig::mutable_lease,
                      &broker::QueueConfigChange::lease_ms, kLeaseMsMin, kLeaseMsMax, false},
        DurationField{"config.ttl", &v1::QueueConfig::mutable_ttl,
                      &broker::QueueConfigChange::ttl_ms, 1, kTtlMsMax, true},
        DurationField{"config.dedup_window", &v1::QueueConfig::mutable_dedup_window,
                      &broker::QueueConfigChange::dedup_window_ms, 1, kDedupWindowMsMax, true},
        DurationField{"config.priority_aging", &v1::QueueConfig::mutable_priority_aging,
                      &broker::QueueConfigChange::priority_aging_ms, kPriorityAgingMsMin,
                      kPriorityAgingMsMax, true},
        DurationField{"config.idle_expiry", &v1::QueueConfig::mutable_idle_expiry,
                      &broker::QueueConfigChange::idle_expiry_ms, kIdleExpiryMsMin,
                      kIdleExpiryMsMax, true}),
    [](const auto& info) { return std::string(info.param.name).substr(7); });

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
  EXPECT_EQ(FieldOf(ApplyMask(MaskOf({"lease.seconds"}), &change, &replace)), "update_mask");
  EXPECT_EQ(FieldOf(ApplyMask(MaskOf({"name"}), &change, &replace)), "update_mask");
}

TEST(QueueCodecTest, MaskNamesEveryFieldAndAnUnsetOneGoesBackToItsDefault) {
  broker::QueueConfigChange change;
  change.name = "work";
  bool replace = false;
  // All of them, by the names that protobuf has for them.
  google::protobuf::FieldMask mask;
  const auto* type = v1::QueueConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    if (type->field(i)->name() != "name") mask.add_paths(type->field(i)->name());
  }
  ASSERT_TRUE(ApplyMask(mask, &change, &replace).ok());
  QueueConfig defaults;
  defaults.name = "work";
  ExpectAsks(change, defaults);
  EXPECT_TRUE(change.ttl_ms && change.delivery_rate && change.labels &&
              change.discard_when_exhausted && change.dead_letter_queue);
  // One below another's.
  change = {};
  change.max_attempts = 3;
  change.min_backoff_ms = 1;
  ASSERT_TRUE(ApplyMask(MaskOf({"retry.max_attempts"}), &change, &replace).ok());
  EXPECT_EQ(change.max_attempts, 3);
  EXPECT_FALSE(change.min_backoff_ms.has_value());
}

TEST(QueueCodecTest, WhatIsShownCanBeSentBack) {
  QueueConfig defaults;
  defaults.name = "work";
  for (const QueueConfig& config : {defaults, FullConfig()}) {
    broker::QueueInfo info;
    info.config = config;
    info.revision = 12;
    v1::Queue queue;
    ToProto(info, &queue);
    const auto change = ToConfigChange(queue.config());
    ASSERT_TRUE(change.ok()) << change.status();
    ExpectAsks(*change, config);
    EXPECT_EQ(*RevisionOf(queue.etag()), 12u);
  }
}

TEST(QueueCodecTest, ShowsStateStatsAndWhyItWaits) {
  broker::QueueInfo info;
  info.paused = true;
  info.waiting = {WaitReason::kPaused, WaitReason::kDeadLetterQueueFull};
  info.stats = {.ready = 1,
                .leased = 2,
                .delayed = 3,
                .blocked = 4,
                .bytes = 5,
                .consumers = 6,
                .oldest_ready_age_ms = 7'001};
  v1::Queue queue;
  ToProto(info, &queue);
  EXPECT_EQ(queue.state(), v1::QUEUE_STATE_PAUSED);
  ASSERT_EQ(queue.waiting_size(), 2);
  EXPECT_EQ(queue.waiting(0), v1::WAIT_REASON_PAUSED);
  EXPECT_EQ(queue.waiting(1), v1::WAIT_REASON_DEAD_LETTER_QUEUE_FULL);
  EXPECT_EQ(queue.stats().ready(), 1);
  EXPECT_EQ(queue.stats().leased(), 2);
  EXPECT_EQ(queue.stats().delayed(), 3);
  EXPECT_EQ(queue.stats().blocked(), 4);
  EXPECT_EQ(queue.stats().bytes(), 5);
  EXPECT_EQ(queue.stats().consumers(), 6);
  EXPECT_EQ(queue.stats().oldest_ready_age().seconds(), 7);
  info.paused = false;
  ToProto(info, &queue);
  EXPECT_EQ(queue.state(), v1::QUEUE_STATE_ACTIVE);
}

TEST(QueueCodecTest, EtagsOfNoRevisionMismatch) {
  EXPECT_EQ(*RevisionOf(""), 0u);
  for (const char* bad : {"r", "r0", "12", "rx", "r-1"}) {
    EXPECT_EQ(ReasonOf(RevisionOf(bad).status()), ErrorReason::kEtagMismatch) << bad;
  }
}

}  // namespace
}  // namespace sluice::api
