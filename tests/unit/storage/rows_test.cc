#include "server/storage/rows.h"

#include <functional>
#include <limits>

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
  row.config.labels = {{"team", "a"}, {"", "empty name"}};
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
  row.clean_stop = true;
  row.server_id = "0123456789abcdef0123456789abcdef";
  row.receipt_key[3] = 255;
  return row;
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
  value[1] = 1 << 5;
  EXPECT_FALSE(ParseMessageValue(value).ok()) << "an unknown flag must not be ignored";
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
                                                   .size_bytes = 6}));
  ASSERT_TRUE(history.ok());
  EXPECT_EQ(history->boot, 1u);
  EXPECT_EQ(history->delivery_count, 2u);
  EXPECT_EQ(history->attempt, 3);
  EXPECT_EQ(history->not_before_ms, 4);
  EXPECT_EQ(history->lease_until_ms, 5);
  EXPECT_EQ(history->size_bytes, 6u);
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
  row.format_version = kStoreFormatVersion + 1;
  EXPECT_EQ(ParseBoot(EncodeBoot(row)).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace sluice::storage
