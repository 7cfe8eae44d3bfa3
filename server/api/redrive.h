// RedriveMessages: moves what a scan finds, at a pace, and reports.
//
//   checking -> scanning <-> moving -> ending -> over
//                  \-> waiting -/
//
//   checking  whether the queues exist, and how many messages there are to look at
//   scanning  one step of the scan is out; what it selects waits in `found_`
//   waiting   the pace allows no move yet: a timer is set
//   moving    one EditMessagesCommand is out
//   ending    the status to end with is known
//   over      Finish was sent, or the client is gone: what was moved stays moved, and a later call
//             finds the rest
//
// Progress is written between steps, one write at a time; the last answer has the final figures.
#ifndef SLUICE_SERVER_API_REDRIVE_H_
#define SLUICE_SERVER_API_REDRIVE_H_

#include <grpcpp/alarm.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "server/api/call.h"
#include "server/api/message_scan.h"
#include "server/api/server_stream_call.h"
#include "server/api/stream_age.h"
#include "server/model/token_bucket.h"
#include "sluice/v1/message_admin.pb.h"

namespace sluice::api {

class RedriveCall final : public ServerStreamCall<RedriveCall> {
 public:
  // Moves per second where the client sets no rate: a small part of what a server stores, so that
  // live traffic does not feel it.
  static constexpr double kRateDefault = 5000;

  RedriveCall(const MethodBinding& binding, EventLoop* loop);

 private:
  void OnRequested() override;
  absl::Status Open();
  void CheckQueue();
  void CheckTarget();

  // Does the next thing, unless something is out.
  void Proceed();
  void Scan();
  void OnScanned(absl::StatusOr<ScanStep> step);
  // Whether the call takes this message; it may count as skipped.
  bool Select(const broker::ListedMessage& message);
  void Move(int64_t count);
  void OnMoved(int64_t asked, const absl::StatusOr<int64_t>& moved);
  void WaitForPace(int64_t wait_ms);
  void OnPaceTimer(bool fired);
  bool Reached() const;

  void ReportIfDue();
  void WriteProgress();
  void EndWith(absl::Status status);
  void FinishIfIdle();
  void Close();
  v1::RedriveMessagesResponse Progress() const;

  void OnHeadersSent(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone() override;
  void OnAged(bool fired);

  Tag timer_tag_;
  grpc::Alarm timer_;
  StreamAge age_;
  StreamSlot slot_;

  v1::RedriveMessagesRequest request_;
  std::shared_ptr<MessageScan> scan_;
  TokenBucket pace_;
  int64_t begin_ms_ = 0;
  int64_t to_look_at_ = 0;  // messages in the queue when the call began, or ids
  int32_t step_messages_ = kScanStepMessages;

  ScanCursor cursor_;
  bool scanned_all_ = false;
  std::deque<MessagePosition> found_;  // selected and not yet moved
  int64_t looked_at_ = 0;
  int64_t moved_ = 0;
  int64_t skipped_ = 0;

  int64_t reported_moves_ = 0;
  int64_t reported_ns_ = 0;

  bool working_ = false;   // a command is out, or the timer is set
  bool timer_set_ = false;
  bool writing_ = false;   // an operation on the stream is out
  bool final_written_ = false;
  bool finishing_ = false;
  bool gone_ = false;  // the client is, or a write failed
  std::optional<absl::Status> end_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_REDRIVE_H_
