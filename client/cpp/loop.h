// The thread that takes up what gRPC has done for the clients of this process.
//
// gRPC's blocking calls each wait on a queue of their own, and with several of them about threads wake
// each other for every event of a connection: one that polls, and one that the event is for. Here
// one queue and one thread serve all streams of a client, and a stream's next step is taken on that
// thread, or by whoever asks for it (docs/adr/0012-one-loop-for-the-client.md).
#ifndef SLUICE_CLIENT_CPP_LOOP_H_
#define SLUICE_CLIENT_CPP_LOOP_H_

#include <grpcpp/completion_queue.h>

#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace sluice::client {

class Loop {
 public:
  // One of the process's few; kept for as long as someone has it. Any thread. The last to let go
  // must not be on the loop's own thread, and have nothing under way on its queue.
  static std::shared_ptr<Loop> Get();

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // What an operation on queue() is to be named by: tag.name(). Calls `done` with gRPC's `ok`, on the
  // loop's thread, once for each operation. It must not wait for anything that comes by the loop.
  class Tag {
   public:
    explicit Tag(std::function<void(bool ok)> done) : done_(std::move(done)) {}
    Tag(const Tag&) = delete;
    Tag& operator=(const Tag&) = delete;
    void* name() { return this; }

   private:
    friend class Loop;
    const std::function<void(bool ok)> done_;
  };

  grpc::CompletionQueue* queue() { return &queue_; }
  // Whether the caller is one of the loop's callbacks, which must not wait for another.
  bool IsCurrent() const { return thread_.get_id() == std::this_thread::get_id(); }

 private:
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_LOOP_H_
