// A call with one request and a stream of responses, as gRPC hands it over and ends it.
#ifndef SLUICE_SERVER_API_SERVER_STREAM_CALL_H_
#define SLUICE_SERVER_API_SERVER_STREAM_CALL_H_

#include <memory>
#include <utility>

#include "server/api/call.h"

namespace sluice::api {

// `Derived` writes and finishes through writer_, one operation at a time. Loop thread only.
template <typename Derived>
class ServerStreamCall : public Call {
 public:
  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const MethodBinding& binding, EventLoop* loop) {
    const auto call = std::make_shared<Derived>(binding, loop);
    ServerStreamCall& stream = *call;
    stream.context_.AsyncNotifyWhenDone(stream.done_tag_.template Arm<&ServerStreamCall::Done>(call));
    void* const tag = stream.call_tag_.template Arm<&ServerStreamCall::Requested>(call);
    binding.service->RequestServerStream(binding.method->index, &stream.context_,
                                         &stream.request_bytes_, &stream.writer_, loop->queue(),
                                         tag);
  }

 protected:
  ServerStreamCall(const MethodBinding& binding, EventLoop* loop)
      : Call(binding, loop), writer_(&context_) {}

  // The call has come, with its request in request_bytes_.
  virtual void OnRequested() = 0;
  // It is over, whoever ended it.
  virtual void OnDone() = 0;

  std::shared_ptr<Derived> self() { return std::static_pointer_cast<Derived>(shared_from_this()); }

  grpc::ByteBuffer request_bytes_;
  RawStreamWriter writer_;
  Tag call_tag_;  // headers, writes, finish: one after the other

 private:
  void Requested(bool ok) {
    if (!ok) {
      done_tag_.Release();  // no call, so no end of it either
      return;
    }
    Arm(binding_, loop_);
    Begin();
    CountReceived();
    OnRequested();
  }
  void Done(bool) { OnDone(); }

  Tag done_tag_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SERVER_STREAM_CALL_H_
