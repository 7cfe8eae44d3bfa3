// Which socket a client's calls come by.
#ifndef SLUICE_SERVER_API_CONNECTIONS_H_
#define SLUICE_SERVER_API_CONNECTIONS_H_

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace sluice::api {

// gRPC owns the sockets and closes them without a word: a descriptor found here may have been closed,
// or be another file's by now. It is good for hints to the kernel that do no harm elsewhere, and for
// nothing else. Thread-safe.
class Connections {
 public:
  // A connection has been accepted. False if it has been reset already: then there is nothing to serve.
  bool Add(int fd);
  // -1 if there is none. `peer`: what grpc::ServerContext::peer() calls the client.
  int Find(const std::string& peer) const;

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, int> fds_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> peers_ ABSL_GUARDED_BY(mutex_);  // by descriptor
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CONNECTIONS_H_
