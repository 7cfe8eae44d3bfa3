#include "server/api/answer_cork.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace sluice::api {
namespace {

// Some hundred microseconds' worth: the first answer waits for the last one.
constexpr int kAnswersMax = 64;

// The socket may be another's by now, see Connections: then somebody's packets are delayed for a
// moment. If it is no TCP socket any more, nothing happens.
void SetCork(int fd, int on) {
  static_cast<void>(setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)));
}

}  // namespace

void AnswerCork::Hold(const grpc::ServerContext& call) {
  if (++answers_ > kAnswersMax) {
    Release();
    answers_ = 1;
  }
  std::string peer = call.peer();
  if (!held_.empty() && peer == last_peer_) return;
  last_peer_ = std::move(peer);
  const int fd = connections_->Find(last_peer_);
  if (fd < 0 || std::find(held_.begin(), held_.end(), fd) != held_.end()) return;
  SetCork(fd, 1);
  held_.push_back(fd);
}

void AnswerCork::Release() {
  for (const int fd : held_) SetCork(fd, 0);
  held_.clear();
  answers_ = 0;
}

}  // namespace sluice::api
