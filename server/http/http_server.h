// The HTTP side door: /metrics, /healthz, /readyz and nothing else.
#ifndef SLUICE_SERVER_HTTP_HTTP_SERVER_H_
#define SLUICE_SERVER_HTTP_HTTP_SERVER_H_

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

// Serves until destroyed. Requests beyond kThreads wait in a short line and are turned away beyond
// that, so that scrapes and probes cannot pile up in a server that is in trouble.
class HttpServer {
 public:
  static constexpr int kThreads = 4;         // two scrapers and two probes at once
  static constexpr int kWaitingMax = 32;     // connections accepted and not yet looked at
  static constexpr int kRequestMsMax = 5000; // a client that sends nothing is let go after this
  static constexpr int kRequestBytesMax = 8192;

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
  int Answer(mg_connection* connection) const;

  const HttpHandlers handlers_;
  mg_context* context_ = nullptr;
  std::string host_;
  uint16_t port_ = 0;
};

}  // namespace sluice::http

#endif  // SLUICE_SERVER_HTTP_HTTP_SERVER_H_
