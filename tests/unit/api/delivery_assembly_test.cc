#include "server/api/delivery_assembly.h"

#include <gtest/gtest.h>

#include "server/model/limits.h"
#include "sluice/v1/consume.pb.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {
namespace {

const ReceiptCodec kCodec{ReceiptCodec::Key{7}};

broker::OutgoingDelivery DeliveryOf(uint64_t seq, size_t body_bytes) {
  v1::Message message;
  message.set_body(std::string(body_bytes, 'b'));
  broker::OutgoingDelivery delivery;
  delivery.receipt = {{0, 3, 5, seq}, 2, static_cast<uint32_t>(seq)};
  delivery.attempt = static_cast<int32_t>(seq);
  delivery.lease_expires_at_ms = 1'700'000'000'000 + static_cast<int64_t>(seq);
  delivery.maybe_redelivered = seq % 2 == 0;
  delivery.payload = Payload::CopyOf(message.SerializeAsString());
  return delivery;
}

v1::SubscribeResponse ParseBack(const grpc::ByteBuffer& buffer) {
  grpc::ByteBuffer copy = buffer;
  grpc::Slice slice;
  EXPECT_TRUE(copy.DumpToSingleSlice(&slice).ok());
  v1::SubscribeResponse response;
  EXPECT_TRUE(response.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
  return response;
}

TEST(DeliveryAssemblyTest, ProtobufReadsBackEveryField) {
  DeliveryAssembly assembly("work", false, &kCodec);
  std::vector<broker::OutgoingDelivery> deliveries;
  // Around the size from which a payload gets a slice of its own.
  for (size_t bytes : {0, 1, 4'000, 4'096, 5'000, 10, 200'000}) {
    deliveries.push_back(DeliveryOf(deliveries.size() + 1, bytes));
  }
  v1::SubscribeResponse fields;
  fields.mutable_started()->set_consumer_id("9");
  assembly.AddFields(fields.SerializeAsString());
  for (const auto& delivery : deliveries) ASSERT_TRUE(assembly.Add(delivery));
  const auto response = ParseBack(assembly.Finish());
  EXPECT_EQ(response.started().consumer_id(), "9");
  ASSERT_EQ(response.deliveries_size(), static_cast<int>(deliveries.size()));
  for (int i = 0; i < response.deliveries_size(); ++i) {
    const auto& got = response.deliveries(i);
    const auto& sent = deliveries[i];
    EXPECT_EQ(*kCodec.Decode(got.receipt()), sent.receipt);
    EXPECT_EQ(got.queue(), "work");
    EXPECT_EQ(got.attempt(), sent.attempt);
    EXPECT_EQ(got.delivery_count(), static_cast<int>(sent.receipt.delivery_count));
    EXPECT_EQ(got.maybe_redelivered(), sent.maybe_redelivered);
    EXPECT_EQ(got.lease_expires_at().seconds(), 1'700'000'000);
    EXPECT_EQ(got.lease_expires_at().nanos(), (i + 1) * 1'000'000);
    EXPECT_EQ(got.message().SerializeAsString(), sent.payload.view());
  }
}

TEST(DeliveryAssemblyTest, AutoAckLeavesReceiptAndLeaseEmpty) {
  DeliveryAssembly assembly("work", true, &kCodec);
  const auto delivery = DeliveryOf(1, 10);
  assembly.Add(delivery);
  const auto response = ParseBack(assembly.Finish());
  EXPECT_EQ(response.deliveries(0).receipt(), "");
  EXPECT_FALSE(response.deliveries(0).has_lease_expires_at());
  EXPECT_EQ(response.deliveries(0).message().body().size(), 10u);
}

TEST(DeliveryAssemblyTest, StaysBelowTheLimitUnlessOneMessageAloneDoesNot) {
  const auto large = DeliveryOf(1, kResponseBytesMax + 1);
  const auto small = DeliveryOf(2, 1'000);
  {
    DeliveryAssembly assembly("work", false, &kCodec);
    EXPECT_TRUE(assembly.Add(large));
    EXPECT_FALSE(assembly.Add(small));
    EXPECT_EQ(ParseBack(assembly.Finish()).deliveries_size(), 1);
  }
  DeliveryAssembly assembly("work", false, &kCodec);
  while (assembly.Add(small)) continue;
  const auto buffer = assembly.Finish();
  EXPECT_LE(buffer.Length(), static_cast<size_t>(kResponseBytesMax));
  EXPECT_GT(buffer.Length(), static_cast<size_t>(kResponseBytesMax) - 1'200);
}

TEST(DeliveryAssemblyTest, DeathsTravelWithTheirMessageOnly) {
  DeliveryAssembly assembly("dead", false, &kCodec);
  auto died = DeliveryOf(1, 10);
  Death death{"work", DeathReason::kRejected, 2, 3, 1'700'000'000'001, 1'700'000'000'002, "no"};
  Death died_before;
  died_before.queue = "older";
  died.deaths = std::make_shared<const Deaths>(Deaths{death, died_before});
  const auto plain = DeliveryOf(2, 10);
  assembly.Add(died);
  assembly.Add(plain);
  const auto response = ParseBack(assembly.Finish());
  ASSERT_EQ(response.deliveries(0).deaths_size(), 2);
  const auto& got = response.deliveries(0).deaths(0);
  EXPECT_EQ(got.queue(), "work");
  EXPECT_EQ(got.reason(), v1::DEATH_REASON_REJECTED);
  EXPECT_EQ(got.count(), 2);
  EXPECT_EQ(got.attempts(), 3);
  EXPECT_EQ(got.first_time().nanos(), 1'000'000);
  EXPECT_EQ(got.last_time().nanos(), 2'000'000);
  EXPECT_EQ(got.detail(), "no");
  EXPECT_EQ(response.deliveries(0).deaths(1).queue(), "older");
  EXPECT_EQ(response.deliveries(1).deaths_size(), 0);
  EXPECT_EQ(response.deliveries(1).message().body().size(), 10u);
}

TEST(DeliveryAssemblyTest, WrappedDeliveriesAreABatchOfTheirOwn) {
  DeliveryAssembly assembly("work", false, &kCodec);
  assembly.WrapIn(v1::ConsumeResponse::kDeliveriesFieldNumber);
  const auto small = DeliveryOf(1, 100);
  const auto large = DeliveryOf(2, 100'000);
  assembly.Add(small);
  assembly.Add(large);
  grpc::ByteBuffer buffer = assembly.Finish();
  grpc::Slice slice;
  ASSERT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  v1::ConsumeResponse response;
  ASSERT_TRUE(response.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
  ASSERT_EQ(response.deliveries().deliveries_size(), 2);
  EXPECT_EQ(response.deliveries().deliveries(1).message().body().size(), 100'000u);

  DeliveryAssembly full("work", false, &kCodec);
  full.WrapIn(v1::ConsumeResponse::kDeliveriesFieldNumber);
  while (full.Add(small)) continue;
  EXPECT_LE(full.Finish().Length(), static_cast<size_t>(kResponseBytesMax));
}

TEST(DeliveryAssemblyTest, NothingAtAllIsAnEmptyResponse) {
  DeliveryAssembly assembly("work", false, &kCodec);
  EXPECT_EQ(assembly.Finish().Length(), 0u);
}

}  // namespace
}  // namespace sluice::api
