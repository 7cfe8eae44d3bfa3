// What Subscribe and Consume share: one subscription of the shard, and one write at a time.
//
//   requested -> open -> ending -> over
//
//   open    started, deliveries and lost leases are written as the shard hands them over, one write
//           at a time; what comes meanwhile waits and goes into the next (bounded by the credit)
//   ending  the status to end with is known: after OnEnd(OK) what waits is still written
//   over    Finish was sent, or the client is gone; the shard is told what was never written
#ifndef SLUICE_SERVER_API_CONSUMER_STREAM_H_
#define SLUICE_SERVER_API_CONSUMER_STREAM_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api/call.h"
#include "server/api/delivery_assembly.h"
#include "server/api/stream_age.h"
#include "server/broker/consumer_commands.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {

// Loop thread only, but for what is SubscriptionSink's.
class ConsumerStream : public Call, public broker::SubscriptionSink {
 public:
  // On the engine's thread; each posts to the loop.
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnDrained() override;
  void OnEnd(absl::Status status) override;

 protected:
  ConsumerStream(const MethodBinding& binding, EventLoop* loop) : Call(binding, loop) {}

  // --- of the kind of stream

  virtual void StartHeaders(void* tag) = 0;
  virtual void StartWrite(const grpc::ByteBuffer& response, void* tag) = 0;
  virtual void StartFinish(const grpc::Status& status, void* tag) = 0;
  // The next response to write; false if there is none.
  virtual bool BuildResponse(grpc::ByteBuffer* response) = 0;
  // Whether nothing must be answered before the stream ends as `end()` says.
  virtual bool MayFinish() const { return true; }
  virtual void TakeDrained() {}
  // Writes or finishes, if nothing is out and there is reason to.
  virtual void Advance();

  // --- in the order of a stream's life

  std::shared_ptr<ConsumerStream> self();
  // Must be armed with gRPC before the call is requested.
  void* ArmDone() { return done_tag_.Arm<&ConsumerStream::OnDone>(self()); }
  // The call never came.
  void ReleaseDone() { done_tag_.Release(); }
  // Whether there may be such a stream now.
  absl::Status Admit();
  // Sends the headers; from now on the stream ages.
  void Open();
  // Asks the shard. `path`: where the request stands in a larger one.
  absl::Status Subscribe(const v1::SubscribeRequest& request, std::string_view path);
  // Ends the stream with `status` once the write that is out has come back.
  void EndWith(absl::Status status);
  // Ends it with OK as the client wants to go: its leases stay, what was not written goes back.
  void Leave();

  // --- for BuildResponse

  // Whether deliveries and the like still go out: the stream lives, or the shard ended it with OK.
  bool flowing() const { return (!end_ || end_->ok()) && !leaving_; }
  bool subscribed() const { return subscribed_; }
  bool started_waits() const { return started_.has_value(); }
  bool started_told() const { return started_told_; }
  bool has_deliveries() const { return !waiting_.empty(); }
  bool has_lost() const { return !lost_.empty(); }
  size_t waiting() const { return waiting_.size(); }
  const std::optional<absl::Status>& end() const { return end_; }
  bool shard_ended() const { return shard_ended_; }
  bool over() const { return finishing_ || gone_; }
  const std::string& queue() const { return queue_; }

  void TakeStarted(v1::SubscriptionStarted* out);
  // As many receipts of one reason as fit beside deliveries.
  void TakeLost(v1::LeaseLost* out);
  // As many deliveries as fit; `fields` go before them. They must be written now.
  grpc::ByteBuffer TakeDeliveries(std::string_view fields, int wrap_in);

 private:
  struct Lost {
    std::vector<Receipt> receipts;
    ErrorReason reason;
  };

  void Post(EventLoop::Task task);

  void OnHeadersSent(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  void OnAged(bool fired);

  // Takes deliveries out of `waiting_` whose lease is lost before the consumer has seen them, and
  // their receipts out of `receipts`. Keeps what waits within the credit: the shard grants anew for
  // leases that end, also to a consumer that does not read.
  void DropLost(std::vector<Receipt>* receipts);
  // To be told of `deliveries` with `bytes` of payloads that were written or dropped: tells the
  // shard, which grants a stream only so much ahead of its writes.
  void ReportWritten(uint32_t deliveries, uint64_t bytes);
  // The stream will carry nothing more.
  void Close();
  // Who left keeps the leases only if the end reached the client: that is known when both the last
  // operation and the call have come back.
  void CloseIfLeft();

  Tag call_tag_;  // headers, writes, finish: one after the other
  Tag done_tag_;
  StreamAge age_;
  StreamSlot slot_;

  std::string queue_;
  bool auto_ack_ = false;
  bool subscribed_ = false;  // the shard knows the sink
  bool shard_ended_ = false;
  bool busy_ = false;  // an operation of call_tag_ is out
  bool finishing_ = false;
  bool finished_ = false;  // and has come back
  bool done_ = false;      // gRPC has said that the call is over
  bool gone_ = false;      // the client is, or a write failed
  bool leaving_ = false;
  bool keep_leases_ = false;
  bool closed_ = false;  // the shard was told

  std::optional<Started> started_;  // not yet written
  bool started_told_ = false;       // was written or is being
  std::deque<broker::OutgoingDelivery> waiting_;
  std::deque<broker::OutgoingDelivery> writing_;  // in the write that is out
  uint64_t unreported_bytes_ = 0;                 // written or dropped
  std::deque<Lost> lost_;
  std::optional<absl::Status> end_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CONSUMER_STREAM_H_
