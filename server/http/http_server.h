// The HTTP side door: /metrics, /healthz, /readyz and nothing else.
#ifndef SLUICE_SERVER_HTTP_HTTP_SERVER_H_
#define SLUICE_SERVER_HTTP_HTTP_SERVER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct mg_context;
struct mg_connection;

namespace sluice::http {

// Called on threads of the HTTP server, several at a time; may block for seconds.
struct HttpHandlers {
  std::function<std::string()> metrics;  // Prometheus' text format
  // OK: ready to serve. Otherwise /readyz answers 503 with the message.
  std::function<absl::Status()> ready;
};

// Serves until destroyed. A connection takes a thread from its first byte, or none, to its last, so
// there are many threads and little time to ask: who connects and says nothing must not keep
// /healthz from those who do. Work is bounded apart from that: /metrics and /readyz beyond kWorkMax
// are answered 503 at once, so that they cannot pile up in a server that is in trouble.
class HttpServer {
 public:
  static constexpr int kThreads = 128;       // idle ones cost about 20 KiB each
  static constexpr int kWaitingMax = 256;    // connections accepted and not yet looked at
  static constexpr int kRequestMsMax = 1000; // a client that sends nothing is let go after this
  static constexpr int kRequestBytesMax = 8192;
  static constexpr int kWorkMax = 8;         // a few scrapers and probes at once

  // `address` is host:port; port 0 takes a free one. UNAVAILABLE if it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           HttpHandlers handlers);
  // Waits for requests under way.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const { return port_; }

 private:
  explicit HttpServer(HttpHandlers handlers) : handlers_(std::move(handlers)) {}
  static int OnRequest(mg_connection* connection, void* server);
  int Answer(mg_connection* connection);

  const HttpHandlers handlers_;
  std::atomic<int> working_{0};  // requests inside handlers_
  mg_context* context_ = nullptr;
  std::string host_;
  uint16_t port_ = 0;
};

}  // namespace sluice::http

#endif  // SLUICE_SERVER_HTTP_HTTP_SERVER_H_
