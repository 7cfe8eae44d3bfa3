// PublishStream: batches in, confirmations out.
//
//   requested -> init read -> target checked -> open -> ending -> over
//
//   open    one read is out unless the window is full; batches wait in order of arrival until the
//           shard has answered them; confirmations are cumulative, so one write covers all that was
//           answered while the write before was out
//   ending  the client half-closed (OK once all is answered), or the stream must end with an error,
//           for a producer also by its first refusal: nothing more is read, what was taken is
//           answered first
#ifndef SLUICE_SERVER_API_PUBLISH_STREAM_H_
#define SLUICE_SERVER_API_PUBLISH_STREAM_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/api/call.h"
#include "server/api/publish_parser.h"
#include "server/api/stream_age.h"
#include "server/broker/publish_commands.h"

namespace sluice::api {

class PublishStreamCall final : public Call {
 public:
  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const MethodBinding& binding, EventLoop* loop);

  PublishStreamCall(const MethodBinding& binding, EventLoop* loop);
  ~PublishStreamCall() override;

  // Loop thread: takes nothing more, answers what was taken, ends DRAINING.
  void Drain();

 private:
  using Result = absl::StatusOr<std::vector<broker::PublishedMessage>>;

  // A batch that was read, in order of arrival.
  struct Batch {
    int64_t first_sequence = 0;
    int64_t last_sequence = 0;
    int64_t messages = 1;  // that count against the window
    int64_t bytes = 0;
    std::optional<Result> result;  // set when the shard (or the check before it) has answered
  };

  std::shared_ptr<PublishStreamCall> self();
  void OnRequested(bool ok);
  void OnHeadersSent(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  void OnAged(bool fired);

  absl::Status TakeInit(v1::PublishStreamInit init);
  // Asks the shard for the target and, unless the id is empty, opens the producer.
  void CheckTarget(const std::string& producer_id);
  void OnTargetChecked(const absl::StatusOr<broker::ProducerOpened>& producer);
  // Puts the batch in line; the shard or the check answers it later by its number.
  void TakeBatch(ParsedBatch batch);
  absl::Status CheckSequence(const ParsedBatch& batch) const;
  void OnStored(uint64_t batch_number, Result result);
  // Ends the stream if it must not go on after this.
  void OnRefused(const absl::Status& status);

  void EndWith(absl::Status status);
  // Reads, writes or finishes as far as the state allows.
  void Advance();
  bool MayRead();
  // The next response, if batches at the front of the line have been answered.
  bool BuildResponse(std::string* bytes);
  // Adds the stored batch at the front and takes it out of the line.
  void ConfirmFront(v1::PublishStreamStored* stored);
  void PopFront();

  RawBidiStream stream_;
  grpc::ByteBuffer request_;
  Tag read_tag_;   // request, then reads
  Tag write_tag_;  // headers, writes, finish
  Tag done_tag_;   // the end of the call, also where nothing is written
  StreamAge age_;
  StreamSlot slot_;

  std::string queue_;
  std::string exchange_;  // instead of queue_
  bool mandatory_ = false;
  int64_t wait_when_full_ms_ = 0;
  bool return_results_ = false;
  broker::ProducerOpened producer_;  // stream 0: none

  bool initialised_ = false;   // `init` was taken
  uint64_t caller_ = 0;        // of its publishes, see AbandonPublishesCommand; 0: not initialised
  bool started_ = false;       // the target is good
  bool started_told_ = false;  // `started` was or is being written
  bool reading_ = false;
  bool writing_ = false;
  bool finishing_ = false;
  bool waits_for_room_ = false;  // in InFlightBudget's line
  bool half_closed_ = false;
  bool gone_ = false;
  std::optional<absl::Status> end_;

  std::deque<Batch> line_;
  uint64_t line_begin_ = 0;  // number of line_.front()
  int64_t last_sequence_ = 0;
  int64_t in_flight_messages_ = 0;
  int64_t in_flight_bytes_ = 0;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PUBLISH_STREAM_H_
