// The ceiling for unary publishes: a server that takes Publish calls as cheaply as gRPC allows and
// answers each at once, storing nothing. What the same client reaches against it, in the same run,
// is what a real server can be measured by.
//
//   build/bin/bench_empty_server --port 7072 &
//   build/bin/sluice bench publish --unary --server 127.0.0.1:7072
#include <grpcpp/completion_queue.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"

ABSL_FLAG(int, port, 0, "port on loopback; 0 takes a free one, which is printed");
ABSL_FLAG(int, queues, 1, "completion queues, each with a thread");
ABSL_FLAG(bool, read_separately, false,
          "take a call before its request, as a server has to that bounds the memory of requests");

namespace sluice {
namespace {

using RawQueueService = v1::QueueService::WithRawMethod_Publish<v1::QueueService::Service>;

// Calls that wait for work on each queue; more than a client has in flight at once.
constexpr int kSlots = 1000;

grpc::ByteBuffer OneResult() {
  v1::PublishResponse response;
  auto* result = response.add_results();
  result->set_message_id("AAAAAAAAAAAAAAAAAAAAAAAA");
  result->set_routed_queues(1);
  const grpc::Slice slice(response.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

std::atomic<bool> stopping{false};
std::atomic<int64_t> answers{0};

// One call after the other, for ever: asked for, answered, asked for again.
class Slot {
 public:
  Slot(RawQueueService* service, grpc::ServerCompletionQueue* queue, const grpc::ByteBuffer* answer)
      : service_(service), queue_(queue), answer_(answer) {
    Arm();
  }
  void Proceed(bool ok) {
    if (answered_ && !stopping) return Arm();  // also when the client had gone
    if (answered_ || !ok) return;
    answered_ = true;
    answers.fetch_add(1, std::memory_order_relaxed);
    call_->writer.Finish(*answer_, grpc::Status::OK, this);
  }

 private:
  struct OneCall {
    grpc::ServerContext context;
    grpc::ByteBuffer request;
    grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer{&context};
  };
  void Arm() {
    answered_ = false;
    call_ = std::make_unique<OneCall>();
    service_->RequestPublish(&call_->context, &call_->request, &call_->writer, queue_, queue_,
                             this);
  }

  RawQueueService* const service_;
  grpc::ServerCompletionQueue* const queue_;
  const grpc::ByteBuffer* const answer_;
  std::unique_ptr<OneCall> call_;
  bool answered_ = false;
};

// The same, but that gRPC hands the call over before it has received the request.
class SeparateReads final : public v1::QueueService::Service {
 public:
  SeparateReads() {
    MarkMethodStreamed(kPublish, nullptr);
    MarkMethodRaw(kPublish);
  }

  class Slot {
   public:
    Slot(SeparateReads* service, grpc::ServerCompletionQueue* queue, const grpc::ByteBuffer* answer)
        : service_(service), queue_(queue), answer_(answer) {
      Arm();
    }
    void Proceed(bool ok) {
      if (step_ == Step::kAnswering && !stopping) return Arm();
      if (step_ == Step::kAnswering || !ok) return;
      if (step_ == Step::kAsked) {
        step_ = Step::kReading;
        return call_->stream.Read(&call_->request, this);
      }
      step_ = Step::kAnswering;
      answers.fetch_add(1, std::memory_order_relaxed);
      call_->stream.WriteAndFinish(*answer_, grpc::WriteOptions(), grpc::Status::OK, this);
    }

   private:
    enum class Step { kAsked, kReading, kAnswering };
    struct OneCall {
      grpc::ServerContext context;
      grpc::ByteBuffer request;
      grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream{&context};
    };
    void Arm() {
      step_ = Step::kAsked;
      call_ = std::make_unique<OneCall>();
      service_->RequestAsyncBidiStreaming(kPublish, &call_->context, &call_->stream, queue_, queue_,
                                          this);
    }

    SeparateReads* const service_;
    grpc::ServerCompletionQueue* const queue_;
    const grpc::ByteBuffer* const answer_;
    std::unique_ptr<OneCall> call_;
    Step step_ = Step::kAsked;
  };

 private:
  static constexpr int kPublish = 0;  // the service's first method
};

// What a client asks for around its publishes.
class EmptyAdmin final : public v1::AdminService::Service {
  grpc::Status CreateQueue(grpc::ServerContext*, const v1::CreateQueueRequest* request,
                           v1::CreateQueueResponse* response) override {
    *response->mutable_queue()->mutable_config() = request->config();
    response->set_created(true);
    return grpc::Status::OK;
  }
  // The client checks that what was confirmed is there.
  grpc::Status ListQueues(grpc::ServerContext*, const v1::ListQueuesRequest*,
                          v1::ListQueuesResponse* response) override {
    response->add_queues()->mutable_stats()->set_ready(answers);
    return grpc::Status::OK;
  }
  grpc::Status DeleteQueue(grpc::ServerContext*, const v1::DeleteQueueRequest*,
                           v1::DeleteQueueResponse*) override {
    return grpc::Status::OK;
  }
};

template <typename AnySlot>
void Poll(grpc::ServerCompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) static_cast<AnySlot*>(tag)->Proceed(ok);
}

template <typename AnyService, typename AnySlot>
int Serve() {
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGINT);
  sigaddset(&stops, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);  // for all threads to come

  AnyService queue_service;
  EmptyAdmin admin_service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", absl::GetFlag(FLAGS_port)),
                           grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&queue_service);
  builder.RegisterService(&admin_service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < absl::GetFlag(FLAGS_queues); ++i) {
    queues.push_back(builder.AddCompletionQueue());
  }
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "bench_empty_server: the port is in use\n");
    return 1;
  }
  const grpc::ByteBuffer answer = OneResult();
  std::vector<std::unique_ptr<AnySlot>> slots;
  std::vector<std::thread> threads;
  for (const auto& queue : queues) {
    for (int i = 0; i < kSlots; ++i) {
      slots.push_back(std::make_unique<AnySlot>(&queue_service, queue.get(), &answer));
    }
    threads.emplace_back(&Poll<AnySlot>, queue.get());
  }
  std::printf("serving on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  int signal = 0;
  sigwait(&stops, &signal);
  stopping = true;
  server->Shutdown(gpr_now(GPR_CLOCK_MONOTONIC));
  for (const auto& queue : queues) queue->Shutdown();
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  // As in the server: Debian builds Abseil with its search for deadlocks on.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  if (absl::GetFlag(FLAGS_read_separately)) {
    return sluice::Serve<sluice::SeparateReads, sluice::SeparateReads::Slot>();
  }
  return sluice::Serve<sluice::RawQueueService, sluice::Slot>();
}
