// Answers that leave together.
#ifndef SLUICE_SERVER_API_ANSWER_CORK_H_
#define SLUICE_SERVER_API_ANSWER_CORK_H_

#include <grpcpp/server_context.h>

#include <string>
#include <vector>

#include "server/api/connections.h"

namespace sluice::api {

// gRPC sends the answer to each call by itself. When a commit answers a hundred calls of one
// connection, this has the kernel keep them (TCP_CORK) and send them as full packets: less work for
// it, and the client is woken once for many. Loop thread only.
class AnswerCork {
 public:
  explicit AnswerCork(const Connections* connections) : connections_(connections) {}
  AnswerCork(const AnswerCork&) = delete;
  AnswerCork& operator=(const AnswerCork&) = delete;

  // Before the answer to a call is written: what is written to its connection from now on waits for
  // Release, for more, or for a full packet.
  void Hold(const grpc::ServerContext& call);
  // Sends what is held.
  void Release();

 private:
  const Connections* const connections_;
  std::vector<int> held_;  // sockets
  int answers_ = 0;        // since the last release
  std::string last_peer_;  // calls of one connection come in rows
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_ANSWER_CORK_H_
