// How many requests of unary calls arrive at the same time.
#ifndef SLUICE_SERVER_API_RECEIVE_LINE_H_
#define SLUICE_SERVER_API_RECEIVE_LINE_H_

#include <grpcpp/alarm.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "server/api/event_loop.h"
#include "server/base/clock.h"

namespace sluice::api {

class UnaryCall;

// Lets a limited number of calls receive their requests at the same time, as each may be of the
// largest size; the others wait in line, unread. While others wait, a request that has taken longer
// than `patience_ms` to arrive is refused: clients that stall in the middle of an upload would hold
// up everybody else for as long as they like. Loop thread only.
class ReceiveLine : public std::enable_shared_from_this<ReceiveLine> {
 public:
  struct Limits {
    int calls_max = 1;
    int64_t patience_ms = 0;
    // Who came last is served first. For calls that are of no use when they are late: behind many
    // that stall each waits for one patience, and not for one per `calls_max` of them.
    bool newest_first = false;
  };

  ReceiveLine(const Limits& limits, EventLoop* loop, Clock* clock)
      : limits_(limits), loop_(loop), clock_(clock) {}

  void Join(std::shared_ptr<UnaryCall> call);
  // The call has received its request, or will not.
  void Leave(const UnaryCall* call);
  // Once the loop has stopped.
  void Drop();

 private:
  struct Receiving {
    std::shared_ptr<UnaryCall> call;
    int64_t since_ns = 0;
    bool refused = false;  // its place is free once gRPC lets go of what has arrived
  };

  void StartNext();
  void SetTimer();
  void OnTimer(bool fired);

  const Limits limits_;
  EventLoop* const loop_;
  Clock* const clock_;
  std::vector<Receiving> receiving_;  // in order of their start
  std::deque<std::shared_ptr<UnaryCall>> waiting_;
  bool timer_set_ = false;
  Tag timer_tag_;
  grpc::Alarm timer_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_RECEIVE_LINE_H_
