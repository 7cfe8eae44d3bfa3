#include "server/http/http_server.h"

#include <civetweb.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string_view>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"

namespace sluice::http {
namespace {

constexpr char kText[] = "text/plain; charset=utf-8";
constexpr char kMetricsText[] = "text/plain; version=0.0.4; charset=utf-8";

struct Reply {
  int code = 200;
  const char* reason = "OK";
  const char* content_type = kText;
  std::string body;
};

int Send(mg_connection* connection, const Reply& reply, bool with_body) {
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", reply.code, " ", reply.reason, "\r\nContent-Type: ", reply.content_type,
      "\r\nContent-Length: ", reply.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
      reply.code == 405 ? "Allow: GET, HEAD\r\n" : "", "\r\n");
  mg_write(connection, head.data(), head.size());
  if (with_body) mg_write(connection, reply.body.data(), reply.body.size());
  return reply.code;
}

int LogCivetweb(const mg_connection*, const char* message) {
  Log(LogLevel::kWarning, "http server", {{"message", message}});
  return 1;
}

constexpr std::chrono::milliseconds kKnockPeriod{5};

// Connects and hangs up.
void Knock(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    static_cast<void>(connect(fd, found->ai_addr, found->ai_addrlen));
    close(fd);
  }
  freeaddrinfo(found);
}

// The host of "host:port", as this machine reaches it.
std::string HostToReach(const std::string& address) {
  std::string host = address.substr(0, address.rfind(':'));
  if (!host.empty() && host.front() == '[') host = host.substr(1, host.size() - 2);
  if (host == "localhost" || host == "0.0.0.0") return "127.0.0.1";
  return host == "::" ? "::1" : host;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              HttpHandlers handlers) {
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(handlers)));
  server->host_ = HostToReach(address);
  const std::string threads = absl::StrCat(kThreads);
  const std::string waiting = absl::StrCat(kWaitingMax);
  const std::string timeout = absl::StrCat(kRequestMsMax);
  const std::string request_bytes = absl::StrCat(kRequestBytesMax);
  const char* options[] = {"listening_ports",  address.c_str(),
                           "num_threads",      threads.c_str(),
                           "connection_queue", waiting.c_str(),
                           "request_timeout_ms", timeout.c_str(),
                           "max_request_size", request_bytes.c_str(),
                           "enable_keep_alive", "no",
                           "enable_directory_listing", "no",
                           nullptr};
  mg_callbacks callbacks{};
  callbacks.log_message = &LogCivetweb;
  mg_init_library(MG_FEATURES_DEFAULT);
  server->context_ = mg_start(&callbacks, server.get(), options);
  if (server->context_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on http address ", address,
                     ": it is in use, or not an address of this machine"));
  }
  mg_server_port port{};
  if (mg_get_server_ports(server->context_, 1, &port) == 1) {
    server->port_ = static_cast<uint16_t>(port.port);
  }
  // "**" matches every path, so that civetweb's own file serving is never reached.
  mg_set_request_handler(server->context_, "**", &HttpServer::OnRequest, server.get());
  return server;
}

HttpServer::~HttpServer() {
  if (context_ != nullptr) {
    // civetweb looks at its stop flag only every two seconds, or when someone connects.
    std::atomic<bool> stopped{false};
    std::thread stopper([&] {
      mg_stop(context_);
      stopped = true;
    });
    while (!stopped) {
      Knock(host_, port_);
      std::this_thread::sleep_for(kKnockPeriod);
    }
    stopper.join();
  }
  mg_exit_library();
}

int HttpServer::OnRequest(mg_connection* connection, void* server) {
  return static_cast<HttpServer*>(server)->Answer(connection);
}

int HttpServer::Answer(mg_connection* connection) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string_view method = request->request_method;
  const std::string_view path = request->local_uri == nullptr ? "" : request->local_uri;
  const bool is_head = method == "HEAD";
  Reply reply;
  if (path != "/metrics" && path != "/healthz" && path != "/readyz") {
    reply = {404, "Not Found", kText, "there are /metrics, /healthz and /readyz\n"};
  } else if (method != "GET" && !is_head) {
    reply = {405, "Method Not Allowed", kText, "only GET and HEAD\n"};
  } else if (path == "/healthz") {
    reply.body = "ok\n";
  } else if (working_.fetch_add(1) >= kWorkMax) {
    working_.fetch_sub(1);
    reply = {503, "Service Unavailable", kText, "too many requests at once\n"};
  } else {
    if (path == "/metrics") {
      reply.content_type = kMetricsText;
      reply.body = handlers_.metrics();
    } else if (const absl::Status ready = handlers_.ready(); ready.ok()) {
      reply.body = "ready\n";
    } else {
      reply = {503, "Service Unavailable", kText, absl::StrCat(ready.message(), "\n")};
    }
    working_.fetch_sub(1);
  }
  return Send(connection, reply, !is_head);
}

}  // namespace sluice::http
