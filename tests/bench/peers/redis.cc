// Redis: a stream with a consumer group; XADD, XREADGROUP, then XACK and XDEL, so that what was
// acked is gone.
#include <hiredis/hiredis.h>
#include <hiredis/sds.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/peers/peer.h"

namespace sluice::peers {
namespace {

constexpr char kGroup[] = "group";
constexpr char kReadCount[] = "200";
constexpr char kBlockMs[] = "20";
constexpr size_t kWriteBytes = 64 << 10;

class Connection {
 public:
  explicit Connection(const Settings& settings)
      : context_(redisConnect(settings.host.c_str(), settings.port)) {
    if (context_ == nullptr || context_->err != 0) Die("cannot connect to Redis");
  }
  ~Connection() { redisFree(context_); }

  int fd() const { return context_->fd; }
  bool has_much_to_write() const { return sdslen(context_->obuf) >= kWriteBytes; }

  void Append(const std::vector<absl::string_view>& words) {
    pointers_.clear();
    sizes_.clear();
    for (const absl::string_view word : words) {
      pointers_.push_back(word.data());
      sizes_.push_back(word.size());
    }
    redisAppendCommandArgv(context_, static_cast<int>(words.size()), pointers_.data(),
                           sizes_.data());
  }
  void Flush() {
    int done = 0;
    while (done == 0) {
      if (redisBufferWrite(context_, &done) != REDIS_OK) Die("the connection to Redis broke");
    }
  }
  void ReadSome() {
    if (redisBufferRead(context_) != REDIS_OK) Die("the connection to Redis broke");
  }

  using Reply = std::unique_ptr<redisReply, void (*)(void*)>;
  // Nothing: not here yet.
  Reply TryReply() { return Checked(&redisGetReplyFromReader); }
  Reply WaitReply() { return Checked(&redisGetReply); }

 private:
  Reply Checked(int (*get)(redisContext*, void**)) {
    void* reply = nullptr;
    if (get(context_, &reply) != REDIS_OK) Die("the connection to Redis broke");
    Reply owned(static_cast<redisReply*>(reply), &freeReplyObject);
    if (owned != nullptr && owned->type == REDIS_REPLY_ERROR) Die(owned->str);
    return owned;
  }

  redisContext* const context_;
  std::vector<const char*> pointers_;
  std::vector<size_t> sizes_;
};

class RedisProducer : public Producer {
 public:
  RedisProducer(const Settings& settings, const std::string& stream)
      : window_(settings.window), stream_(stream), connection_(settings) {}

  void Send(absl::string_view body) override {
    if (in_flight_ >= window_) {
      connection_.Flush();
      connection_.WaitReply();
      --in_flight_;
      TakeReplies();
    }
    connection_.Append({"XADD", stream_, "*", "b", body});
    ++in_flight_;
    if (connection_.has_much_to_write()) connection_.Flush();
  }
  void Idle(int64_t until_ns) override {
    connection_.Flush();
    if (!WaitReadable(connection_.fd(), until_ns)) return;
    connection_.ReadSome();
    TakeReplies();
  }
  void Finish() override {
    connection_.Flush();
    for (; in_flight_ > 0; --in_flight_) connection_.WaitReply();
  }

 private:
  void TakeReplies() {
    while (connection_.TryReply() != nullptr) --in_flight_;
  }

  const int64_t window_;
  const std::string stream_;
  Connection connection_;
  int64_t in_flight_ = 0;
};

class RedisConsumer : public Consumer {
 public:
  RedisConsumer(const Settings& settings, const std::string& stream)
      : stream_(stream), connection_(settings) {
    static std::atomic<int> consumers = 0;
    name_ = absl::StrCat("consumer", ++consumers);
  }

  // The next read rides along with the acks of what came before.
  void Take(int64_t, const Handler& handler) override {
    if (!reading_) {
      Read();
      connection_.Flush();
    }
    const Connection::Reply reply = connection_.WaitReply();
    reading_ = false;
    if (reply->type == REDIS_REPLY_NIL) return;  // nothing came
    const redisReply& entries = *reply->element[0]->element[1];
    std::vector<absl::string_view> ack = {"XACK", stream_, kGroup};
    std::vector<absl::string_view> remove = {"XDEL", stream_};
    for (size_t i = 0; i < entries.elements; ++i) {
      const redisReply& id = *entries.element[i]->element[0];
      const redisReply& body = *entries.element[i]->element[1]->element[1];
      handler({body.str, body.len}, false);
      ack.push_back({id.str, id.len});
      remove.push_back({id.str, id.len});
    }
    connection_.Append(ack);
    connection_.Append(remove);
    Read();
    connection_.Flush();
    connection_.WaitReply();
    connection_.WaitReply();
  }
  void Finish() override {
    if (reading_ && connection_.WaitReply()->type != REDIS_REPLY_NIL) {
      Die("a message came after the last");
    }
    reading_ = false;
  }

 private:
  void Read() {
    connection_.Append({"XREADGROUP", "GROUP", kGroup, name_, "COUNT", kReadCount, "BLOCK",
                        kBlockMs, "STREAMS", stream_, ">"});
    reading_ = true;
  }

  const std::string stream_;
  Connection connection_;
  std::string name_;
  bool reading_ = false;
};

class Redis : public Peer {
 public:
  explicit Redis(const Settings& settings) : settings_(settings) {}
  void MakeQueue(const std::string& queue) override {
    Connection connection(settings_);
    connection.Append({"XGROUP", "CREATE", queue, kGroup, "0", "MKSTREAM"});
    connection.WaitReply();
  }
  std::unique_ptr<Producer> NewProducer(const std::string& queue) override {
    return std::make_unique<RedisProducer>(settings_, queue);
  }
  std::unique_ptr<Consumer> NewConsumer(const std::string& queue) override {
    return std::make_unique<RedisConsumer>(settings_, queue);
  }

 private:
  const Settings settings_;
};

}  // namespace

std::unique_ptr<Peer> NewRedis(const Settings& settings) {
  return std::make_unique<Redis>(settings);
}

}  // namespace sluice::peers
