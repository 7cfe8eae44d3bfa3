#include "tests/support/client.h"

#include <arpa/inet.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace sluice::testing {
namespace {

constexpr absl::Duration kWaitPollInterval = absl::Milliseconds(5);
constexpr int kReconnectBackoffMs = 50;
// The server's own limit for requests; answers can be larger than gRPC's 4 MiB when one message is.
constexpr int kMessageBytesMax = 17 << 20;

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string FromBuffer(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "";
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// Field `number` with a string value, in protobuf's wire format; for values under 128 bytes.
std::string StringField(int number, const std::string& value) {
  return absl::StrCat(std::string(1, static_cast<char>(number << 3 | 2)),
                      std::string(1, static_cast<char>(value.size())), value);
}

// HealthCheckResponse is one enum in field 1; an absent field is 0.
HealthStatus ParseHealth(const std::string& bytes) {
  if (bytes.size() < 2 || bytes[0] != 0x08) return HealthStatus::kUnknown;
  return static_cast<HealthStatus>(bytes[1]);
}

// One request and any number of answers, on a completion queue of its own: `answer` returns false
// to cancel. Works for unary and server-streaming methods alike.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& request,
                     const std::function<bool(const std::string&)>& answer) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  auto context = NewContext();
  auto stream = stub.PrepareCall(context.get(), method, &queue);
  auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  bool open = wait();
  if (open) {
    stream->WriteLast(ToBuffer(request), grpc::WriteOptions(), nullptr);
    open = wait();
  }
  while (open) {
    grpc::ByteBuffer buffer;
    stream->Read(&buffer, nullptr);
    open = wait();
    if (open && !answer(FromBuffer(buffer))) {
      context->TryCancel();
      open = false;
    }
  }
  grpc::Status status;
  stream->Finish(&status, nullptr);
  wait();
  queue.Shutdown();
  return status;
}

}  // namespace

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectBackoffMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectBackoffMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2 * kReconnectBackoffMs);
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

Client::Client(const std::string& address)
    : channel(NewChannel(address)),
      queues(v1::QueueService::NewStub(channel)),
      admin(v1::AdminService::NewStub(channel)) {}

std::unique_ptr<grpc::ClientContext> NewContext(absl::Duration timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  return context;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::ToInt64Seconds(duration));
  proto.set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(duration - absl::Seconds(proto.seconds()))));
  return proto;
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails details;
  details.bytes = status.error_details().size();
  google::rpc::Status proto;
  if (!proto.ParseFromString(status.error_details())) return details;
  for (const google::protobuf::Any& any : proto.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info)) {
      details.reason = info.reason();
      details.domain = info.domain();
    } else if (any.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        details.fields.push_back(violation.field());
      }
    } else if (any.UnpackTo(&retry)) {
      details.has_retry_delay = true;
      details.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return details;
}

absl::StatusOr<HealthStatus> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                         const std::string& service) {
  HealthStatus health = HealthStatus::kUnknown;
  grpc::Status status = RawCall(channel, "/grpc.health.v1.Health/Check", StringField(1, service),
                                [&](const std::string& bytes) {
                                  health = ParseHealth(bytes);
                                  return true;
                                });
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        status.error_message());
  }
  return health;
}

grpc::Status WatchHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                         const std::function<bool(HealthStatus)>& seen) {
  return RawCall(channel, "/grpc.health.v1.Health/Watch", StringField(1, service),
                 [&](const std::string& bytes) { return seen(ParseHealth(bytes)); });
}

absl::StatusOr<std::string> ListReflectedServices(const std::shared_ptr<grpc::Channel>& channel) {
  std::string answer;
  constexpr int kListServicesField = 7;
  grpc::Status status =
      RawCall(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              StringField(kListServicesField, "*"), [&](const std::string& bytes) {
                answer += bytes;
                return true;
              });
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        status.error_message());
  }
  return answer;
}

absl::StatusOr<HttpAnswer> HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval timeout{absl::ToInt64Seconds(kCallTimeout), 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  std::string text;
  absl::Status status;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    status = absl::ErrnoToStatus(errno, "connect");
  } else {
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    if (write(fd, request.data(), request.size()) < 0) {
      status = absl::ErrnoToStatus(errno, "write");
    }
    char buffer[4096];
    for (ssize_t n = 0; status.ok() && (n = read(fd, buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
    }
  }
  close(fd);
  if (!status.ok()) return status;
  HttpAnswer answer;
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos || !absl::StartsWith(text, "HTTP/1.") || text.size() < 12 ||
      !absl::SimpleAtoi(text.substr(9, 3), &answer.code)) {
    return absl::UnavailableError("no HTTP answer");
  }
  answer.headers = text.substr(0, end);
  answer.body = text.substr(end + 4);
  return answer;
}

bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time give_up = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() > give_up) return false;
    absl::SleepFor(kWaitPollInterval);
  }
  return true;
}

}  // namespace sluice::testing
