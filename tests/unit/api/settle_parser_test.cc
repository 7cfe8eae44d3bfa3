#include "server/api/settle_parser.h"

#include <gtest/gtest.h>

#include "server/model/error.h"
#include "server/model/limits.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

const ReceiptCodec kCodec{ReceiptCodec::Key{3}};

std::string Text(uint64_t seq) {
  std::string text(kReceiptBytes, '\0');
  kCodec.Encode({{0, 1, 5, seq}, 1, 1}, text.data());
  return text;
}

absl::StatusOr<ParsedReceipts> Parse(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return ParseAckRequest(grpc::ByteBuffer(&slice, 1), kCodec);
}

v1::AckRequest Request(int receipts) {
  v1::AckRequest request;
  request.set_queue("work");
  for (int i = 0; i < receipts; ++i) request.add_receipts(Text(1));
  return request;
}

TEST(SettleParserTest, TakesOneToTenThousandReceipts) {
  EXPECT_EQ(FieldOf(Parse(Request(0).SerializeAsString()).status()), "receipts");
  EXPECT_EQ(Parse(Request(kReceiptsPerCallMax).SerializeAsString())->receipts.size(),
            static_cast<size_t>(kReceiptsPerCallMax));
  EXPECT_EQ(ReasonOf(Parse(Request(kReceiptsPerCallMax + 1).SerializeAsString()).status()),
            ErrorReason::kBatchTooLarge);
}

TEST(SettleParserTest, GarbledReceiptsKeepTheOthersInPlace) {
  auto request = Request(2);
  request.add_receipts("");
  request.add_receipts(std::string(kReceiptBytes, 'A'));
  request.add_receipts(Text(2));
  const auto parsed = Parse(request.SerializeAsString());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->failures.size(), 2u);
  EXPECT_EQ(parsed->failures[0].index, 2);
  EXPECT_EQ(parsed->failures[1].index, 3);
  ASSERT_EQ(parsed->receipts.size(), 3u);
  EXPECT_EQ(parsed->IndexOf(1), 1);
  EXPECT_EQ(parsed->IndexOf(2), 4);
}

TEST(SettleParserTest, CutRequestsAreRefused) {
  const std::string bytes = Request(2).SerializeAsString();
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    const auto parsed = Parse(bytes.substr(0, cut));
    if (parsed.ok()) {
      EXPECT_EQ(parsed->receipts.size(), 1u) << cut;
    }
  }
}

v1::NackRequest NackOf(v1::NackAction action, size_t reason_bytes = 0) {
  v1::NackRequest request;
  auto* const item = request.add_items();
  item->set_receipt(Text(1));
  item->set_action(action);
  item->set_reason(std::string(reason_bytes, 'r'));
  return request;
}

TEST(SettleParserTest, NacksCarryActionDelayAndReason) {
  auto dead = ToNacks(NackOf(v1::NACK_ACTION_DEAD_LETTER, kNackReasonBytesMax), {}, kCodec);
  ASSERT_TRUE(dead.ok()) << dead.status();
  EXPECT_EQ(dead->items[0].action, broker::SettleAction::kDeadLetter);
  EXPECT_EQ(dead->items[0].reason.size(), kNackReasonBytesMax);
  EXPECT_EQ(dead->items[0].receipt, *kCodec.Decode(Text(1)));
  EXPECT_EQ(FieldOf(ToNacks(NackOf(v1::NACK_ACTION_RETRY, kNackReasonBytesMax + 1), "nack", kCodec)
                        .status()),
            "nack.items[0].reason");
  EXPECT_EQ(FieldOf(ToNacks(NackOf(static_cast<v1::NackAction>(6)), {}, kCodec).status()),
            "items[0].action");
  auto delayed = NackOf(v1::NACK_ACTION_RETRY);
  delayed.mutable_items(0)->mutable_delay();
  EXPECT_EQ(FieldOf(ToNacks(delayed, {}, kCodec).status()), "items[0].delay");
}

TEST(SettleParserTest, NackTakesOneToTenThousandItems) {
  v1::NackRequest request;
  EXPECT_EQ(FieldOf(ToNacks(request, {}, kCodec).status()), "items");
  for (int i = 0; i < kReceiptsPerCallMax; ++i) request.add_items()->set_receipt(Text(1));
  EXPECT_EQ(ToNacks(request, {}, kCodec)->items.size(), static_cast<size_t>(kReceiptsPerCallMax));
  request.add_items()->set_receipt(Text(1));
  EXPECT_EQ(ReasonOf(ToNacks(request, {}, kCodec).status()), ErrorReason::kBatchTooLarge);
}

TEST(SettleParserTest, GarbledNacksKeepTheOthersInPlace) {
  auto request = NackOf(v1::NACK_ACTION_RETRY);
  request.mutable_items(0)->set_receipt("garbled");
  *request.add_items() = NackOf(v1::NACK_ACTION_DISCARD).items(0);
  const auto settle = ToNacks(request, {}, kCodec);
  ASSERT_TRUE(settle.ok());
  ASSERT_EQ(settle->items.size(), 1u);
  EXPECT_EQ(settle->items[0].action, broker::SettleAction::kDiscard);
  EXPECT_EQ(settle->receipts.failures[0].index, 0);
  EXPECT_EQ(settle->receipts.IndexOf(0), 1);
}

}  // namespace
}  // namespace sluice::api
