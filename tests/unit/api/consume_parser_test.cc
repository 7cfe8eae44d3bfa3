#include "server/api/consume_parser.h"

#include <gtest/gtest.h>

#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

const ReceiptCodec kCodec{ReceiptCodec::Key{3}};

std::string Text(uint64_t seq) {
  std::string text(kReceiptBytes, '\0');
  kCodec.Encode({{0, 1, 5, seq}, 1, 1}, text.data());
  return text;
}

absl::StatusOr<ParsedConsume> Parse(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return ParseConsumeRequest(grpc::ByteBuffer(&slice, 1), kCodec);
}
absl::StatusOr<ParsedConsume> Parse(const v1::ConsumeRequest& request) {
  return Parse(request.SerializeAsString());
}

v1::ConsumeRequest AckOf(int receipts) {
  v1::ConsumeRequest request;
  request.mutable_ack();
  for (int i = 0; i < receipts; ++i) request.mutable_ack()->add_receipts(Text(i + 1));
  return request;
}

TEST(ConsumeParserTest, ReadsEachKindOfRequestWithItsId) {
  v1::ConsumeRequest request;
  request.set_request_id(-7);
  request.mutable_init()->set_queue("work");
  EXPECT_EQ(Parse(request)->other.init().queue(), "work");
  EXPECT_EQ(Parse(request)->request_id, -7);
  request.mutable_credit()->set_max_in_flight(3);
  EXPECT_EQ(Parse(request)->other.credit().max_in_flight(), 3);
  request.mutable_nack()->add_items()->set_receipt("r");
  EXPECT_EQ(Parse(request)->other.nack().items(0).receipt(), "r");
  request.mutable_extend()->add_receipts("r");
  EXPECT_EQ(Parse(request)->other.extend().receipts(0), "r");
  request.mutable_drain();
  EXPECT_TRUE(Parse(request)->other.has_drain());
}

TEST(ConsumeParserTest, AcksAreDecodedAndGarbledOnesKeepTheirPlace) {
  auto request = AckOf(1);
  request.mutable_ack()->set_queue("work");
  request.mutable_ack()->add_receipts("garbled");
  request.mutable_ack()->add_receipts(Text(2));
  request.set_request_id(9);
  const auto parsed = Parse(request);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_TRUE(parsed->ack.has_value());
  EXPECT_EQ(parsed->request_id, 9);
  EXPECT_EQ(parsed->ack->queue, "work");
  EXPECT_EQ(parsed->ack->count(), 3);
  EXPECT_EQ(parsed->ack->failures[0].index, 1);
  EXPECT_EQ(parsed->ack->IndexOf(1), 2);
}

TEST(ConsumeParserTest, AckTakesOneToTenThousandReceipts) {
  EXPECT_EQ(FieldOf(Parse(AckOf(0)).status()), "ack.receipts");
  EXPECT_TRUE(Parse(AckOf(kReceiptsPerCallMax)).ok());
  EXPECT_EQ(ReasonOf(Parse(AckOf(kReceiptsPerCallMax + 1)).status()),
            ErrorReason::kBatchTooLarge);
}

TEST(ConsumeParserTest, TakesExactlyOneRequest) {
  EXPECT_EQ(Parse("").status().code(), absl::StatusCode::kInvalidArgument);
  v1::ConsumeRequest drain;
  drain.mutable_drain();
  EXPECT_EQ(Parse(AckOf(1).SerializeAsString() + drain.SerializeAsString()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ConsumeParserTest, UnknownFieldsAreRefused) {
  const std::string unknown("\x7a\x00", 2);
  EXPECT_EQ(Parse(AckOf(1).SerializeAsString() + unknown).status().code(),
            absl::StatusCode::kUnimplemented);
  // Within a credit.
  const auto status = Parse(std::string("\x12\x02\x7a\x00", 4)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(FieldOf(status), "credit.field 15");
}

TEST(ConsumeParserTest, CutAndGarbledRequestsAreRefusedAndNeverReadBeyond) {
  v1::ConsumeRequest nack;
  nack.mutable_nack()->add_items()->set_receipt(Text(1));
  for (const std::string& bytes :
       {AckOf(2).SerializeAsString(), nack.SerializeAsString()}) {
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      EXPECT_FALSE(Parse(bytes.substr(0, cut)).ok()) << cut;
      for (const char garbage : {'\0', '\x7f'}) {
        std::string garbled = bytes;
        garbled[cut] = garbage;
        (void)Parse(garbled);
      }
    }
  }
}

}  // namespace
}  // namespace sluice::api
