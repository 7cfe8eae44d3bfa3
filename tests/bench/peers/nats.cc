// NATS JetStream: asynchronous publishes; a push consumer shared by a queue group, explicit acks.
#include <nats/nats.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/clock.h"
#include "tests/bench/peers/peer.h"

namespace sluice::peers {
namespace {

// A stream and its subject have the queue's name.
constexpr char kDurable[] = "consumers";
constexpr int64_t kMaxAckPending = 20'000;
constexpr int64_t kNanosPerMilli = 1'000'000;

void Check(natsStatus status, const char* what) {
  if (status != NATS_OK) Die(absl::StrCat("NATS ", what, ": ", natsStatus_GetText(status)));
}

class Connection {
 public:
  explicit Connection(const Settings& settings) {
    Check(natsConnection_ConnectTo(
              &connection_, absl::StrCat("nats://", settings.host, ":", settings.port).c_str()),
          "connect");
    jsOptions options;
    jsOptions_Init(&options);
    options.PublishAsync.MaxPending = settings.window;  // a publish waits at it
    options.PublishAsync.ErrHandler = [](jsCtx*, jsPubAckErr* error, void*) {
      Die(absl::StrCat("NATS publish: ", error->ErrText));
    };
    Check(natsConnection_JetStream(&context_, connection_, &options), "JetStream");
  }
  ~Connection() {
    jsCtx_Destroy(context_);
    natsConnection_Destroy(connection_);
  }

  natsConnection* connection() { return connection_; }
  jsCtx* context() { return context_; }

 private:
  natsConnection* connection_ = nullptr;
  jsCtx* context_ = nullptr;
};

class NatsProducer : public Producer {
 public:
  NatsProducer(const Settings& settings, const std::string& stream)
      : stream_(stream), connection_(settings) {}

  void Send(absl::string_view body) override {
    Check(js_PublishAsync(connection_.context(), stream_.c_str(), body.data(),
                          static_cast<int>(body.size()), nullptr),
          "publish");
  }
  // The library has threads that send and take confirms.
  void Idle(int64_t until_ns) override {
    const int64_t left_ns = until_ns - cli::bench::NowNs();
    if (left_ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(left_ns));
  }
  void Finish() override {
    Check(js_PublishAsyncComplete(connection_.context(), nullptr), "confirm");
  }

 private:
  const std::string stream_;
  Connection connection_;
};

class NatsConsumer : public Consumer {
 public:
  NatsConsumer(const Settings& settings, const std::string& stream)
      : stream_(stream), connection_(settings) {
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = stream_.c_str();
    options.Consumer = kDurable;
    options.Queue = kDurable;
    options.ManualAck = true;
    Check(js_SubscribeSync(&subscription_, connection_.context(), stream_.c_str(), nullptr,
                           &options, nullptr),
          "subscribe");
    Check(natsSubscription_SetPendingLimits(subscription_, -1, -1), "limits");
  }
  ~NatsConsumer() override { natsSubscription_Destroy(subscription_); }

  void Take(int64_t until_ns, const Handler& handler) override {
    const int64_t left_ms = (until_ns - cli::bench::NowNs()) / kNanosPerMilli;
    natsMsg* message = nullptr;
    const natsStatus status =
        natsSubscription_NextMsg(&message, subscription_, std::max<int64_t>(left_ms, 1));
    if (status == NATS_TIMEOUT) return;
    Check(status, "next message");
    jsMsgMetaData* metadata = nullptr;
    Check(natsMsg_GetMetaData(&metadata, message), "metadata");
    handler({natsMsg_GetData(message), static_cast<size_t>(natsMsg_GetDataLength(message))},
            metadata->NumDelivered > 1);
    jsMsgMetaData_Destroy(metadata);
    Check(natsMsg_Ack(message, nullptr), "ack");
    natsMsg_Destroy(message);
  }

  // Acks have no answer: asks until none is missing.
  void Finish() override {
    Check(natsConnection_Flush(connection_.connection()), "flush");
    while (true) {
      jsConsumerInfo* info = nullptr;
      Check(js_GetConsumerInfo(&info, connection_.context(), stream_.c_str(), kDurable, nullptr,
                               nullptr),
            "consumer");
      const bool done = info->NumAckPending == 0 && info->NumPending == 0;
      jsConsumerInfo_Destroy(info);
      if (done) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  const std::string stream_;
  Connection connection_;
  natsSubscription* subscription_ = nullptr;
};

class Nats : public Peer {
 public:
  explicit Nats(const Settings& settings) : settings_(settings) {}

  // A queue: what is acked is removed.
  void MakeQueue(const std::string& queue) override {
    Connection connection(settings_);
    jsStreamConfig stream;
    jsStreamConfig_Init(&stream);
    const char* subjects[] = {queue.c_str()};
    stream.Name = queue.c_str();
    stream.Subjects = subjects;
    stream.SubjectsLen = 1;
    stream.Storage = js_FileStorage;
    stream.Retention = js_WorkQueuePolicy;
    Check(js_AddStream(nullptr, connection.context(), &stream, nullptr, nullptr), "stream");
    jsConsumerConfig consumer;
    jsConsumerConfig_Init(&consumer);
    consumer.Durable = kDurable;
    const std::string deliver = absl::StrCat("deliver.", queue);
    consumer.DeliverSubject = deliver.c_str();
    consumer.DeliverGroup = kDurable;
    consumer.AckPolicy = js_AckExplicit;
    consumer.MaxAckPending = kMaxAckPending;
    Check(js_AddConsumer(nullptr, connection.context(), queue.c_str(), &consumer, nullptr, nullptr),
          "consumer");
  }
  std::unique_ptr<Producer> NewProducer(const std::string& queue) override {
    return std::make_unique<NatsProducer>(settings_, queue);
  }
  std::unique_ptr<Consumer> NewConsumer(const std::string& queue) override {
    return std::make_unique<NatsConsumer>(settings_, queue);
  }

 private:
  const Settings settings_;
};

}  // namespace

std::unique_ptr<Peer> NewNats(const Settings& settings) { return std::make_unique<Nats>(settings); }

}  // namespace sluice::peers
