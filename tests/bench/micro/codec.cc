// Between the wire and the shard: what reading a request and writing a response cost.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/api/call.h"
#include "server/api/delivery_assembly.h"
#include "server/api/message_check.h"
#include "server/api/publish_parser.h"
#include "server/api/settle_parser.h"
#include "server/base/clock.h"
#include "server/model/hash.h"
#include "server/model/limits.h"
#include "server/model/receipt.h"
#include "sluice/v1/publish.pb.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

constexpr size_t kBodyBytes = 1024;

void Check(bool ok) {
  if (!ok) std::abort();
}

const KeyedHash& Hash() {
  static const KeyedHash hash{KeyedHash::Key{}};
  return hash;
}
MessageRules Rules() { return {kMiB, &Hash(), Clock::System()}; }

const ReceiptCodec& Receipts() {
  static const ReceiptCodec codec{ReceiptCodec::Key{}};
  return codec;
}

Receipt SomeReceipt(uint64_t seq) { return {{0, 1, 0, seq}, 1, 1}; }

// Bodies only, or with a group, attributes and a deduplication id as well. The first argument is
// how many messages the request holds.
void ParsePublish(benchmark::State& state, bool with_options) {
  v1::PublishRequest request;
  request.set_queue("orders");
  for (int i = 0; i < state.range(0); ++i) {
    auto* message = request.add_messages();
    message->set_body(std::string(kBodyBytes, 'b'));
    if (!with_options) continue;
    message->set_group("customer-4711");
    message->set_dedup_id("8c0b8a52-0f1c-4f5e-9e0b-2d1a5f3c7e11");
    (*message->mutable_attributes())["type"] = "order.created";
    (*message->mutable_attributes())["region"] = "eu";
  }
  const grpc::ByteBuffer bytes = Serialize(request);
  const MessageRules rules = Rules();
  for (auto _ : state) {
    auto publish = ParsePublishRequest(bytes, rules);
    Check(publish.ok());
    benchmark::DoNotOptimize(publish->messages.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
void BM_ParsePublish(benchmark::State& state) { ParsePublish(state, false); }
BENCHMARK(BM_ParsePublish)->ArgName("messages")->Arg(1)->Arg(100);
void BM_ParsePublishWithOptions(benchmark::State& state) { ParsePublish(state, true); }
BENCHMARK(BM_ParsePublishWithOptions)->ArgName("messages")->Arg(1)->Arg(100);

// A response of so many deliveries with bodies of so many bytes. Large bodies are not copied.
void BM_AssembleDeliveries(benchmark::State& state) {
  std::vector<broker::OutgoingDelivery> deliveries(state.range(0));
  for (size_t i = 0; i < deliveries.size(); ++i) {
    deliveries[i].receipt = SomeReceipt(i + 1);
    deliveries[i].lease_expires_at_ms = 1'700'000'030'000;
    deliveries[i].payload = Payload::CopyOf(std::string(state.range(1), 'b'));
  }
  for (auto _ : state) {
    DeliveryAssembly assembly("orders", /*auto_ack=*/false, &Receipts());
    for (const auto& delivery : deliveries) Check(assembly.Add(delivery));
    const grpc::ByteBuffer response = assembly.Finish();
    benchmark::DoNotOptimize(response.Length());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_AssembleDeliveries)
    ->ArgNames({"deliveries", "bytes"})
    ->Args({1, kBodyBytes})
    ->Args({100, kBodyBytes})
    ->Args({10, 64 * 1024});

void BM_ParseAck(benchmark::State& state) {
  v1::AckRequest request;
  request.set_queue("orders");
  for (int i = 0; i < state.range(0); ++i) {
    char text[kReceiptBytes];
    Receipts().Encode(SomeReceipt(i + 1), text);
    request.add_receipts(std::string(text, kReceiptBytes));
  }
  const grpc::ByteBuffer bytes = Serialize(request);
  for (auto _ : state) {
    auto parsed = ParseAckRequest(bytes, Receipts());
    Check(parsed.ok() && parsed->failures.empty());
    benchmark::DoNotOptimize(parsed->receipts.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_ParseAck)->ArgName("receipts")->Arg(1)->Arg(100);

}  // namespace
}  // namespace sluice::api

BENCHMARK_MAIN();
