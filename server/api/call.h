// One RPC, from its arrival to its last completion.
//
// All methods run on the thread of the call's loop unless said otherwise. A call lives as long as
// an operation of gRPC or a command of the shard refers to it.
#ifndef SLUICE_SERVER_API_CALL_H_
#define SLUICE_SERVER_API_CALL_H_

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/api/context.h"
#include "server/api/event_loop.h"
#include "server/api/raw_service.h"
#include "server/api/receive_line.h"
#include "server/api/rpc_method.h"

namespace sluice::api {

// What each armed call needs to know about its method; lives as long as the server.
struct MethodBinding {
  ApiContext* api = nullptr;
  RawMethods* service = nullptr;
  const RpcMethod* method = nullptr;
};

class Call : public std::enable_shared_from_this<Call> {
 public:
  Call(const MethodBinding& binding, EventLoop* loop)
      : api_(binding.api), loop_(loop), binding_(binding) {}
  virtual ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  ApiContext& api() const { return *api_; }
  EventLoop& loop() const { return *loop_; }
  const RpcMethod& method() const { return *binding_.method; }
  const grpc::ServerContext& context() const { return context_; }

  // Milliseconds until the client's deadline; may be negative, and huge where there is none.
  int64_t RemainingMs() const;
  // How long the shard may let the call wait so that the answer arrives in time. Never negative.
  int64_t WaitMsMax() const;

 protected:
  // To be called once each: when gRPC hands the call over, and when it is over.
  void Begin();
  void End(int code);
  // The server's shutdown no longer waits for this call.
  void LetShutdownPass();
  void CountReceived();
  void CountSent();

  // Why the call must be refused before it is looked at: draining, deadline passed.
  absl::Status CheckAdmission(bool taken_while_draining) const;

  ApiContext* const api_;
  EventLoop* const loop_;
  const MethodBinding binding_;
  grpc::ServerContext context_;

 private:
  bool begun_ = false;
  bool holds_up_shutdown_ = false;
  bool ended_ = false;
  int64_t begin_ns_ = 0;
};

// A stream's place among ServerOptions::streams_max, a Receive call's among receives_max, or a health
// watch's among health_watches_max; given back when destroyed.
class StreamSlot {
 public:
  StreamSlot() = default;
  ~StreamSlot();
  StreamSlot(const StreamSlot&) = delete;
  StreamSlot& operator=(const StreamSlot&) = delete;
  // TOO_MANY_STREAMS if there is none.
  absl::Status Take(ApiContext* api);
  absl::Status TakeReceive(ApiContext* api);
  absl::Status TakeWatch(ApiContext* api);

 private:
  absl::Status TakeOneOf(std::atomic<int>* open, int open_max, const char* what);

  std::atomic<int>* open_ = nullptr;  // while taken
};

class UnaryCall final : public Call {
 public:
  // Must end in exactly one Reply or Fail, now or later.
  using Handler = void (*)(const std::shared_ptr<UnaryCall>& call);
  struct Binding : MethodBinding {
    Handler handler = nullptr;
    bool taken_while_draining = false;
    // Answered as soon as a commit allows: see EventLoop::ShortCallCame.
    bool is_short = false;
    // Whether cancellation and the fate of the answer are of interest: costs one more event.
    bool watched = false;
    // Asked before the request is read; null: always OK.
    absl::Status (*admit)(const ApiContext& api) = nullptr;
    ReceiveLine* line = nullptr;
  };

  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const Binding& binding, EventLoop* loop);

  UnaryCall(const Binding& binding, EventLoop* loop);

  // For ReceiveLine. Begins to receive the request, unless the call is refused: false.
  bool StartReceiving();
  // The request has taken longer than this to arrive while others wait. The call leaves the line
  // when gRPC has let go of what did arrive.
  void RefuseSlow(int64_t patience_ms);

  // The call may take longer than UnaryCall::Binding::is_short says: it waits for something.
  void SetLong();

  // Until the handler returns.
  const grpc::ByteBuffer& request() const { return request_; }
  // False after it has failed the call: the bytes are no such message, or hold unknown fields.
  bool Parse(google::protobuf::Message* request);

  void Reply(const google::protobuf::MessageLite& response);
  void Reply(const grpc::ByteBuffer& response);
  void Fail(const absl::Status& status);

  // Watched calls only. At most one of each. Runs at once if the call has been cancelled already.
  void OnCancelled(absl::AnyInvocable<void()> handler);
  void OnWritten(absl::AnyInvocable<void(bool written)> handler) {
    on_written_ = std::move(handler);
  }

 private:
  std::shared_ptr<UnaryCall> self();
  void SetAnswered();
  void OnRequested(bool ok);
  void OnReceived(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  void ReportWritten();

  const Binding* const unary_;
  grpc::ByteBuffer request_;
  RawBidiStream stream_;
  Tag call_tag_;    // the call, then its request
  Tag answer_tag_;  // finish; a slow request may still be on its way
  Tag done_tag_;
  bool counts_as_short_ = false;
  bool answered_ = false;
  bool finished_ = false;
  bool finished_ok_ = false;
  bool done_ = false;
  int code_ = 0;
  absl::AnyInvocable<void()> on_cancelled_;
  absl::AnyInvocable<void(bool)> on_written_;
};

// The callback for a command of a unary call: brings the shard's answer to the call's loop and
// hands it to `reply(UnaryCall&, Result)` there.
template <typename Result, typename Reply>
absl::AnyInvocable<void(Result)> AnswerOnLoop(std::shared_ptr<UnaryCall> call, Reply reply) {
  return [call = std::move(call), reply = std::move(reply)](Result result) mutable {
    EventLoop& loop = call->loop();
    loop.Post([call = std::move(call), reply = std::move(reply),
               result = std::move(result)]() mutable { reply(*call, std::move(result)); });
  };
}

// Parses `bytes` as `message`; INVALID_ARGUMENT if they are none, UNIMPLEMENTED if they hold fields
// that this version does not know.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

// UNIMPLEMENTED if `message`, or a message in it, holds fields that this version does not know.
absl::Status RefuseUnknownFields(const google::protobuf::Message& message);

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CALL_H_
