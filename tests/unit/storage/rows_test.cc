#include "server/storage/rows.h"

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::storage {
namespace {

std::string_view View(const std::array<char, kMessageKeyBytes>& key) {
  return {key.data(), key.size()};
}

QueueRow ExampleQueue() {
  QueueRow row;
  row.config.name = "orders";
  row.config.lease_ms = 1234;
  row.config.retry = {7, 5, 6, true};
  row.config.dead_letter_queue = "orders.dead";
  row.config.ttl_ms = 8;
  row.config.max_length = 9;
  row.config.max_bytes = 1ll << 40;
  row.config.overflow = Overflow::kDropHead;
  row.config.dedup_window_ms = 11;
  row.config.delivery_rate = {0.1, 12};
  row.config.single_active_consumer = true;
  row.config.priority_aging_ms = 13;
  row.config.idle_expiry_ms = 14;
  row.config.labels = {{"team", "a"}, {"", "empty name"}};
  row.paused = true;
  row.temporary = true;
  row.create_ms = 10;
  row.update_ms = 20;
  row.revision = 3;
  return row;
}

BootRow ExampleBoot() {
  BootRow row;
  row.boot = 7;
  row.lsn = 1ull << 40;
  row.engine_ms = 1'700'000'000'000;
  row.next_qid = 9;
  row.next_number = 1ull << 33;
  row.expiry_cursor_ms = 1'700'000'000'001;
  row.clean_stop = true;
  row.server_id = "0123456789abcdef0123456789abcdef";
  row.receipt_key[3] = 255;
  row.hash_key[15] = 254;
  return row;
}

Death ExampleDeath(std::string queue) {
  Death death;
  death.queue = std::move(queue);
  death.reason = DeathReason::kRejected;
  death.count = 2;
  death.attempts = 3;
  death.first_ms = 4;
  death.last_ms = 5;
  death.detail = "no such customer";
  return death;
}

// Everything that a message can have.
MessageInfo ExampleInfo() {
  MessageInfo info;
  info.publish_ms = 1;
  info.expire_ms = 2;
  info.due_ms = 3;
  info.group_hash = ~uint64_t{0};
  info.priority = 9;
  auto origin = std::make_shared<Origin>();
  origin->id = {1, 2, 3, 4};
  origin->deaths = {ExampleDeath("a"), ExampleDeath("b")};
  info.origin = std::move(origin);
  return info;
}
std::string Header(const MessageInfo& info) {
  std::string header;
  EncodeMessageHeader(info, &header);
  return header;
}
void ExpectSame(const MessageInfo& a, const MessageInfo& b) {
  EXPECT_EQ(a.publish_ms, b.publish_ms);
  EXPECT_EQ(a.expire_ms, b.expire_ms);
  EXPECT_EQ(a.due_ms, b.due_ms);
  EXPECT_EQ(a.group_hash, b.group_hash);
  EXPECT_EQ(a.priority, b.priority);
  ASSERT_EQ(a.origin == nullptr, b.origin == nullptr);
  if (!a.origin) return;
  EXPECT_EQ(a.origin->id, b.origin->id);
  EXPECT_EQ(a.origin->deaths, b.origin->deaths);
}

TEST(RowsTest, MessageKeysSortByQueueLaneAndSeq) {
  const MessagePosition a{0, 1, 2, 255};
  const MessagePosition b{0, 1, 2, 256};
  const MessagePosition c{0, 1, 3, 1};
  const MessagePosition d{0, 256, 0, 1};
  EXPECT_LT(View(MessageKey(a)), View(MessageKey(b)));
  EXPECT_LT(View(MessageKey(b)), View(MessageKey(c)));
  EXPECT_LT(View(MessageKey(c)), View(MessageKey(d)));
  EXPECT_EQ(ParseMessageKey(View(MessageKey(b))), b);
  EXPECT_FALSE(ParseMessageKey("short"));
}

TEST(RowsTest, MessageValueRoundTrips) {
  std::string value;
  EncodeMessageHeader({.publish_ms = -5}, &value);
  ASSERT_EQ(value.size(), 10u) << "a plain message pays for nothing else";
  value += "wire";
  const auto parsed = ParseMessageValue(value);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->info.publish_ms, -5);
  EXPECT_EQ(parsed->wire, "wire");
  EXPECT_FALSE(ParseMessageValue(value.substr(0, 9)).ok());
  value[1] = static_cast<char>(1 << 5);
  EXPECT_FALSE(ParseMessageValue(value).ok()) << "an unknown flag must not be ignored";
}

TEST(RowsTest, WhatAMessageHasComesBackAloneAndTogether) {
  const MessageInfo all = ExampleInfo();
  std::vector<MessageInfo> infos(6);
  infos[0].group_hash = all.group_hash;
  infos[1].expire_ms = all.expire_ms;
  infos[2].due_ms = all.due_ms;
  infos[3].priority = 0;
  infos[4].origin = std::make_shared<Origin>();
  infos[5] = all;
  for (const MessageInfo& info : infos) {
    const std::string value = Header(info) + "wire";
    const auto parsed = ParseMessageValue(value);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ExpectSame(parsed->info, info);
    EXPECT_EQ(parsed->wire, "wire");
  }
}

TEST(RowsTest, AReusedScratchHoldsOnlyTheLastHeader) {
  std::string scratch;
  EncodeMessageHeader(ExampleInfo(), &scratch);
  EXPECT_EQ(EncodeMessageHeader({.publish_ms = 7}, &scratch), Header({.publish_ms = 7}));
}

TEST(RowsTest, EveryCutOfAMessageHeaderIsDataLoss) {
  const std::string header = Header(ExampleInfo());
  for (size_t size = 0; size < header.size(); ++size) {
    EXPECT_EQ(ParseMessageValue(header.substr(0, size)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST(RowsTest, AMessageHeaderWithImpossibleValuesIsDataLoss) {
  MessageInfo info;
  info.priority = kPriorityMax + 1;
  EXPECT_EQ(ParseMessageValue(Header(info)).status().code(), absl::StatusCode::kDataLoss);

  Origin origin;
  origin.deaths = Deaths(kDeathsMax, ExampleDeath("q"));
  info = {};
  info.origin = std::make_shared<Origin>(origin);
  std::string most = Header(info);
  EXPECT_TRUE(ParseMessageValue(most).ok());
  constexpr size_t kDeathCountAt = 10 + 15;
  ASSERT_EQ(most[kDeathCountAt], static_cast<char>(kDeathsMax));
  most[kDeathCountAt] = kDeathsMax + 1;
  EXPECT_EQ(ParseMessageValue(most).status().code(), absl::StatusCode::kDataLoss);

  origin.deaths = {ExampleDeath("q")};
  origin.deaths[0].reason = static_cast<DeathReason>(5);
  info.origin = std::make_shared<Origin>(origin);
  EXPECT_EQ(ParseMessageValue(Header(info)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(RowsTest, AMessageOfAnUnknownVersionIsRefused) {
  std::string value = Header({}) + "wire";
  value[0] = 2;
  EXPECT_EQ(ParseMessageValue(value).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(RowsTest, MetaKeysRoundTrip) {
  const auto acks = ParseMetaKey(AcksKey(1, 2, 3, 4));
  ASSERT_TRUE(acks.ok());
  EXPECT_EQ(acks->type, MetaType::kAcks);
  EXPECT_EQ(acks->shard, 1);
  EXPECT_EQ(acks->qid, 2u);
  EXPECT_EQ(acks->lane, 3);
  EXPECT_EQ(acks->number, 4u);
  EXPECT_EQ(ParseMetaKey(HistoryKey({1, 2, 3, 4}))->type, MetaType::kHistory);
  EXPECT_EQ(ParseMetaKey(QueueKey(1, 8))->qid, 8u);
  EXPECT_EQ(ParseMetaKey(LaneKey(1, 8, 9))->lane, 9);
  EXPECT_EQ(ParseMetaKey(BootKey(1))->type, MetaType::kBoot);
  EXPECT_EQ(ParseMetaKey(ExchangeKey(1, 5))->number, 5u);
  EXPECT_EQ(ParseMetaKey(ExchangeKey(1, 5))->type, MetaType::kExchange);
  EXPECT_EQ(ParseMetaKey(BindingKey(1, ~0ull))->number, ~0ull);
  EXPECT_EQ(ParseMetaKey(BindingKey(1, 5))->type, MetaType::kBinding);
  const Hash128 hash = {1, 2, 3};
  EXPECT_EQ(ParseMetaKey(ProducerKey(1, hash))->type, MetaType::kProducer);
  EXPECT_EQ(ParseMetaKey(ProducerKey(1, hash))->hash, hash);
  EXPECT_FALSE(ParseMetaKey(ProducerKey(1, hash).substr(0, 18)).ok());
  EXPECT_FALSE(ParseMetaKey(BootKey(1) + "x").ok());
  EXPECT_FALSE(ParseMetaKey(std::string("\0\0Z", 3)).ok());
  EXPECT_FALSE(ParseMetaKey("").ok());
}

TEST(RowsTest, RangeOfAQueueHoldsItsRowsAndNoOthers) {
  for (const QueueId qid : {1u, 255u, std::numeric_limits<QueueId>::max()}) {
    const KeyRange range = MetaRangeOfQueue(0, MetaType::kAcks, qid);
    EXPECT_LE(range.begin, AcksKey(0, qid, 0, 0));
    EXPECT_LT(AcksKey(0, qid, 255, std::numeric_limits<uint64_t>::max()), range.end);
    if (qid != std::numeric_limits<QueueId>::max()) {
      EXPECT_GE(AcksKey(0, qid + 1, 0, 0), range.end);
    }
    EXPECT_LT(AcksKey(0, qid - 1, 255, std::numeric_limits<uint64_t>::max()), range.begin);
    EXPECT_GE(BootKey(0), range.end);
  }
}

TEST(RowsTest, QueueRoundTrips) {
  const QueueRow row = ExampleQueue();
  const auto parsed = ParseQueue(EncodeQueue(row));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config, row.config);
  EXPECT_EQ(parsed->create_ms, 10);
  EXPECT_EQ(parsed->update_ms, 20);
  EXPECT_EQ(parsed->revision, 3u);
  EXPECT_TRUE(parsed->paused);
  EXPECT_TRUE(parsed->temporary);
  EXPECT_EQ(ParseQueue(EncodeQueue({}))->config, QueueConfig{});
}

TEST(RowsTest, AQueueWithImpossibleValuesIsDataLoss) {
  QueueRow row;
  row.config.delivery_rate.per_second = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(ParseQueue(EncodeQueue(row)).status().code(), absl::StatusCode::kDataLoss);
  row.config.delivery_rate.per_second = -1;
  EXPECT_EQ(ParseQueue(EncodeQueue(row)).status().code(), absl::StatusCode::kDataLoss);
  row = {};
  row.config.overflow = static_cast<Overflow>(3);
  EXPECT_EQ(ParseQueue(EncodeQueue(row)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(RowsTest, ExchangesAndBindingsRoundTrip) {
  const Exchange exchange{"events", ExchangeType::kHeaders, "lost", {{"team", "a"}}};
  EXPECT_EQ(*ParseExchange(EncodeExchange(exchange)), exchange);
  const Binding to_queue{"events", "q", "", "a.#", {{"k", "v"}, {"l", ""}}, HeaderMatch::kAny};
  EXPECT_EQ(*ParseBinding(EncodeBinding(to_queue)), to_queue);
  const Binding to_exchange{"events", "", "more", "", {}, HeaderMatch::kAll};
  EXPECT_EQ(*ParseBinding(EncodeBinding(to_exchange)), to_exchange);

  EXPECT_FALSE(ParseBinding(EncodeBinding({"events", "", "", "", {}, HeaderMatch::kAll})).ok());
  EXPECT_FALSE(ParseBinding(EncodeBinding({"events", "q", "x", "", {}, HeaderMatch::kAll})).ok());
  EXPECT_FALSE(ParseExchange(EncodeExchange({"e", ExchangeType::kUnspecified, "", {}})).ok());
  EXPECT_FALSE(ParseExchange(EncodeExchange({"e", static_cast<ExchangeType>(5), "", {}})).ok());
}

TEST(RowsTest, ProducersRoundTrip) {
  const auto parsed = ParseProducer(EncodeProducer({.last_sequence = 1ll << 50, .update_ms = 9}));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->last_sequence, 1ll << 50);
  EXPECT_EQ(parsed->update_ms, 9);
}

TEST(RowsTest, IndexKeysRoundTrip) {
  const MessagePosition at{1, 2, kDelayedLane, 4};
  const auto due = ParseIndexKey(DueKey(at, 5));
  ASSERT_TRUE(due.ok());
  EXPECT_EQ(due->type, IndexType::kDue);
  EXPECT_EQ(due->position, at);
  EXPECT_EQ(due->time_ms, 5);
  const auto expiry = ParseIndexKey(ExpiryKey(at, 6));
  ASSERT_TRUE(expiry.ok());
  EXPECT_EQ(expiry->type, IndexType::kExpiry);
  EXPECT_EQ(expiry->position, at);
  EXPECT_EQ(expiry->time_ms, 6);
  const auto group = ParseIndexKey(GroupKey(at, ~0ull));
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(group->type, IndexType::kGroup);
  EXPECT_EQ(group->position, at);
  EXPECT_EQ(group->group_hash, ~0ull);
  const MessagePosition id{9, 8, 7, 6};
  const auto moved = ParseIndexKey(IdKey(1, 2, id));
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(moved->type, IndexType::kId);
  EXPECT_EQ(moved->position, (MessagePosition{1, 2, 0, 0}));
  EXPECT_EQ(moved->id, id);
  const Hash128 hash = {3, 2, 1};
  const auto dedup = ParseIndexKey(DedupKey(1, 2, hash));
  ASSERT_TRUE(dedup.ok());
  EXPECT_EQ(dedup->type, IndexType::kDedup);
  EXPECT_EQ(dedup->position, (MessagePosition{1, 2, 0, 0}));
  EXPECT_EQ(dedup->hash, hash);

  for (const std::string& key : {DueKey(at, 5), ExpiryKey(at, 6), GroupKey(at, 7), IdKey(1, 2, id),
                                 DedupKey(1, 2, hash)}) {
    for (size_t size = 0; size < key.size(); ++size) {
      EXPECT_EQ(ParseIndexKey(key.substr(0, size)).status().code(), absl::StatusCode::kDataLoss);
    }
    EXPECT_FALSE(ParseIndexKey(key + "x").ok());
  }
  EXPECT_FALSE(ParseIndexKey(std::string("\0\0Z", 3)).ok());
}

TEST(RowsTest, IndexKeysSortByWhatTheyAreLookedUpBy) {
  EXPECT_LT(DueKey({0, 1, kDelayedLane, 9}, 255), DueKey({0, 1, kDelayedLane, 1}, 256));
  EXPECT_LT(DueKey({0, 1, kDelayedLane, 1}, 256), DueKey({0, 1, kDelayedLane, 2}, 256));
  EXPECT_LT(DueKey({0, 1, kDelayedLane, 1}, 256), DueKey({0, 2, kDelayedLane, 1}, 1));
  EXPECT_LT(ExpiryKey({0, 9, 9, 9}, 255), ExpiryKey({0, 1, 1, 1}, 256)) << "over all queues";
  EXPECT_LT(GroupKey({0, 1, 5, 255}, 7), GroupKey({0, 1, 5, 256}, 7));
  EXPECT_LT(GroupKey({0, 1, 5, 256}, 7), GroupKey({0, 1, 5, 1}, 8));
}

TEST(RowsTest, IndexValuesRoundTrip) {
  EXPECT_EQ(EmptyIndexValue().size(), 1u);
  const auto id = ParseId(EncodeId({.lane = 16, .seq = 1ull << 60}));
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(id->lane, 16);
  EXPECT_EQ(id->seq, 1ull << 60);
  const auto dedup = ParseDedup(EncodeDedup({.id = {1, 2, 3, 4}, .expire_ms = 5}));
  ASSERT_TRUE(dedup.ok());
  EXPECT_EQ(dedup->id, (MessagePosition{1, 2, 3, 4}));
  EXPECT_EQ(dedup->expire_ms, 5);
}

TEST(RowsTest, BootRoundTrips) {
  const BootRow row = ExampleBoot();
  const auto parsed = ParseBoot(EncodeBoot(row));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->boot, row.boot);
  EXPECT_EQ(parsed->lsn, row.lsn);
  EXPECT_EQ(parsed->engine_ms, row.engine_ms);
  EXPECT_EQ(parsed->next_qid, row.next_qid);
  EXPECT_TRUE(parsed->clean_stop);
  EXPECT_EQ(parsed->server_id, row.server_id);
  EXPECT_EQ(parsed->receipt_key, row.receipt_key);
  EXPECT_EQ(parsed->hash_key, row.hash_key);
  EXPECT_EQ(parsed->next_number, row.next_number);
  EXPECT_EQ(parsed->expiry_cursor_ms, row.expiry_cursor_ms);
}

TEST(RowsTest, LaneAcksAndHistoryRoundTrip) {
  const auto lane = ParseLane(EncodeLane({.head = 5, .next_seq = 9, .unsettled_bytes = 1ull << 50,
                                          .grant_bound = 7}));
  ASSERT_TRUE(lane.ok());
  EXPECT_EQ(lane->head, 5u);
  EXPECT_EQ(lane->next_seq, 9u);
  EXPECT_EQ(lane->unsettled_bytes, 1ull << 50);
  EXPECT_EQ(lane->grant_bound, 7u);
  EXPECT_FALSE(ParseLane(EncodeLane({.head = 10, .next_seq = 9})).ok());

  AcksRow bits;
  bits.bits[7] = 1ull << 63;
  EXPECT_EQ(ParseAcks(EncodeAcks(bits))->bits, bits.bits);
  EXPECT_EQ(ParseAcks(EncodeAcks(bits))->run, 0u);
  EXPECT_EQ(ParseAcks(EncodeAcks({.run = 12}))->run, 12u);

  const auto history = ParseHistory(EncodeHistory({.boot = 1, .delivery_count = 2, .attempt = 3,
                                                   .not_before_ms = 4, .lease_until_ms = 5,
                                                   .size_bytes = 6, .group_hash = 7,
                                                   .expire_ms = 8, .maybe_redelivered = true,
                                                   .death = DeathReason::kOverflow,
                                                   .detail = "why"}));
  ASSERT_TRUE(history.ok());
  EXPECT_FALSE(history->has_due_row);
  EXPECT_TRUE(ParseHistory(EncodeHistory({.has_due_row = true}))->has_due_row);
  EXPECT_EQ(history->boot, 1u);
  EXPECT_EQ(history->delivery_count, 2u);
  EXPECT_EQ(history->attempt, 3);
  EXPECT_EQ(history->not_before_ms, 4);
  EXPECT_EQ(history->lease_until_ms, 5);
  EXPECT_EQ(history->size_bytes, 6u);
  EXPECT_EQ(history->group_hash, 7u);
  EXPECT_EQ(history->expire_ms, 8);
  EXPECT_TRUE(history->maybe_redelivered);
  EXPECT_EQ(history->death, DeathReason::kOverflow);
  EXPECT_EQ(history->detail, "why");
  EXPECT_FALSE(ParseHistory(EncodeHistory({.death = static_cast<DeathReason>(5)})).ok());
}

struct Kind {
  std::string name;
  std::string value;
  std::function<absl::Status(std::string_view)> parse;
};

std::vector<Kind> Kinds() {
  return {
      {"boot", EncodeBoot(ExampleBoot()), [](auto v) { return ParseBoot(v).status(); }},
      {"queue", EncodeQueue(ExampleQueue()), [](auto v) { return ParseQueue(v).status(); }},
      {"lane", EncodeLane({}), [](auto v) { return ParseLane(v).status(); }},
      {"acks", EncodeAcks({}), [](auto v) { return ParseAcks(v).status(); }},
      {"history", EncodeHistory({}), [](auto v) { return ParseHistory(v).status(); }},
      {"producer", EncodeProducer({}), [](auto v) { return ParseProducer(v).status(); }},
      {"exchange", EncodeExchange({"e", ExchangeType::kTopic, "f", {{"k", "v"}}}),
       [](auto v) { return ParseExchange(v).status(); }},
      {"binding", EncodeBinding({"e", "q", "", "k", {{"h", "v"}}, HeaderMatch::kAny}),
       [](auto v) { return ParseBinding(v).status(); }},
      {"id", EncodeId({}), [](auto v) { return ParseId(v).status(); }},
      {"dedup", EncodeDedup({}), [](auto v) { return ParseDedup(v).status(); }},
  };
}

TEST(RowsTest, EveryCutOfEveryRowIsDataLoss) {
  for (const Kind& kind : Kinds()) {
    for (size_t size = 0; size < kind.value.size(); ++size) {
      EXPECT_EQ(kind.parse(std::string_view(kind.value).substr(0, size)).code(),
                absl::StatusCode::kDataLoss)
          << kind.name << " " << size;
    }
    EXPECT_EQ(kind.parse(kind.value + "x").code(), absl::StatusCode::kDataLoss) << kind.name;
  }
}

TEST(RowsTest, UnknownVersionIsRefusedByName) {
  for (Kind& kind : Kinds()) {
    kind.value[0] = 42;
    const absl::Status status = kind.parse(kind.value);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << kind.name;
    EXPECT_NE(status.message().find("version 42"), absl::string_view::npos) << status;
  }
}

TEST(RowsTest, UnknownStoreFormatIsRefused) {
  BootRow row = ExampleBoot();
  for (const uint32_t version : {0u, 1u, kStoreFormatVersion + 1}) {
    row.format_version = version;
    const absl::Status status = ParseBoot(EncodeBoot(row)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(status.message().find("version " + std::to_string(version)),
              absl::string_view::npos)
        << status;
  }
}

}  // namespace
}  // namespace sluice::storage
