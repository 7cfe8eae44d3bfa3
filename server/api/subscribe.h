// Subscribe: pushes what the shard grants.
#ifndef SLUICE_SERVER_API_SUBSCRIBE_H_
#define SLUICE_SERVER_API_SUBSCRIBE_H_

#include "server/api/consumer_stream.h"

namespace sluice::api {

class SubscribeCall final : public ConsumerStream {
 public:
  // Waits for the next call; when it comes, the next is waited for.
  static void Arm(const MethodBinding& binding, EventLoop* loop);

  SubscribeCall(const MethodBinding& binding, EventLoop* loop);

 private:
  void OnRequested(bool ok);
  absl::Status Take();

  void StartHeaders(void* tag) override { writer_.SendInitialMetadata(tag); }
  void StartWrite(const grpc::ByteBuffer& response, void* tag) override {
    writer_.Write(response, tag);
  }
  void StartFinish(const grpc::Status& status, void* tag) override { writer_.Finish(status, tag); }
  bool BuildResponse(grpc::ByteBuffer* response) override;

  grpc::ByteBuffer request_;
  RawStreamWriter writer_;
  Tag request_tag_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SUBSCRIBE_H_
