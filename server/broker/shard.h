// The rules of queues, without threads, clocks or I/O: commands and time go in, batches, reads and
// answers come out.
//
// One turn: OnDurable (what became true may now be seen), Apply for each command, RunTurn (due
// work, dispatch, one batch). Deterministic: the same calls give the same batches. Owned by one
// thread at a time; server/broker/engine.cc runs it for real, tests run it in virtual time.
#ifndef SLUICE_SERVER_BROKER_SHARD_H_
#define SLUICE_SERVER_BROKER_SHARD_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/broker/commands.h"
#include "server/broker/queue.h"
#include "server/broker/timers.h"
#include "server/storage/batch.h"
#include "server/storage/store.h"

namespace sluice::broker {

// What a shard wants read; the result comes back through OnPage.
struct PageRequest {
  storage::ReadRange range;
  std::vector<Seq> seqs;  // not empty: exactly these instead of the range
  bool peek = false;      // only the publish time of the first one is wanted
};

// How the shard reaches the world. Called from within Apply, RunTurn and OnDurable.
class ShardPort {
 public:
  virtual ~ShardPort() = default;
  // The batch of a turn, header set. OnDurable(lsn) follows, or the shard is dropped.
  virtual void Append(storage::Batch batch) = 0;
  virtual void StartRead(PageRequest request) = 0;
};

struct ShardOptions {
  ShardId shard = 0;
  uint64_t window_bytes_max = 64 * kMiB;
  size_t open_messages_max = kOpenMessagesPerShardMax;
  size_t open_messages_per_queue_max = kOpenMessagesPerQueueMax;
  uint64_t unwritten_bytes_max = kUnwrittenBytesMax;
};

class Shard {
 public:
  Shard(const ShardOptions& options, ShardPort* port);
  ~Shard();

  // Rebuilds the state from the store. DATA_LOSS, or FAILED_PRECONDITION for an unknown version.
  absl::Status Load(storage::Store& store);
  // What the store says, after Load; boot 0: the store is new.
  const storage::BootRow& boot_row() const { return boot_row_; }
  // For a new store, before Begin.
  void NameNewStore(std::string server_id, const ReceiptCodec::Key& receipt_key) {
    boot_row_.server_id = std::move(server_id);
    boot_row_.receipt_key = receipt_key;
  }
  // Begins a boot: after Load, before the first Apply. Writes the first batch.
  void Begin(Now now);

  void Apply(Command command, Now now);
  void OnDurable(Lsn lsn, Now now);
  // DATA_LOSS ends the shard: nothing more may be called but FailAll.
  absl::Status OnPage(const PageRequest& request, std::vector<storage::StoredMessage> messages,
                      Now now);
  // Due work, dispatch, and the turn's batch if anything changed.
  void RunTurn(Now now);
  // Monotonic time at which RunTurn has to be called even if nothing comes in.
  std::optional<int64_t> NextDueNs(Now now) const;

  // Answers everything that waits, with `status`; for the end of a term.
  void FailAll(const absl::Status& status);

  Lsn last_lsn() const { return last_lsn_; }
  Lsn durable_lsn() const { return durable_lsn_; }
  // Bytes of messages in the batch being built.
  size_t batch_bytes() const { return batch_.bytes(); }
  uint32_t batch_messages() const { return batch_.messages(); }
  bool stopped() const { return stopped_; }
  // RunTurn has something to do at once.
  bool HasWork() const { return !dispatch_.empty(); }

 private:
  using Reply = absl::AnyInvocable<void(const absl::Status&)>;
  // How far a lane's messages may be seen and granted once a batch is durable.
  struct LaneProgress {
    QueueId qid;
    Lane lane;
    Seq visible_end;
    Seq grant_bound;
  };
  struct ReturningMessage {
    QueueId qid;
    Lane lane;
    Seq seq;
  };
  // What may be said and shown once a batch is durable.
  struct TurnEffects {
    Lsn lsn = 0;
    std::vector<Reply> replies;
    std::vector<LaneProgress> progress;
    std::vector<ReturningMessage> returning;
    std::vector<SubscriptionId> holders;  // consumers with held deliveries
  };

