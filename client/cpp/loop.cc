#include "client/cpp/loop.h"

#include <algorithm>
#include <mutex>
#include <vector>

namespace sluice::client {
namespace {

// One loop fills about half a core when a client does nothing but publish or consume at full speed,
// and its server needs cores too.
constexpr unsigned kCoresPerLoop = 4;

// The loops of the process, each used by every so many'th client.
class Loops {
 public:
  std::shared_ptr<Loop> Next() {
    std::lock_guard lock(mutex_);
    std::weak_ptr<Loop>& next = loops_[next_++ % loops_.size()];
    std::shared_ptr<Loop> loop = next.lock();
    if (!loop) next = loop = std::make_shared<Loop>();
    return loop;
  }

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Loop>> loops_{
      std::max(1u, std::thread::hardware_concurrency() / kCoresPerLoop)};
  size_t next_ = 0;
};

}  // namespace

std::shared_ptr<Loop> Loop::Get() {
  static Loops* const loops = new Loops;  // never deleted: clients may be as long-lived as that
  return loops->Next();
}

Loop::Loop() {
  thread_ = std::thread([this] {
    void* name = nullptr;
    bool ok = false;
    while (queue_.Next(&name, &ok)) static_cast<Tag*>(name)->done_(ok);
  });
}

Loop::~Loop() {
  queue_.Shutdown();
  thread_.join();
}

}  // namespace sluice::client
