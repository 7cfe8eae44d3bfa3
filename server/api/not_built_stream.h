// Streaming calls whose feature is not there yet.
#ifndef SLUICE_SERVER_API_NOT_BUILT_STREAM_H_
#define SLUICE_SERVER_API_NOT_BUILT_STREAM_H_

#include <memory>
#include <type_traits>

#include "server/api/call.h"
#include "server/api/error_mapping.h"
#include "server/api/handlers.h"

namespace sluice::api {

// Ends every call of its method UNIMPLEMENTED. `Stream`: RawStreamWriter or RawBidiStream.
template <typename Stream>
class NotBuiltStream final : public Call {
 public:
  static void Arm(const MethodBinding& binding, EventLoop* loop) {
    auto call = std::make_shared<NotBuiltStream>(binding, loop);
    void* const tag = call->tag_.template Arm<&NotBuiltStream::OnRequested>(call);
    if constexpr (std::is_same_v<Stream, RawBidiStream>) {
      binding.service->RequestBidiStream(binding.method->index, &call->context_, &call->stream_,
                                         loop->queue(), tag);
    } else {
      binding.service->RequestServerStream(binding.method->index, &call->context_,
                                           &call->request_, &call->stream_, loop->queue(), tag);
    }
  }

  NotBuiltStream(const MethodBinding& binding, EventLoop* loop)
      : Call(binding, loop), stream_(&context_) {}

 private:
  void OnRequested(bool ok) {
    if (!ok) return;
    Arm(binding_, loop_);
    Begin();
    auto self = std::static_pointer_cast<NotBuiltStream>(shared_from_this());
    stream_.Finish(ToGrpcStatus(NotBuiltCall(method())),
                   tag_.template Arm<&NotBuiltStream::OnFinished>(std::move(self)));
  }
  void OnFinished(bool) { End(static_cast<int>(grpc::StatusCode::UNIMPLEMENTED)); }

  grpc::ByteBuffer request_;
  Stream stream_;
  Tag tag_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_NOT_BUILT_STREAM_H_