  // shard.cc
  void Do(PublishCommand& command, Now now);
  void Do(InspectCommand& command, Now now);
  void Do(DrainCommand& command, Now now);
  void Do(StopCommand& command, Now now);
  void ReplyWhenDurable(Reply reply);
  // Calls done(value), or done(status) when the batch failed.
  template <typename Done, typename Value>
  void AnswerWhenDurable(Done done, Value value) {
    ReplyWhenDurable([done = std::move(done),
                      value = std::move(value)](const absl::Status& status) mutable {
      if (status.ok()) {
        done(std::move(value));
      } else {
        done(status);
      }
    });
  }
  Queue* FindQueue(const std::string& name);
  Queue* FindQueue(QueueId qid);
  LaneState& LaneOf(Queue& queue, Lane lane);
  void MarkDirty(Queue& queue, LaneState& lane);
  void AppendTurn(Now now);
  void ShowProgress(const LaneProgress& progress);
  void ShowReturned(const ReturningMessage& returning);
  void DeliverHeld(SubscriptionId id);
  storage::BootRow CurrentBootRow(Now now) const;
  absl::Status RefuseWhenDraining() const;
  void AddMessage(Queue& queue, LaneState& lane, Payload payload, int64_t publish_ms);

  // shard_load.cc
  absl::Status LoadRows(storage::Store& store);
  void RestoreLane(LaneState& lane);
  void StartOpenMessages(bool clean_stop, Now now);

  // shard_consumers.cc
  void Do(SubscribeCommand& command, Now now);
  void Do(ReceiveCommand& command, Now now);
  void Do(CancelReceiveCommand& command, Now now);
  void Do(WrittenCommand& command, Now now);
  void Do(ReceiveWrittenCommand& command, Now now);
  void Do(CloseSubscriptionCommand& command, Now now);
  Consumer& AddConsumer(std::unique_ptr<Consumer> consumer, Queue& queue);
  void SetConsumerTimer(Consumer& consumer, int64_t due_ns);
  void RemoveConsumer(Consumer& consumer);
  void EndSubscription(Consumer& consumer, absl::Status status);
  void AnswerReceive(Consumer& consumer);
  Consumer* FindConsumer(SubscriptionId id);
  void ReleaseUnwritten(const Receipt& receipt, Now now);
  void SettleWritten(const Receipt& receipt);
  void DropLeasesOf(Consumer& consumer, const std::vector<Receipt>& unwritten, Now now);

