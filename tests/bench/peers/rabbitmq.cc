// RabbitMQ: persistent messages with publisher confirms; manual acks, several at a time.
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <poll.h>

#include <algorithm>
#include <deque>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/clock.h"
#include "tests/bench/peers/peer.h"

namespace sluice::peers {
namespace {

constexpr amqp_channel_t kChannel = 1;
constexpr int kFrameBytesMax = 128 << 10;
constexpr uint8_t kPersistent = 2;
// Deliveries acked by one "multiple" ack at most; fewer when no more have arrived.
constexpr int kAcksAtOnce = 100;

class Connection {
 public:
  explicit Connection(const Settings& settings) : state_(amqp_new_connection()) {
    amqp_socket_t* socket = amqp_tcp_socket_new(state_);
    if (amqp_socket_open(socket, settings.host.c_str(), settings.port) != AMQP_STATUS_OK) {
      Die("cannot connect to RabbitMQ");
    }
    Check(amqp_login(state_, "/", 0, kFrameBytesMax, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"),
          "login");
    amqp_channel_open(state_, kChannel);
    Check(amqp_get_rpc_reply(state_), "channel.open");
  }
  ~Connection() {
    amqp_connection_close(state_, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(state_);
  }

  amqp_connection_state_t state() { return state_; }
  void CheckLast(const char* what) { Check(amqp_get_rpc_reply(state_), what); }

  // Whether something has arrived that was not looked at yet.
  bool HasMore() {
    if (amqp_frames_enqueued(state_) != 0 || amqp_data_in_buffer(state_) != 0) return true;
    pollfd poll{.fd = amqp_get_sockfd(state_), .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) > 0;
  }

 private:
  static void Check(const amqp_rpc_reply_t& reply, const char* what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) Die(absl::StrCat("RabbitMQ refused ", what));
  }

  amqp_connection_state_t state_;
};

timeval Until(int64_t until_ns) {
  const int64_t left_us = std::max<int64_t>(until_ns - cli::bench::NowNs(), 0) / 1000;
  return {.tv_sec = left_us / 1'000'000, .tv_usec = left_us % 1'000'000};
}

class RabbitMqProducer : public Producer {
 public:
  RabbitMqProducer(const Settings& settings, const std::string& queue)
      : window_(static_cast<size_t>(settings.window)), queue_(queue), connection_(settings) {
    amqp_confirm_select(connection_.state(), kChannel);
    connection_.CheckLast("confirm.select");
  }

  void Send(absl::string_view body) override {
    while (confirmed_.size() >= window_) TakeFrame(nullptr);
    amqp_basic_properties_t properties{};
    properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.delivery_mode = kPersistent;
    const amqp_bytes_t bytes{.len = body.size(), .bytes = const_cast<char*>(body.data())};
    const int status =
        amqp_basic_publish(connection_.state(), kChannel, amqp_empty_bytes,
                           amqp_cstring_bytes(queue_.c_str()), 0, 0, &properties, bytes);
    if (status != AMQP_STATUS_OK) Die(absl::StrCat("publish: ", amqp_error_string2(status)));
    confirmed_.push_back(false);
  }
  void Idle(int64_t until_ns) override {
    const timeval timeout = Until(until_ns);
    TakeFrame(&timeout);
  }
  void Finish() override {
    while (!confirmed_.empty()) TakeFrame(nullptr);
  }

 private:
  // Without a timeout waits for one.
  void TakeFrame(const timeval* timeout) {
    amqp_maybe_release_buffers(connection_.state());
    amqp_frame_t frame;
    const int status = amqp_simple_wait_frame_noblock(connection_.state(), &frame, timeout);
    if (status == AMQP_STATUS_TIMEOUT) return;
    if (status != AMQP_STATUS_OK) Die(absl::StrCat("confirm: ", amqp_error_string2(status)));
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
      Die("a publish was not confirmed");
    }
    const auto& ack = *static_cast<amqp_basic_ack_t*>(frame.payload.method.decoded);
    const uint64_t last = ack.delivery_tag - first_tag_;
    for (uint64_t i = ack.multiple ? 0 : last; i <= last; ++i) confirmed_.at(i) = true;
    while (!confirmed_.empty() && confirmed_.front()) {
      confirmed_.pop_front();
      ++first_tag_;
    }
  }

  const size_t window_;
  const std::string queue_;
  Connection connection_;
  std::deque<bool> confirmed_;  // from first_tag_ on
  uint64_t first_tag_ = 1;
};

class RabbitMqConsumer : public Consumer {
 public:
  RabbitMqConsumer(const Settings& settings, const std::string& queue) : connection_(settings) {
    amqp_basic_qos(connection_.state(), kChannel, 0, static_cast<uint16_t>(settings.prefetch), 0);
    connection_.CheckLast("basic.qos");
    amqp_basic_consume(connection_.state(), kChannel, amqp_cstring_bytes(queue.c_str()),
                       amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    connection_.CheckLast("basic.consume");
  }

  void Take(int64_t until_ns, const Handler& handler) override {
    uint64_t last_tag = 0;
    for (int taken = 0; taken < kAcksAtOnce; ++taken) {
      if (taken > 0 && !connection_.HasMore()) break;
      amqp_maybe_release_buffers(connection_.state());
      amqp_envelope_t envelope;
      const timeval timeout = Until(until_ns);
      const amqp_rpc_reply_t reply =
          amqp_consume_message(connection_.state(), &envelope, &timeout, 0);
      if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        if (reply.library_error == AMQP_STATUS_TIMEOUT) break;
        Die("consume");
      }
      handler({static_cast<char*>(envelope.message.body.bytes), envelope.message.body.len},
              envelope.redelivered != 0);
      last_tag = envelope.delivery_tag;
      amqp_destroy_envelope(&envelope);
    }
    if (last_tag == 0) return;
    if (amqp_basic_ack(connection_.state(), kChannel, last_tag, 1) != AMQP_STATUS_OK) Die("ack");
  }

  // Acks have no answer, but calls are answered in order.
  void Finish() override {
    amqp_basic_qos(connection_.state(), kChannel, 0, 1, 0);
    connection_.CheckLast("basic.qos");
  }

 private:
  Connection connection_;
};

class RabbitMq : public Peer {
 public:
  RabbitMq(const Settings& settings, bool quorum) : settings_(settings), quorum_(quorum) {}

  void MakeQueue(const std::string& queue) override {
    Connection connection(settings_);
    amqp_table_entry_t entry;
    entry.key = amqp_cstring_bytes("x-queue-type");
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = amqp_cstring_bytes(quorum_ ? "quorum" : "classic");
    const amqp_table_t arguments{.num_entries = 1, .entries = &entry};
    constexpr amqp_boolean_t kDurable = 1;
    amqp_queue_declare(connection.state(), kChannel, amqp_cstring_bytes(queue.c_str()), 0, kDurable,
                       0, 0, arguments);
    connection.CheckLast("queue.declare");
  }
  std::unique_ptr<Producer> NewProducer(const std::string& queue) override {
    return std::make_unique<RabbitMqProducer>(settings_, queue);
  }
  std::unique_ptr<Consumer> NewConsumer(const std::string& queue) override {
    return std::make_unique<RabbitMqConsumer>(settings_, queue);
  }

 private:
  const Settings settings_;
  const bool quorum_;
};

}  // namespace

std::unique_ptr<Peer> NewRabbitMq(const Settings& settings, bool quorum) {
  return std::make_unique<RabbitMq>(settings, quorum);
}

}  // namespace sluice::peers
