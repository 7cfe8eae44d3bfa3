// A shard in virtual time: a test says when time passes, when a batch becomes durable, when a read
// is served and when the process dies. Single-threaded.
#ifndef SLUICE_TESTS_SUPPORT_SHARD_HARNESS_H_
#define SLUICE_TESTS_SUPPORT_SHARD_HARNESS_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/broker/commands.h"
#include "server/broker/shard.h"
#include "server/storage/mem_log.h"

namespace sluice::testing {

// What a `done` was called with. Copies share it, so a test keeps one and the command the other.
template <typename T>
class Reply {
 public:
  // The `done` to put into a command.
  auto Done() const {
    return [state = state_](T value) {
      ++state->calls;
      state->value.emplace(std::move(value));
    };
  }
  int calls() const { return state_->calls; }
  bool answered() const { return state_->calls > 0; }
  // Only when answered.
  T& operator*() const { return *state_->value; }
  T* operator->() const { return &*state_->value; }

 private:
  struct State {
    int calls = 0;
    std::optional<T> value;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// A subscription stream that keeps what it is told. Reports a test failure when it is called after
// its end or before its start.
class RecordingSink : public broker::SubscriptionSink {
 public:
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnDrained() override;
  void OnEnd(absl::Status status) override;

  // The deliveries since the last call.
  std::vector<broker::OutgoingDelivery> Take() { return std::exchange(deliveries_, {}); }
  size_t waiting() const { return deliveries_.size(); }

  std::optional<Started> started;
  std::vector<std::pair<Receipt, ErrorReason>> lost;
  std::optional<absl::Status> end;
  int drained = 0;  // calls of OnDrained

 private:
  void CheckOpen(bool starting = false) const;
  std::vector<broker::OutgoingDelivery> deliveries_;
};

// The publisher's part of a delivered message.
std::string BodyOf(const Payload& payload);
std::string BodyOf(const broker::OutgoingDelivery& delivery);
std::vector<std::string> BodiesOf(const std::vector<broker::OutgoingDelivery>& deliveries);
Payload MakePayload(std::string_view body);

// A message as a test writes it down.
struct TestMessage {
  std::string body;
  int priority = kPriorityDefault;
  std::string group = {};
  int64_t delay_ms = 0;
  int64_t deliver_at_ms = 0;
  int64_t ttl_ms = 0;
  std::string dedup = {};
};
broker::NewMessage MakeMessage(const TestMessage& message);
// What MakeMessage makes of the names.
uint64_t GroupHash(std::string_view group);
broker::Publish MakePublish(const std::string& queue, const std::vector<TestMessage>& messages);

class ShardHarness : public broker::ShardPort {
 public:
  explicit ShardHarness(const broker::ShardOptions& options = {});
  ~ShardHarness() override;

  // ---- time and the world
  Now now() const { return now_; }
  // Time passes and what is due is done; nothing is committed.
  void Advance(int64_t ms);
  // Time passes as the engine would see it: stops whenever something is due, and runs until quiet.
  void Pass(int64_t ms);
  void Turn();
  // Makes the oldest batch durable and runs a turn. False: none waits.
  bool Commit();
  void CommitAll();
  // Answers every read that is asked for so far. False: none was.
  bool ServeReads();
  // Commits, reads and turns until nothing more happens at this time.
  void RunUntilQuiet();
  // What was not durable is gone; a new boot. Nobody is told.
  void Crash();
  // A StopCommand, made durable; then a new boot after `down_ms`, for which the clock has been set
  // by `clock_step_ms` besides.
  void CleanStop(int64_t down_ms = 0, int64_t clock_step_ms = 0);

  size_t pending_batches() const { return log_.pending(); }
  size_t pending_reads() const { return reads_.size(); }
  const std::deque<broker::ReadRequest>& reads() const { return reads_; }
  storage::MemStore& store() { return store_; }
  broker::Shard& shard() { return *shard_; }
  Boot boot() const { return shard_->boot_row().boot; }
  // The first error of OnPage; reads go nowhere afterwards.
  const absl::Status& page_error() const { return page_error_; }

  // ---- commands. Those named Start... run one turn and commit nothing; the others run until quiet.
  void Apply(broker::Command command) { shard_->Apply(std::move(command), now_); }
  void Start(broker::Command command);
  void Run(broker::Command command);

