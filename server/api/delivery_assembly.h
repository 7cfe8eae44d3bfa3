// Writes deliveries to the wire by hand: a message's bytes go from the store to the socket as they
// are.
#ifndef SLUICE_SERVER_API_DELIVERY_ASSEMBLY_H_
#define SLUICE_SERVER_API_DELIVERY_ASSEMBLY_H_

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <string_view>
#include <vector>

#include "server/broker/consumer_commands.h"
#include "server/model/receipt.h"

namespace sluice::api {

// Assembles one SubscribeResponse, ReceiveResponse or ConsumeResponse: the first two have
// `deliveries` as field 1, and the third has a DeliveryBatch, which has it too. Not thread-safe;
// for one response.
class DeliveryAssembly {
 public:
  // `queue` and `codec` must outlive it. With auto_ack, receipt and lease_expires_at stay empty.
  DeliveryAssembly(std::string_view queue, bool auto_ack, const ReceiptCodec* codec)
      : queue_(queue), auto_ack_(auto_ack), codec_(codec) {}

  // Puts the deliveries into a message that is this field of the response (1 to 15). Before Add.
  void WrapIn(int field) { wrapped_in_ = field; }
  // Starts with fields other than deliveries, already serialised.
  void AddFields(std::string_view serialised) { fields_ = serialised; }
  // False, and nothing is added, if the response would grow beyond kResponseBytesMax; the first
  // delivery is always taken. `delivery` must outlive Finish.
  bool Add(const broker::OutgoingDelivery& delivery);
  size_t deliveries() const { return parts_.size(); }

  grpc::ByteBuffer Finish();

 private:
  struct Part {
    const broker::OutgoingDelivery* delivery;
    size_t delivery_bytes;  // of the Delivery, without its own tag and length
  };

  size_t DeliveryBytes(const broker::OutgoingDelivery& delivery) const;
  char* WriteHeader(const Part& part, char* out) const;

  const std::string_view queue_;
  const bool auto_ack_;
  const ReceiptCodec* const codec_;
  int wrapped_in_ = 0;  // 0: no
  std::string fields_;
  std::vector<Part> parts_;
  size_t bytes_ = 0;         // of all parts on the wire
  size_t shared_bytes_ = 0;  // of them, those in slices that share a payload
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_DELIVERY_ASSEMBLY_H_