  // shard_settle.cc
  void Do(SettleCommand& command, Now now);
  void Do(ExtendLeaseCommand& command, Now now);
  absl::Status SettleOne(Queue& queue, const SettleItem& item, Now now);
  struct Honoured {
    LaneState* lane = nullptr;
    OpenMessage* message = nullptr;  // null: settled already, or never granted in this boot
    bool settled = false;
  };
  absl::StatusOr<Honoured> FindHonoured(Queue& queue, const Receipt& receipt, int64_t now_ns);
  OpenMessage& OpenFromEarlierBoot(Queue& queue, LaneState& lane, const Receipt& receipt);
  void EndLease(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message);
  void SettleMessage(Queue& queue, LaneState& lane, Seq seq, OpenMessage* message);
  // Ends the lease as a failure (counts an attempt) or not, and makes the message ready after
  // `delay_ms`.
  void ReturnMessage(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message, bool failed,
                     int64_t delay_ms, Now now);
  // Takes an open message out of whatever it waits in: lease, retry, or the returned set.
  void Unhook(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message);
  void RememberRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns);
  bool WasRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns);

  // shard_dispatch.cc
  void RunDue(Now now);
  void RunTimer(const Timer& timer, Now now);
  void Wake(Queue& queue);
  void WakeConsumer(Consumer& consumer);
  void DispatchAll(Now now);
  void Dispatch(Queue& queue, Now now);
  bool GrantNext(Queue& queue, LaneState& lane, bool* blocked, Now now);
  Consumer* NextTaker(Queue& queue, uint32_t bytes);
  void Grant(Queue& queue, LaneState& lane, Consumer& consumer, Seq seq, OpenMessage& message,
             Payload payload, bool write_history, Now now);
  // False: there is nothing to read.
  bool PageIn(Queue& queue, LaneState& lane);
  // Reads that ask for this much must be under way one at a time per lane.
  void StartRead(LaneState& lane, PageRequest request);
  bool MemoryIsShort() const {
    return window_bytes_ + reading_bytes_ > options_.window_bytes_max;
  }
  void ForgetOpen(Queue& queue, size_t count);
  // How much one stream may have unwritten now.
  uint64_t UnwrittenMax() const {
    return unwritten_bytes_ < options_.unwritten_bytes_max ? kUnwrittenBytesPerStreamMax
                                                           : kUnwrittenReportBytes;
  }
  void ForgetUnwritten(Consumer& consumer, uint64_t bytes);
  void FetchReturned(Queue& queue, LaneState& lane);
  void FlushOutboxes(Now now);
  void EvictIdleWindows();
  void Deliver(Consumer& consumer, std::vector<OutgoingDelivery> deliveries);
  void LeaveTakers(Consumer& consumer);

  // shard_queues.cc
  void Do(CreateQueueCommand& command, Now now);
  void Do(GetQueueCommand& command, Now now);
  void Do(ListQueuesCommand& command, Now now);
  void Do(UpdateQueueCommand& command, Now now);
  void Do(DeleteQueueCommand& command, Now now);
  void Do(PurgeQueueCommand& command, Now now);
  QueueInfo Describe(Queue& queue, Now now);
  // When the oldest ready message of the lane was published; reads it if need be (nothing yet).
  std::optional<int64_t> OldestReadyMs(Queue& queue, LaneState& lane);
  void PurgeLane(Queue& queue, LaneState& lane, bool include_leased, Now now);
  void EndConsumersOf(Queue& queue, const absl::Status& status);

  const ShardOptions options_;
  ShardPort* const port_;

  // Persisted.
  storage::BootRow boot_row_;
  std::map<std::string, std::unique_ptr<Queue>> queues_;  // by name, in order
  absl::flat_hash_map<QueueId, Queue*> by_qid_;

  // Consumers.
  absl::flat_hash_map<SubscriptionId, std::unique_ptr<Consumer>> consumers_;
  absl::flat_hash_map<SinkKey, SubscriptionId> by_sink_;
  absl::flat_hash_map<uint64_t, SubscriptionId> by_call_;
  SubscriptionId next_consumer_id_ = 1;

  // Time.
  Timers mono_timers_;    // leases, idle streams, waiting receives: nanoseconds
  Timers engine_timers_;  // retries: engine milliseconds

  // The turn being built, and those that are not durable yet.
  storage::Batch batch_;
  TurnEffects effects_;
  std::deque<TurnEffects> waiting_effects_;
  std::vector<std::pair<QueueId, Lane>> dirty_lanes_;
  std::vector<SubscriptionId> outboxes_;
  std::deque<QueueId> dispatch_;
  bool boot_row_dirty_ = false;
  Lsn last_lsn_ = 0;
  Lsn durable_lsn_ = 0;

  uint64_t window_bytes_ = 0;
  uint64_t unwritten_bytes_ = 0;  // of all consumers
  uint64_t reading_bytes_ = 0;  // what the reads under way may bring at most
  std::vector<QueueId> waiting_for_open_messages_;
  size_t open_messages_ = 0;
  std::string evict_cursor_;  // name of the queue after which the next eviction goes on
  bool draining_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SHARD_H_