  absl::StatusOr<broker::CreateQueueOutcome> CreateQueue(broker::QueueConfigChange config);
  absl::StatusOr<broker::CreateQueueOutcome> CreateQueue(const std::string& name);
  // A fanout exchange that leads to these.
  void Fanout(const std::string& exchange, const std::vector<std::string>& queues);
  broker::QueueInfo GetQueue(const std::string& name);
  broker::QueueStats Stats(const std::string& name) { return GetQueue(name).stats; }
  broker::ShardTotals Totals();

  using PublishReply = Reply<absl::StatusOr<std::vector<broker::PublishedMessage>>>;
  PublishReply StartPublish(const std::string& queue, const std::vector<std::string>& bodies,
                            int priority = kPriorityDefault);
  // Checks that it is taken.
  void Publish(const std::string& queue, const std::vector<std::string>& bodies,
               int priority = kPriorityDefault);
  using PublishResult = absl::StatusOr<std::vector<broker::PublishedMessage>>;
  PublishReply StartPublish(broker::Publish publish, uint64_t producer_stream = 0,
                            int64_t first_sequence = 0);
  PublishResult Publish(broker::Publish publish, uint64_t producer_stream = 0,
                        int64_t first_sequence = 0);
  // Checks that they are taken; their ids.
  std::vector<MessagePosition> Send(const std::string& queue,
                                    const std::vector<TestMessage>& messages);
  absl::StatusOr<broker::ProducerOpened> OpenProducer(const std::string& queue,
                                                      const std::string& producer_id);

  // `command.sink` is made here.
  std::shared_ptr<RecordingSink> StartSubscribe(broker::SubscribeCommand command);
  std::shared_ptr<RecordingSink> Subscribe(broker::SubscribeCommand command);
  std::shared_ptr<RecordingSink> Subscribe(const std::string& queue, int32_t max_in_flight = 100);
  void Close(const std::shared_ptr<RecordingSink>& sink, std::vector<Receipt> unwritten = {});

  using ReceiveReply = Reply<absl::StatusOr<std::vector<broker::OutgoingDelivery>>>;
  ReceiveReply StartReceive(broker::ReceiveCommand command);
  // Receive with wait 0.
  std::vector<broker::OutgoingDelivery> Receive(const std::string& queue, int32_t max_messages = 1);

  using SettleReply = Reply<absl::StatusOr<broker::SettleOutcome>>;
  SettleReply StartSettle(const std::string& queue, const Receipt& receipt,
                          broker::SettleAction action, int64_t delay_ms = 0);
  // The status of the one item.
  absl::Status Settle(const std::string& queue, const Receipt& receipt, broker::SettleAction action,
                      int64_t delay_ms = 0);
  absl::Status Ack(const std::string& queue, const Receipt& receipt) {
    return Settle(queue, receipt, broker::SettleAction::kAck);
  }
  // Acks everything that the sink has been given since the last look, again and again until it gets
  // no more; the bodies in order.
  std::vector<std::string> AckAll(const std::string& queue, RecordingSink& sink);
  // Takes what the sink is given, reports it as written, and so on until it gets no more; how many.
  size_t TakeWritten(const std::shared_ptr<RecordingSink>& sink);
  // What a new consumer gets, one message at a time.
  std::vector<std::string> Drain(const std::string& queue);

  // Every message of the queue, in steps of `scan_max`.
  std::vector<broker::ListedMessage> List(const std::string& queue, int32_t scan_max = 1000);
  std::vector<std::string> ListBodies(const std::string& queue);
  absl::StatusOr<broker::ListedMessage> GetMessage(const std::string& queue,
                                                   const MessagePosition& id);
  // How many were edited.
  absl::StatusOr<int64_t> Edit(broker::EditMessagesCommand command);
  absl::StatusOr<broker::QueueInfo> UpdateQueue(broker::QueueConfigChange config);
  void Pause(const std::string& queue, bool paused = true);
  absl::StatusOr<int64_t> Purge(const std::string& queue, bool include_leased, bool dry_run = false);
  absl::Status DeleteQueue(const std::string& queue);

 private:
  // ---- ShardPort
  void Append(storage::Batch batch) override;
  void StartRead(broker::ReadRequest request) override;
  void StartBoot();

  const broker::ShardOptions options_;
  Now now_{1'000'000'000, 1'700'000'000'000};
  storage::MemStore store_;
  storage::MemLog log_{&store_};
  std::deque<broker::ReadRequest> reads_;
  absl::Status page_error_;
  std::unique_ptr<broker::Shard> shard_;
  uint64_t next_call_id_ = 1;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_SHARD_HARNESS_H_
