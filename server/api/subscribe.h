// Subscribe: pushes what the shard grants.
//
//   requested -> open -> ending -> over
//
//   open    started, deliveries and lost leases are written as the shard hands them over, one write
//           at a time; what comes meanwhile waits and goes into the next (bounded by the credit)
//   ending  the status to end with is known: after OnEnd(OK) what waits is still written
//   over    Finish was sent, or the client is gone; the shard is told what was never written
#ifndef SLUICE_SERVER_API_SUBSCRIBE_H_
#define SLUICE_SERVER_API_SUBSCRIBE_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/api/call.h"
#include "server/api/stream_age.h"
#include "server/broker/commands.h"

namespace sluice::api {

class SubscribeCall final : public Call, public broker::SubscriptionSink {
 public:
  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const MethodBinding& binding, EventLoop* loop);

  SubscribeCall(const MethodBinding& binding, EventLoop* loop);

  // SubscriptionSink: on the engine's thread; each posts to the loop.
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnDrained() override {}  // only streams that can ask for it are told
  void OnEnd(absl::Status status) override;

 private:
  struct Lost {
    std::vector<Receipt> receipts;
    ErrorReason reason;
  };

  std::shared_ptr<SubscribeCall> self();
  void OnRequested(bool ok);
  absl::Status Open();
  void OnHeadersSent(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  void OnAged(bool fired);

  // Ends the stream with `status` once the write that is out has come back.
  void EndWith(absl::Status status);
  // Writes or finishes, if nothing is out and there is reason to.
  void Advance();
  void Write();
  // Takes deliveries out of `waiting_` whose lease is lost before the consumer has seen them, and
  // their receipts out of `receipts`. Keeps what waits within the credit: the shard grants anew for
  // leases that end, also to a consumer that does not read.
  void DropLost(std::vector<Receipt>* receipts);
  // To be told of `deliveries` with `bytes` of payloads that were written or dropped: tells the
  // shard, which grants a stream only so much ahead of its writes.
  void ReportWritten(uint32_t deliveries, uint64_t bytes);
  std::string TakeFields();
  // The stream will carry nothing more.
  void Close();

  const MethodBinding armed_;
  grpc::ByteBuffer request_;
  RawStreamWriter writer_;
  Tag call_tag_;  // request, headers, writes, finish: one after the other
  Tag done_tag_;
  StreamAge age_;
  StreamSlot slot_;

  std::string queue_;
  bool auto_ack_ = false;
  bool subscribed_ = false;  // the shard knows the sink
  bool busy_ = false;        // an operation on the stream is out
  bool finishing_ = false;
  bool gone_ = false;    // the client is, or a write failed
  bool closed_ = false;  // the shard was told

  std::optional<Started> started_;               // not yet written
  bool open_for_deliveries_ = false;             // `started` was written or is being
  std::deque<broker::OutgoingDelivery> waiting_;
  std::deque<broker::OutgoingDelivery> writing_;  // in the write that is out
  uint64_t unreported_bytes_ = 0;                 // written or dropped
  std::deque<Lost> lost_;
  std::optional<absl::Status> end_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SUBSCRIBE_H_
