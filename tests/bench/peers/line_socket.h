// A TCP connection that speaks lines.
#ifndef SLUICE_TESTS_BENCH_PEERS_LINE_SOCKET_H_
#define SLUICE_TESTS_BENCH_PEERS_LINE_SOCKET_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice::peers {

// Errors end the process (Die). One thread.
class LineSocket {
 public:
  LineSocket(const std::string& host, int port);
  ~LineSocket();
  LineSocket(const LineSocket&) = delete;
  LineSocket& operator=(const LineSocket&) = delete;

  // Holds what it is given until Flush, or until much has gathered.
  void Write(absl::string_view bytes);
  void Flush();

  // Whether a line can be read without waiting.
  bool HasLine();
  // Waits for one until then. False: the time came first.
  bool WaitLine(int64_t until_ns);
  // Waits for a line; without its end. Good until the next read.
  absl::string_view ReadLine();
  // The same for so many bytes.
  absl::string_view ReadBytes(size_t count);

 private:
  void ReadSome();

  int fd_;
  std::string out_;
  std::string in_;
  size_t read_ = 0;  // of in_
};

}  // namespace sluice::peers

#endif  // SLUICE_TESTS_BENCH_PEERS_LINE_SOCKET_H_
