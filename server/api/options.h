// Settings of the gRPC edge.
#ifndef SLUICE_SERVER_API_OPTIONS_H_
#define SLUICE_SERVER_API_OPTIONS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "server/model/limits.h"

namespace sluice::api {

struct ServerOptions {
  // host:port; port 0 takes a free one. Plaintext: whoever composes the server decides whether the
  // address may be other than loopback.
  std::string listen = "127.0.0.1:7070";
  // One measured faster than two on two cores; more serve machines with many cores.
  int polling_threads = 1;

  // --- connections
  // Python clients ping every 30 s by default, meshes more often. Pings in shorter intervals count
  // as abuse and close the connection.
  int64_t ping_interval_ms_min = 10 * kSecondMs;
  // Our own pings find dead peers, whose leases must come back.
  int64_t keepalive_interval_ms = 30 * kSecondMs;
  int64_t keepalive_timeout_ms = 10 * kSecondMs;
  // After this a connection takes no new calls (GOAWAY), so that clients spread over new servers;
  // after the grace it is cut. Streams are ended STREAM_AGED before that: see StreamAgeMsMax.
  // 0: no limit.
  int64_t connection_age_ms_max = 1 * kHourMs;
  int64_t connection_age_grace_ms = 1 * kHourMs;
  // Calls and streams of one connection; clients hold back the rest. Each may keep a flow-control
  // window of 64 KiB filled before it is looked at.
  int concurrent_streams_max = 1'000;
  int64_t metadata_bytes_max = 16 * kKiB;
  // gRPC's own buffers, over all connections. 0: no limit. A last fence, well above what the limits
  // below let in: at it gRPC cuts streams and connections, and clients cannot know what happened.
  int64_t transport_bytes_max = 2048 * kMiB;

  // --- work taken in
  int64_t body_bytes_max = kBodyBytesMaxDefault;
  // Open Subscribe, Consume and PublishStream calls. More are refused TOO_MANY_STREAMS.
  int streams_max = 50'000;
  // Receive calls that wait or are being answered. More are refused TOO_MANY_STREAMS.
  int receives_max = 10'000;
  // Open Health.Watch calls, one for each channel of a client that asks for it. Apart from other
  // streams, so that a server with all the streams it can have still tells that it serves them.
  int health_watches_max = 50'000;
  // Messages in answers to Receive that the transport has not taken yet. At it they are refused
  // MEMORY_FULL.
  int64_t receive_bytes_max = 128 * kMiB;
  // Unconfirmed messages and bytes of one PublishStream. At either the stream is not read on.
  int32_t stream_messages_max = 20'000;
  int64_t stream_bytes_max = 32 * kMiB;
  // Unconfirmed bytes of all publishes. At it streams are not read on and single publishes are
  // refused MEMORY_FULL. As many bytes again may be arriving: see PublishesReceivedMax.
  int64_t server_bytes_max = 256 * kMiB;
  // Unary calls other than publishes whose requests are received at the same time, per polling
  // thread. Each may be kRequestBytesMax large; the rest wait unread. Apart from publishes, so that
  // acks never wait for them.
  int requests_received_max = 8;
  // A unary request that takes longer than this to arrive is refused MEMORY_FULL if others wait for
  // its place meanwhile: the largest one needs 1.6 MB/s then.
  int64_t receive_patience_ms = 10 * kSecondMs;

  // --- about itself
  std::string version = "0.0.0";
  std::string server_id;
  std::vector<std::string> warnings;  // for GetServerInfo
};

// Publish calls whose requests are received at the same time, per polling thread; the rest wait
// unread.
inline int PublishesReceivedMax(const ServerOptions& options) {
  return static_cast<int>(std::max<int64_t>(1, options.server_bytes_max / kRequestBytesMax));
}

// Streams end by themselves this early before their connection is cut. A stream opened right before
// the connection's age limit lives through all of the grace, hence: grace minus a margin. 0: never.
inline int64_t StreamAgeMsMax(const ServerOptions& options) {
  if (options.connection_age_ms_max == 0) return 0;
  const int64_t margin_ms =
      options.connection_age_grace_ms / 10 < 30 * kSecondMs ? options.connection_age_grace_ms / 10
                                                            : 30 * kSecondMs;
  return options.connection_age_grace_ms - margin_ms;
}

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_OPTIONS_H_
