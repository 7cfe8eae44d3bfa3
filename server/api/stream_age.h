// Ends a stream before its connection is cut.
#ifndef SLUICE_SERVER_API_STREAM_AGE_H_
#define SLUICE_SERVER_API_STREAM_AGE_H_

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>

#include <memory>

#include "absl/status/status.h"
#include "server/api/event_loop.h"
#include "server/model/error.h"

namespace sluice::api {

// Loop thread only. The timer keeps its owner alive until it fires or is cancelled.
class StreamAge {
 public:
  // Calls `Method(bool fired)` of `owner` after `age_ms`, or with false once cancelled. 0: never.
  template <auto Method, typename Owner>
  void Start(int64_t age_ms, std::shared_ptr<Owner> owner) {
    if (age_ms == 0) return;
    loop_ = &owner->loop();
    loop_->AddTimer(&alarm_);
    alarm_.Set(loop_->queue(), gpr_time_from_millis(age_ms, GPR_TIMESPAN),
               tag_.Arm<Method>(std::move(owner)));
  }
  // To be called at the end of the stream, also after it fired. May be repeated.
  void Cancel() {
    if (!loop_) return;
    loop_->RemoveTimer(&alarm_);
    alarm_.Cancel();
    loop_ = nullptr;
  }

  static absl::Status Status() {
    return MakeError(ErrorReason::kStreamAged,
                     "the stream has reached its age limit; open it again");
  }

 private:
  Tag tag_;
  grpc::Alarm alarm_;
  EventLoop* loop_ = nullptr;  // while started
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_STREAM_AGE_H_
