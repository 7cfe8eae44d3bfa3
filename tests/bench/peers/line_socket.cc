#include "tests/bench/peers/line_socket.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/peers/peer.h"

namespace sluice::peers {
namespace {

constexpr size_t kWriteBytes = 64 << 10;
constexpr size_t kReadBytes = 256 << 10;
constexpr char kLineEnd[] = "\r\n";

}  // namespace

LineSocket::LineSocket(const std::string& host, int port)
    : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  if (fd_ < 0 || ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    Die("cannot connect");
  }
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

LineSocket::~LineSocket() { ::close(fd_); }

void LineSocket::Write(absl::string_view bytes) {
  out_.append(bytes.data(), bytes.size());
  if (out_.size() >= kWriteBytes) Flush();
}

void LineSocket::Flush() {
  for (size_t sent = 0; sent < out_.size();) {
    const ssize_t some = ::send(fd_, out_.data() + sent, out_.size() - sent, MSG_NOSIGNAL);
    if (some <= 0) Die("the connection broke");
    sent += static_cast<size_t>(some);
  }
  out_.clear();
}

bool LineSocket::HasLine() { return in_.find(kLineEnd, read_) != std::string::npos; }

bool LineSocket::WaitLine(int64_t until_ns) {
  while (!HasLine()) {
    if (!WaitReadable(fd_, until_ns)) return false;
    ReadSome();
  }
  return true;
}

absl::string_view LineSocket::ReadLine() {
  while (!HasLine()) ReadSome();
  const size_t end = in_.find(kLineEnd, read_);
  const absl::string_view line(in_.data() + read_, end - read_);
  read_ = end + 2;
  return line;
}

absl::string_view LineSocket::ReadBytes(size_t count) {
  while (in_.size() - read_ < count) ReadSome();
  const absl::string_view bytes(in_.data() + read_, count);
  read_ += count;
  return bytes;
}

void LineSocket::ReadSome() {
  in_.erase(0, read_);
  read_ = 0;
  const size_t before = in_.size();
  in_.resize(before + kReadBytes);
  const ssize_t some = ::recv(fd_, in_.data() + before, kReadBytes, 0);
  if (some <= 0) Die("the connection broke");
  in_.resize(before + static_cast<size_t>(some));
}

}  // namespace sluice::peers
