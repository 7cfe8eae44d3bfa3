// Accepts TCP connections.
//
// gRPC would do so itself, but its listener stops for good when the process runs out of file
// descriptors, and leaves none to the store; nor does it tell which socket a call comes by, which
// AnswerCork has to know.
#ifndef SLUICE_SERVER_API_LISTENER_H_
#define SLUICE_SERVER_API_LISTENER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct addrinfo;

namespace sluice::api {

// A file descriptor, closed when destroyed.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const { return fd_; }
  int Release();

 private:
  int fd_;
};

class Listener {
 public:
  struct Options {
    // host:port. 0.0.0.0 and [::] are all addresses of this machine, of each family that it has.
    // Port 0: any that is free.
    std::string address;
    // A connection whose peer acknowledges nothing for so long is dropped by the kernel. 0: never.
    int64_t silence_ms_max = 0;
    // Descriptors that connections leave to the rest of the process; at most a quarter of all.
    int reserved = 1024;
  };

  // Binds all addresses that the host stands for. UNAVAILABLE if that cannot be.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const Options& options);
  ~Listener() { Stop(); }

  int port() const { return port_; }
  // Accepts from now on, on a thread of its own: `take` gets each connection and owns it.
  void Start(std::function<void(Descriptor connection)> take);
  // Closes the port. Connections that have not been taken are reset.
  void Stop();

 private:
  explicit Listener(const Options& options) : options_(options) {}
  absl::Status BindAll();
  // Errno in the end, 0 if all is well.
  int BindOne(const addrinfo& address);
  void Run();
  // All that wait at `socket`. False if there is no use in trying again at once.
  bool Accept(int socket);
  // Not more than once in a while.
  void WarnOfNoMore(const char* why);

  const Options options_;
  int port_ = 0;
  std::vector<Descriptor> sockets_;
  Descriptor stop_;  // an eventfd, readable once Stop is called
  int fd_end_ = 0;   // connections at or above would take what is reserved
  int64_t warned_ns_ = 0;
  std::function<void(Descriptor)> take_;
  std::thread thread_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_LISTENER_H_
