#include "server/api/delivery_assembly.h"

#include <grpc/slice.h>

#include <cstring>

#include "server/api/death_codec.h"
#include "server/api/wire_format.h"
#include "server/base/check.h"
#include "server/model/limits.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {
namespace {

// A slice of its own costs gRPC an allocation, two counts and an iovec entry; below this size
// copying the payload costs less.
constexpr size_t kShareBytesMin = 4 * kKiB;

// Tag and length of the message that deliveries are wrapped in.
constexpr size_t kWrappingBytesMax = 1 + kVarintBytesMax;

constexpr char kDeliveries = ShortTag(1, kLengthDelimited);
// Fields of sluice.v1.Delivery.
constexpr char kReceipt = ShortTag(1, kLengthDelimited);
constexpr char kMessage = ShortTag(2, kLengthDelimited);
constexpr char kQueue = ShortTag(3, kLengthDelimited);
constexpr char kAttempt = ShortTag(4, kVarint);
constexpr char kDeliveryCount = ShortTag(5, kVarint);
constexpr char kLeaseExpiresAt = ShortTag(6, kLengthDelimited);
constexpr char kMaybeRedelivered = ShortTag(7, kVarint);
// Fields of google.protobuf.Timestamp.
constexpr char kSeconds = ShortTag(1, kVarint);
constexpr char kNanos = ShortTag(2, kVarint);

uint64_t SecondsOf(int64_t ms) { return static_cast<uint64_t>(ms / kSecondMs); }
uint64_t NanosOf(int64_t ms) { return static_cast<uint64_t>(ms % kSecondMs) * 1'000'000; }

size_t TimestampBytes(int64_t ms) {
  return 1 + VarintBytes(SecondsOf(ms)) + 1 + VarintBytes(NanosOf(ms));
}

// Field `deaths` of sluice.v1.Delivery as it goes on the wire.
std::string DeathBytes(const Deaths& deaths) {
  v1::Delivery delivery;
  ToProto(deaths, delivery.mutable_deaths());
  return delivery.SerializeAsString();
}

bool IsShared(const broker::OutgoingDelivery& delivery) {
  return delivery.payload.size() >= kShareBytesMin;
}

// A slice over the payload's own memory.
grpc::Slice Share(const Payload& payload) {
  Payload reference = payload;
  const char* const data = reference.data();
  const size_t bytes = reference.size();
  return grpc::Slice(grpc_slice_new_with_user_data(const_cast<char*>(data), bytes,
                                                   &Payload::DropRaw, reference.ReleaseRaw()),
                     grpc::Slice::STEAL_REF);
}

}  // namespace

size_t DeliveryAssembly::DeliveryBytes(const broker::OutgoingDelivery& delivery) const {
  size_t bytes = 1 + VarintBytes(delivery.payload.size()) + delivery.payload.size();
  bytes += 1 + VarintBytes(queue_.size()) + queue_.size();
  bytes += 1 + VarintBytes(static_cast<uint64_t>(delivery.attempt));
  bytes += 1 + VarintBytes(delivery.receipt.delivery_count);
  if (delivery.maybe_redelivered) bytes += 2;
  // So rare that it is made twice, here and when it is written.
  if (delivery.deaths) bytes += DeathBytes(*delivery.deaths).size();
  if (auto_ack_) return bytes;
  bytes += 2 + kReceiptBytes;
  return bytes + 2 + TimestampBytes(delivery.lease_expires_at_ms);
}

bool DeliveryAssembly::Add(const broker::OutgoingDelivery& delivery) {
  const size_t delivery_bytes = DeliveryBytes(delivery);
  const size_t bytes = 1 + VarintBytes(delivery_bytes) + delivery_bytes;
  const size_t wrapping = wrapped_in_ != 0 ? kWrappingBytesMax : 0;
  const bool fits =
      wrapping + fields_.size() + bytes_ + bytes <= static_cast<size_t>(kResponseBytesMax);
  if (!fits && !parts_.empty()) return false;
  parts_.push_back({&delivery, delivery_bytes});
  bytes_ += bytes;
  if (IsShared(delivery)) shared_bytes_ += delivery.payload.size();
  return true;
}

// Everything of the delivery up to the bytes of its message, which come last.
char* DeliveryAssembly::WriteHeader(const Part& part, char* out) const {
  const broker::OutgoingDelivery& delivery = *part.delivery;
  *out++ = kDeliveries;
  out = PutVarint(part.delivery_bytes, out);
  if (!auto_ack_) {
    *out++ = kReceipt;
    *out++ = static_cast<char>(kReceiptBytes);
    codec_->Encode(delivery.receipt, out);
    out += kReceiptBytes;
    *out++ = kLeaseExpiresAt;
    out = PutVarint(TimestampBytes(delivery.lease_expires_at_ms), out);
    *out++ = kSeconds;
    out = PutVarint(SecondsOf(delivery.lease_expires_at_ms), out);
    *out++ = kNanos;
    out = PutVarint(NanosOf(delivery.lease_expires_at_ms), out);
  }
  *out++ = kQueue;
  out = PutVarint(queue_.size(), out);
  out = std::copy(queue_.begin(), queue_.end(), out);
  *out++ = kAttempt;
  out = PutVarint(static_cast<uint64_t>(delivery.attempt), out);
  *out++ = kDeliveryCount;
  out = PutVarint(delivery.receipt.delivery_count, out);
  if (delivery.maybe_redelivered) {
    *out++ = kMaybeRedelivered;
    *out++ = 1;
  }
  if (delivery.deaths) {
    const std::string deaths = DeathBytes(*delivery.deaths);
    out = std::copy(deaths.begin(), deaths.end(), out);
  }
  *out++ = kMessage;
  return PutVarint(delivery.payload.size(), out);
}

grpc::ByteBuffer DeliveryAssembly::Finish() {
  if (wrapped_in_ != 0 && !parts_.empty()) {
    char wrapping[kWrappingBytesMax];
    wrapping[0] = ShortTag(wrapped_in_, kLengthDelimited);
    fields_.append(wrapping, PutVarint(bytes_, wrapping + 1));
  }
  // One allocation holds all that is copied; shared payloads lie between its sub-slices.
  const size_t copied_bytes = fields_.size() + bytes_ - shared_bytes_;
  grpc_slice copied = grpc_slice_malloc(copied_bytes);
  char* const begin = reinterpret_cast<char*>(GRPC_SLICE_START_PTR(copied));
  char* out = std::copy(fields_.begin(), fields_.end(), begin);
  std::vector<grpc::Slice> slices;
  char* run = begin;
  const auto end_run = [&] {
    if (out == run) return;
    slices.emplace_back(grpc_slice_sub(copied, run - begin, out - begin), grpc::Slice::STEAL_REF);
    run = out;
  };
  for (const Part& part : parts_) {
    out = WriteHeader(part, out);
    const Payload& payload = part.delivery->payload;
    if (IsShared(*part.delivery)) {
      end_run();
      slices.push_back(Share(payload));
    } else {
      std::memcpy(out, payload.data(), payload.size());
      out += payload.size();
    }
  }
  end_run();
  SLUICE_CHECK(out == begin + copied_bytes);
  grpc_slice_unref(copied);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace sluice::api
