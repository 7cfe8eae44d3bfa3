// Consume: a subscription and what settles its messages, on one stream.
//
// Reads and writes are independent: one read is out unless what was asked and is not yet answered
// has reached its limit, which is how a client that only asks is slowed down. A request that makes
// no sense ends the stream; refused receipts are told per item.
//
// Half-close is an end in good order: nothing more is delivered, everything that was asked is
// answered, then the stream ends with OK. What was never written goes back uncounted; what the
// client holds stays leased.
#ifndef SLUICE_SERVER_API_CONSUME_H_
#define SLUICE_SERVER_API_CONSUME_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "server/api/consume_parser.h"
#include "server/api/consumer_stream.h"
#include "server/api/settle_parser.h"
#include "sluice/v1/consume.pb.h"

namespace sluice::api {

class ConsumeCall final : public ConsumerStream {
 public:
  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const MethodBinding& binding, EventLoop* loop);

  ConsumeCall(const MethodBinding& binding, EventLoop* loop);

 private:
  using SettleResult = absl::StatusOr<broker::SettleOutcome>;
  using ExtendResult = absl::StatusOr<broker::ExtendOutcome>;

  // An ack, nack or extend that the shard has.
  struct Asked {
    ParsedReceipts receipts;  // but for the receipts themselves
    int32_t items = 0;
    int64_t request_id = 0;
  };
  // Its answer, not yet written.
  struct Answer {
    v1::ItemResults results;
    int32_t items = 0;
  };
  // What takes its turn in being written.
  enum Kind { kAnswers, kLost, kDeliveries, kDrained, kKinds };

  std::shared_ptr<ConsumeCall> consume_self();
  void OnRequested(bool ok);
  void OnRead(bool ok);

  absl::Status TakeRequest(ParsedConsume parsed);
  absl::Status TakeCredit(const v1::Credit& credit);
  absl::Status TakeNack(const v1::NackRequest& nack, int64_t request_id);
  absl::Status TakeExtend(const v1::ExtendLeaseRequest& extend, int64_t request_id);
  void TakeDrain();
  // Inside the stream a request may leave out the queue, and may name no other.
  absl::Status CheckQueue(const char* path, const std::string& queue) const;
  void SubmitSettle(ParsedSettle settle, int64_t request_id);
  // A request of so many items has gone to the shard; its answer is to come.
  void CountAsked(int32_t items);
  void OnSettled(const Asked& asked, const SettleResult& result);
  void OnExtended(const Asked& asked, const ExtendResult& result);
  // Adds the answer, or ends the stream where the request as a whole was refused.
  void AddAnswer(const Asked& asked, const absl::Status& status, v1::ItemResults results);

  bool MayRead() const;
  void Advance() override;

  void StartHeaders(void* tag) override { stream_.SendInitialMetadata(tag); }
  void StartWrite(const grpc::ByteBuffer& response, void* tag) override {
    stream_.Write(response, tag);
  }
  void StartFinish(const grpc::Status& status, void* tag) override { stream_.Finish(status, tag); }
  bool BuildResponse(grpc::ByteBuffer* response) override;
  bool BuildKind(Kind kind, grpc::ByteBuffer* response);
  grpc::ByteBuffer BuildAnswer();
  grpc::ByteBuffer BuildDeliveries();
  bool MayFinish() const override;
  void TakeDrained() override;

  RawBidiStream stream_;
  grpc::ByteBuffer request_;
  Tag read_tag_;  // request, then reads
  bool reading_ = false;
  bool half_closed_ = false;

  int requests_ = 0;       // asked, and their answers not yet written
  int64_t items_ = 0;      // of these requests
  int requests_out_ = 0;   // of these requests, those that the shard has not answered
  std::deque<Answer> answers_;
  bool draining_ = false;  // asked of the shard, which has not answered
  int drained_ = 0;        // answered by the shard, not yet written
  size_t drained_behind_ = 0;  // deliveries that must be written before the next `drained`
  int next_kind_ = kAnswers;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CONSUME_H_
