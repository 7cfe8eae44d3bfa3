// A generated service whose calls all carry unparsed bytes and complete on completion queues.
#ifndef SLUICE_SERVER_API_RAW_SERVICE_H_
#define SLUICE_SERVER_API_RAW_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include "server/api/rpc_method.h"

namespace sluice::api {

using RawStreamWriter = grpc::ServerAsyncWriter<grpc::ByteBuffer>;
using RawBidiStream = grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

// Asks gRPC for the next call of the method with this index (RpcMethod::index). The arguments stay
// the caller's and must live until `tag` comes back.
class RawMethods {
 public:
  virtual ~RawMethods() = default;
  virtual void RequestServerStream(int index, grpc::ServerContext* context,
                                   grpc::ByteBuffer* request, RawStreamWriter* writer,
                                   grpc::ServerCompletionQueue* queue, void* tag) = 0;
  // Unary calls as well: see RawService.
  virtual void RequestBidiStream(int index, grpc::ServerContext* context, RawBidiStream* stream,
                                 grpc::ServerCompletionQueue* queue, void* tag) = 0;
};

// Does for all methods what the generated WithRawMethod_X<> does for one: those would have to be
// nested once per method.
//
// Unary calls are taken like bidi streams of one message each way. gRPC would otherwise receive the
// whole request of every call before it hands the call over, however many there are; so the request
// waits in the flow-control window of its stream until it is read.
template <typename GeneratedService>
class RawService final : public GeneratedService, public RawMethods {
 public:
  explicit RawService(const char* service) {
    for (const RpcMethod& method : AllRpcMethods()) {
      if (method.service != service) continue;
      if (method.type == RpcType::kUnary) this->MarkMethodStreamed(method.index, nullptr);
      this->MarkMethodRaw(method.index);
    }
  }

  void RequestServerStream(int index, grpc::ServerContext* context, grpc::ByteBuffer* request,
                           RawStreamWriter* writer, grpc::ServerCompletionQueue* queue,
                           void* tag) override {
    this->RequestAsyncServerStreaming(index, context, request, writer, queue, queue, tag);
  }
  void RequestBidiStream(int index, grpc::ServerContext* context, RawBidiStream* stream,
                         grpc::ServerCompletionQueue* queue, void* tag) override {
    this->RequestAsyncBidiStreaming(index, context, stream, queue, queue, tag);
  }
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_RAW_SERVICE_H_
