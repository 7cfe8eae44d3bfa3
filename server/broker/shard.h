// The rules of queues, without threads, clocks or I/O: commands and time go in, batches, reads and
// answers come out.
//
// One turn: OnDurable (what became true may now be seen), Apply for each command, RunTurn (due
// work, dispatch, one batch). Deterministic: the same calls give the same batches. Owned by one
// thread at a time; server/broker/engine.cc runs it for real, tests run it in virtual time.
#ifndef SLUICE_SERVER_BROKER_SHARD_H_
#define SLUICE_SERVER_BROKER_SHARD_H_

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/broker/commands.h"
#include "server/broker/definitions_plan.h"
#include "server/broker/expiry_sweep.h"
#include "server/broker/producers.h"
#include "server/broker/publish_plan.h"
#include "server/broker/queue.h"
#include "server/broker/queue_table.h"
#include "server/broker/reads.h"
#include "server/broker/recent_ids.h"
#include "server/broker/router.h"
#include "server/broker/timers.h"
#include "server/storage/batch.h"
#include "server/storage/store.h"

namespace sluice::broker {

// What a stored history row says.
OpenMessage OpenMessageOf(const storage::HistoryRow& row);

// How the shard reaches the world. Called from within Apply, RunTurn and OnDurable.
class ShardPort {
 public:
  virtual ~ShardPort() = default;
  // The batch of a turn, header set. OnDurable(lsn) follows, or the shard is dropped.
  virtual void Append(storage::Batch batch) = 0;
  // OnRead(ticket) follows, or the shard is dropped.
  virtual void StartRead(ReadRequest request) = 0;
};

struct ShardOptions {
  ShardId shard = 0;
  uint64_t window_bytes_max = 64 * kMiB;
  size_t open_messages_max = kOpenMessagesPerShardMax;
  size_t open_messages_per_queue_max = kOpenMessagesPerQueueMax;
  // What each queue may have open whatever the shard's limit says: others that are full of messages
  // that nobody takes must not stop it.
  size_t open_messages_reserved = 1000;
  // Retries of a lane that wait in memory; more wait on disk.
  size_t retries_in_memory_max = kRetriesInMemoryMax;
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
  void NameNewStore(std::string server_id, const ReceiptCodec::Key& receipt_key,
                    const KeyedHash::Key& hash_key) {
    boot_row_.server_id = std::move(server_id);
    boot_row_.receipt_key = receipt_key;
    boot_row_.hash_key = hash_key;
  }
  // Begins a boot: after Load, before the first Apply. Writes the first batch.
  void Begin(Now now);

  void Apply(Command command, Now now);
  void OnDurable(Lsn lsn, Now now);
  // DATA_LOSS ends the shard: nothing more may be called but FailAll.
  absl::Status OnRead(uint64_t ticket, ReadResult result, Now now);
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
  bool HasWork() const {
    return !dispatch_.empty() || !dying_queues_.empty() || !room_made_.empty() ||
           !orphaned_.empty() || routes_changed_;
  }

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
  // Its open message has left: the next one may be granted once that cannot be undone.
  struct FreedGroup {
    QueueId qid;
    uint64_t hash;
  };
  struct LostLease {
    SubscriptionId holder;
    ErrorReason reason;
    Receipt receipt;
  };
  // What may be said and shown once a batch is durable.
  struct TurnEffects {
    Lsn lsn = 0;
    std::vector<Reply> replies;
    std::vector<LaneProgress> progress;
    std::vector<ReturningMessage> returning;
    std::vector<FreedGroup> freed_groups;
    std::vector<ReturningMessage> resting;  // may go out of memory
    std::vector<LostLease> lost_leases;
    std::vector<SubscriptionId> holders;  // consumers with held deliveries
  };

  // shard.cc
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
  Queue* FindQueue(const std::string& name) const { return queues_.Find(name); }
  Queue* FindQueue(QueueId qid) const { return queues_.Find(qid); }
  // The queue, or QUEUE_NOT_FOUND.
  absl::StatusOr<Queue*> GetQueue(const std::string& name);
  static absl::Status QueueNotFound(const std::string& name);
  static absl::Status QueueDeleted(const std::string& name);
  LaneState& LaneOf(Queue& queue, Lane lane);
  void MarkDirty(Queue& queue, LaneState& lane);
  void AppendTurn(Now now);
  void ShowProgress(const LaneProgress& progress);
  void ShowReturned(const ReturningMessage& returning);
  void FreeGroup(const FreedGroup& freed);
  void DeliverHeld(SubscriptionId id);
  storage::BootRow CurrentBootRow(Now now) const;
  absl::Status RefuseWhenDraining() const;

  // shard_reads.cc
  using ReadDone = absl::AnyInvocable<absl::Status(ReadResult&, Now)>;
  void StartRead(ReadRequest request, ReadDone done);
  // The unsettled messages among those asked for; the last `unread` seqs were left for another time.
  struct Bodies {
    std::vector<storage::StoredMessage> messages;
    size_t unread = 0;
  };
  using BodiesDone = absl::AnyInvocable<void(Queue*, Bodies, Now)>;  // null: the queue is gone
  // `seqs` rise; `bytes_max` is what they may bring at most in one go.
  void ReadBodies(Queue& queue, Lane lane, std::vector<Seq> seqs, uint64_t bytes_max,
                  BodiesDone done);

  // shard_publish.cc
  void Do(PublishCommand& command, Now now);
  void Do(OpenProducerCommand& command, Now now);
  void RemoveProducersOf(const ProducerTarget& target);
  absl::Status RouteMessage(const Publish& publish, const NewMessage& message, size_t index,
                            int64_t* steps_left, PublishPlan::Message* planned);
  void PlanDedup(const Hash128& dedup, const ParkedPublish* parked, Now now, PublishPlan* plan,
                 PublishPlan::Message* planned);
  absl::Status PlanPublish(Publish& publish, const ParkedPublish* parked, Now now,
                           PublishPlan* plan);
  static Lane LaneOfNew(const NewMessage& message, Now now);
  MessagePosition StorePublished(Queue& queue, NewMessage& message,
                                 const std::optional<MessagePosition>& id, bool pushed_out,
                                 Now now);
  PublishedMessage ApplyPlanned(PublishPlan& plan, size_t index,
                                const std::vector<MessagePosition>& ids, Now now);
  std::vector<PublishedMessage> ApplyPlan(PublishPlan& plan, Now now);
  bool IsPlain(const PublishCommand& command, Queue* queue) const;

  // shard_parked.cc
  void PublishOrPark(ParkedPublish attempt, Now now);
  bool TryPublish(ParkedPublish& attempt, Now now);
  void RefusePublish(ParkedPublish& attempt, const absl::Status& status);
  uint64_t ArrivalOf(const ParkedPublish& attempt) const;
  void AwaitRoom(ParkedPublish& attempt, const PublishPlan& plan);
  void LeaveRoomLine(const ParkedPublish& attempt, QueueId qid);
  void StopAwaitingRoom(ParkedPublish& attempt);
  bool MayWaitForRoom(const ParkedPublish& attempt, const absl::Status& full, Now now) const;
  bool FirstWaitsForRoom(const ParkedLine& line) const;
  void RefuseImpatient(const std::string& name);
  void LookUp(ParkedPublish& attempt, const std::vector<RecentIds::Key>& keys);
  void RetryLine(const std::string& name, Now now);
  void Do(AbandonPublishesCommand& command, Now now);
  void RetryThoseWaiting(Queue& queue, Now now);
  void Unpark(ParkedPublish& attempt);
  void GiveUpParked(uint64_t id, Now now);
  void RefuseParked(const absl::Status& status);
  void ForgetRecentIds();

  // shard_room.cc
  bool HasRoom(const Queue& queue, const PublishPlan::Demand& demand) const;
  enum class Room { kMade, kReading, kNothingLeft, kNoWayOut };
  Room DropHeads(Queue& queue, const PublishPlan::Demand& demand, Now now);
  bool MayDrop(const Queue& queue, const LaneState& lane, Seq seq) const;
  void DropWhenRead(Queue& queue, Lane lane, std::vector<Seq> seqs, PublishPlan::Demand demand);
  absl::Status MakeRoom(const ParkedPublish& attempt, PublishPlan* plan, bool* reading, Now now);
  bool RoomIsTaken(const Queue& queue) const;
  bool OthersComeFirst(const ParkedPublish& attempt, const Queue& queue,
                       const PublishPlan::Demand& demand) const;
  void EndParked(const std::vector<uint64_t>& ids, const absl::Status& status, Now now);
  absl::Status PlanPushingOut(Queue& queue, PublishPlan* plan, bool* reading, Now now);
  void RoomMade(Queue& queue);
  void RunRoomMade(Now now);

  // shard_moves.cc
  void StoreProducer(uint64_t stream, int64_t last_sequence, Now now);
  Seq AddMessage(Queue& queue, LaneState& lane, Payload payload, MessageInfo info);
  void StoreIndexRows(const MessagePosition& at, const MessageInfo& info);
  // The message leaves the queue: settles it and takes it out of whatever it is in.
  void Leave(Queue& queue, LaneState& lane, Seq seq, uint32_t size_bytes, uint64_t group_hash);

  // shard_delayed.cc
  void ScheduleDue(Queue& queue, LaneState& lane);
  void StartDuePage(Queue& queue, LaneState& lane);
  void StartJoining(Queue& queue, LaneState& lane, Now now);
  void JoinDue(Queue& queue, storage::StoredMessage message, Now now);
  MessagePosition JoinLane(Queue& queue, LaneState& from, storage::StoredMessage message);

  // shard_resting.cc
  bool MaybeRedelivered(const OpenMessage& message) const;
  bool MayRest(const LaneState& lane, const OpenMessage& message) const;
  void PrepareRest(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message);
  void Rest(Queue& queue, LaneState& lane, Seq seq);
  void RestAgain(const std::vector<MessagePosition>& positions);
  void BodiesWereRead(Queue& queue, LaneState& lane);
  static std::vector<std::string> HistoryKeys(const std::vector<MessagePosition>& resting);
  absl::StatusOr<OpenMessage> ParseResting(const MessagePosition& at,
                                           const std::optional<std::string>& value) const;
  absl::Status WakeResting(Queue& queue, LaneState& lane, Seq seq,
                           const std::optional<std::string>& value, bool only_due, Now now);
  void ReadResting(std::vector<MessagePosition> resting, bool only_due,
                   absl::AnyInvocable<void(Now)> then);
  void CollectResting(const Queue& queue, const std::vector<SettleItem>& items,
                      std::vector<MessagePosition>* resting) const;
  void StartRetries(Queue& queue, LaneState& lane, Now now);
  static bool RetriesMayReturn(const LaneState& lane);
  void ForgetResting(LaneState& lane, const std::vector<Seq>& kept);

  // shard_expiry.cc
  static bool IsExpired(int64_t expire_ms, Now now) {
    return expire_ms != 0 && expire_ms <= now.engine_ms;
  }
  int64_t ExpiryHorizonMs(Now now) const;
  void StartExpiry(Now now);
  void RunExpiry(Now now);
  absl::Status OnExpiryRows(ReadResult& result, int64_t until_ms, Now now);
  bool MayExpireNow(const LaneState& lane, Seq seq) const;
  void ExpireNextWork(Now now);
  void ExpireFound(Queue& queue, LaneState& lane, storage::StoredMessage message, Now now);
  void FinishSweep(Now now);
  void LookForNextExpiry();

  // shard_dead_letters.cc
  void Die(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message, DeathReason reason,
           Now now);
  bool DieWithBody(Queue& queue, LaneState& lane, storage::StoredMessage message,
                   DeathReason reason, const std::string& detail, Now now);
  void HoldExpired(Queue& queue, LaneState& lane, storage::StoredMessage message);
  void CountDeath(Queue& queue, DeathReason reason, bool moved);
  void AwaitRoom(Queue& full, Queue& source, bool soon);
  void WakeDying(Queue& queue);
  void RetryDying(Queue& queue);
  void RunDying(Now now);
  void MoveDying(Queue& queue, Now now);
  void MoveDyingWithBody(Queue& queue, LaneState& lane, storage::StoredMessage message, Now now);

  // shard_messages.cc
  void Do(ListMessagesCommand& command, Now now);
  void Do(GetMessageCommand& command, Now now);
  void Do(EditMessagesCommand& command, Now now);
  void ListFrom(QueueId qid, ListCursor cursor, ListMessagesCommand command, Now now);
  using RestingMessages = absl::flat_hash_map<Seq, OpenMessage>;
  absl::StatusOr<RestingMessages> ParseAllResting(const std::vector<MessagePosition>& resting,
                                                  const ReadResult& result) const;
  // `resting`: what is known of the lane's messages that rest.
  ListedMessage DescribeMessage(Queue& queue, Lane lane, storage::StoredMessage message,
                                const RestingMessages& resting, Now now);
  ListedMessage DescribeOpen(Queue& queue, const OpenMessage& open, ListedMessage listed, Now now);
  WaitReason WhyReadyWaits(Queue& queue, Now now) const;
  void FindMessage(GetMessageCommand command, int looks);
  void LookAgain(GetMessageCommand command, int looks);
  void ReadListed(Queue& queue, const MessagePosition& at, GetMessageCommand command, int looks);
  void EditNext(EditMessagesCommand command, size_t from, int64_t edited, Now now);
  bool EditOne(Queue& queue, LaneState& lane, storage::StoredMessage message,
               const EditMessagesCommand& command, Now now);
  bool Reschedule(Queue& queue, LaneState& lane, storage::StoredMessage message, int64_t due_ms,
                  Now now);
  void HoldUntil(Queue& queue, LaneState& lane, const storage::StoredMessage& message,
                 int64_t due_ms);
  bool MoveToQueue(Queue& queue, LaneState& lane, storage::StoredMessage message,
                   const std::string& to_name, Now now);

  // shard_transact.cc
  void Do(TransactCommand& command, Now now);
  absl::Status PlanTransact(TransactCommand& command, const ParkedPublish* parked, Now now,
                            PublishPlan* plan);
  void ApplyTransact(TransactCommand& command, std::vector<PublishedMessage> published, Now now);

  // shard_exchanges.cc
  void Do(CreateExchangeCommand& command, Now now);
  void Do(GetExchangeCommand& command, Now now);
  void Do(ListExchangesCommand& command, Now now);
  void Do(UpdateExchangeCommand& command, Now now);
  void Do(DeleteExchangeCommand& command, Now now);
  void Do(CreateBindingCommand& command, Now now);
  void Do(DeleteBindingCommand& command, Now now);
  void Do(ListBindingsCommand& command, Now now);
  void StoreExchangeRow(const std::string& name);
  // These change the router and the batch, or nothing at all.
  absl::StatusOr<bool> AddExchange(const ExchangeChange& wanted);
  absl::Status RemoveExchange(const std::string& name, bool if_unused);
  absl::Status AddBinding(const Binding& binding, bool* created = nullptr);
  absl::Status RemoveBinding(const Binding& binding);
  void RemoveBindingsOf(const Queue& queue);
  absl::Status LoadExchange(uint64_t number, std::string_view value);
  absl::Status LoadBinding(uint64_t number, std::string_view value);

  // shard_definitions.cc
  void Do(ApplyDefinitionsCommand& command, Now now);
  void Do(ExportDefinitionsCommand& command, Now now);
  absl::StatusOr<DefinitionsPlan> PlanDefinitions(const Definitions& definitions, bool prune);
  absl::Status PlanQueues(const Definitions& definitions, DefinitionsPlan* plan);
  absl::Status PlanPrunedQueues(DefinitionsPlan* plan);
  void PlanPrunedBindings(const std::set<Binding>& wanted, DefinitionsPlan* plan);
  bool WillHaveQueue(const DefinitionsPlan& plan, const std::string& name);
  // kUnspecified: no such exchange.
  ExchangeType TypeOfPlanned(const DefinitionsPlan& plan, const std::string& name) const;
  absl::Status PlanExchanges(const Definitions& definitions, DefinitionsPlan* plan);
  absl::Status PlanBindings(const Definitions& definitions, DefinitionsPlan* plan);
  void ApplyDefinitions(const DefinitionsPlan& plan, Now now);

  // shard_load.cc
  absl::Status LoadRows(storage::Store& store);
  void RestoreLane(LaneState& lane);
  void StartOpenMessages(Now now);
  void StartOpenMessage(Queue& queue, LaneState& lane, Seq seq, Now now);
  void StartQueues(Now now);

  // shard_consumers.cc
  void Do(SubscribeCommand& command, Now now);
  void Do(ReceiveCommand& command, Now now);
  void Do(CancelReceiveCommand& command, Now now);
  void Do(WrittenCommand& command, Now now);
  void Do(ReceiveWrittenCommand& command, Now now);
  void Do(CloseSubscriptionCommand& command, Now now);
  void Do(SetCreditCommand& command, Now now);
  void Do(DrainSubscriptionCommand& command, Now now);
  void Do(ListConsumersCommand& command, Now now);
  void Do(CloseConsumerCommand& command, Now now);
  absl::Status CheckExclusive(const Queue& queue, bool exclusive) const;
  Consumer& AddConsumer(std::unique_ptr<Consumer> consumer, Queue& queue, Now now);
  void SetConsumerTimer(Consumer& consumer, int64_t due_ns);
  void RemoveConsumer(Consumer& consumer);
  void LeaveQueue(Consumer& consumer);
  void EndSubscription(Consumer& consumer, absl::Status status);
  void TellDrained(Consumer& consumer);
  void AnswerReceive(Consumer& consumer);
  Consumer* FindConsumer(SubscriptionId id);
  Consumer* FindStream(SinkKey sink);
  void ReleaseUnwritten(const Receipt& receipt, bool handed_out, Now now);
  void SettleWritten(const Receipt& receipt);
  void DropLeasesOf(Consumer& consumer, const std::vector<Receipt>& unwritten, Now now);
  // Chooses the single active consumer where there has to be one and may be one.
  void Activate(Queue& queue);
  void ResetTakers(Queue& queue);

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
  void PlanSettle(const Queue& queue, const SettleItem& item, const Honoured& honoured,
                  PublishPlan* plan);
  bool GroupIsOpen(const Queue& queue, uint64_t group_hash) const;
  // Gives the items their outlines, from memory; says which messages of one lane have to be read for
  // that. No seqs: none.
  struct Unread {
    Lane lane = 0;
    std::vector<Seq> seqs;
  };
  Unread FindOutlines(Queue& queue, std::vector<SettleItem>& items, Now now);
  static void NoteOutlines(Lane lane, const std::vector<storage::StoredMessage>& messages,
                           std::vector<SettleItem>* items);
  OpenMessage& OpenFromEarlierBoot(Queue& queue, LaneState& lane, const SettleItem& item);
  void EndLease(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message);
  // Ends the lease as a failure (counts an attempt) or not, and makes the message ready after
  // `delay_ms`; or it has failed or lasted for long enough, and dies.
  void ReturnMessage(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message, bool failed,
                     int64_t delay_ms, Now now);
  // Takes an open message out of whatever it waits in: lease, retry, or the returned set.
  void Unhook(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message);
  void TellLeaseLost(SubscriptionId holder, const Receipt& receipt, ErrorReason reason);
  void TellLeasesLost(const std::vector<LostLease>& lost);
  void RememberRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns);
  bool WasRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns);

  // shard_due.cc
  void RunDue(Now now);
  void RunTimer(const Timer& timer, Now now);
  void LeaseRanOut(const Timer& timer, Now now);
  void RetryIsDue(const Timer& timer);
  static bool SomeAreBeingRead(const Queue& queue);
  void StreamIdle(const Timer& timer, Now now);
  void ReceiveWaited(const Timer& timer, Now now);

  // shard_dispatch.cc
  enum class Step { kGranted, kChanged, kNothing, kBlocked };
  void Wake(Queue& queue);
  void WakeConsumer(Consumer& consumer);
  void DispatchAll(Now now);
  void Dispatch(Queue& queue, Now now);
  bool MayDispatch(Queue& queue, Now now);
  Step StepQueue(Queue& queue, Now now);
  Step StepLane(Queue& queue, LaneState& lane, Now now);
  Step StepReturned(Queue& queue, LaneState& lane, Now now);
  Step StepFresh(Queue& queue, LaneState& lane, storage::StoredMessage& message, bool candidate,
                 Now now);
  bool AtOpenLimit(Queue& queue);
  std::array<Lane, kImmediateLanes> LaneOrder(Queue& queue, Now now);
  Consumer* NextTaker(Queue& queue, uint32_t bytes, Now now);
  OpenMessage& OpenFresh(Queue& queue, LaneState& lane, const storage::StoredMessage& message);
  void Grant(Queue& queue, LaneState& lane, Consumer& consumer, Seq seq, OpenMessage& message,
             Payload payload, bool write_history, Now now);
  void ForgetOpen(Queue& queue, size_t count);
  // How much one stream may have unwritten now.
  uint64_t UnwrittenMax() const {
    return unwritten_bytes_ < options_.unwritten_bytes_max ? kUnwrittenBytesPerStreamMax
                                                           : kUnwrittenReportBytes;
  }
  bool CanTake(const Consumer& consumer, uint32_t bytes) const {
    return consumer.CanTake(bytes, UnwrittenMax());
  }
  void ForgetUnwritten(Consumer& consumer, uint64_t bytes);
  void FlushOutboxes(Now now);
  void Deliver(Consumer& consumer, std::vector<OutgoingDelivery> deliveries);
  void LeaveTakers(Consumer& consumer);

  // shard_paging.cc
  // False: there is nothing to read.
  bool PageIn(Queue& queue, LaneState& lane);
  void FetchReturned(Queue& queue, LaneState& lane);
  void OnReturnedRead(Queue& queue, LaneState& lane, storage::StoredMessage message);
  void FetchParked(Queue& queue, LaneState& lane);
  void RefillGroups(Queue& queue);
  bool MemoryIsShort() const {
    return window_bytes_ + reading_bytes_ > options_.window_bytes_max;
  }
  void EvictIdleWindows();

  // shard_queues.cc
  void Do(CreateQueueCommand& command, Now now);
  void Do(GetQueueCommand& command, Now now);
  void Do(ListQueuesCommand& command, Now now);
  void Do(UpdateQueueCommand& command, Now now);
  void Do(DeleteQueueCommand& command, Now now);
  void Do(PurgeQueueCommand& command, Now now);
  void Do(PauseQueueCommand& command, Now now);
  const QueueConfig* FindDeadLetterConfig(const std::string& name);
  absl::Status CheckConfig(const QueueConfig& config);
  // Whether the queue may be made; its config with defaults resolved.
  absl::StatusOr<QueueConfig> PlanQueue(const QueueConfigChange& change);
  Queue& MakeQueue(QueueConfig config, bool temporary, Now now);
  absl::StatusOr<Queue*> MakeTemporaryQueue(const TemporaryQueueSpec& spec, Now now);
  void ChangeQueue(Queue& queue, QueueConfig config, Now now);
  void StoreQueueRow(Queue& queue);
  void ConfigChanged(Queue& queue, Now now);
  // Empty: nobody refers to it.
  std::string ReferrerOf(const Queue& queue) const;
  void RemoveQueue(Queue& queue, const absl::Status& why);
  void ScheduleIdleExpiry(Queue& queue, Now now);
  void QueueIsIdle(Queue& queue, Now now);
  QueueInfo Describe(Queue& queue, Now now);
  // When the oldest ready message of the lane was published. Where it has to be read for that,
  // nothing until it is; of one from an earlier boot the begin of this boot, which is later.
  std::optional<int64_t> OldestReadyMs(Queue& queue, LaneState& lane);
  void WantPeek(Queue& queue, LaneState& lane);
  void StartPeeks();
  void StartPeek(Queue& queue, LaneState& lane);
  void PeekCandidate(Queue& queue, LaneState& lane);
  void PurgeLane(Queue& queue, LaneState& lane, bool include_leased, Now now);
  void EndConsumersOf(Queue& queue, const absl::Status& status);

  const ShardOptions options_;
  ShardPort* const port_;

  // Persisted.
  storage::BootRow boot_row_;
  QueueTable queues_;

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
  std::string header_scratch_;  // of AddMessage
  TurnEffects effects_;
  std::deque<TurnEffects> waiting_effects_;
  std::vector<std::pair<QueueId, Lane>> dirty_lanes_;
  std::vector<SubscriptionId> outboxes_;
  std::deque<QueueId> dispatch_;
  bool boot_row_dirty_ = false;
  bool clean_stop_ = false;  // how the boot before this one ended
  Lsn last_lsn_ = 0;
  Lsn durable_lsn_ = 0;

  // Reads under way.
  struct PendingRead {
    uint64_t bytes_max = 0;
    ReadDone done;
  };
  absl::flat_hash_map<uint64_t, PendingRead> reads_;
  uint64_t next_ticket_ = 1;
  size_t peeks_ = 0;  // of them, for statistics
  std::deque<std::pair<QueueId, Lane>> peeks_wanted_;
  int64_t boot_begin_ms_ = 0;  // engine time
  uint64_t window_bytes_ = 0;
  uint64_t unwritten_bytes_ = 0;  // of all consumers
  uint64_t reading_bytes_ = 0;  // what the reads under way may bring at most

  // Publishes that wait.
  std::map<uint64_t, std::unique_ptr<ParkedPublish>> parked_;
  absl::btree_set<std::pair<uint64_t, uint64_t>> parked_of_callers_;  // caller, id
  absl::flat_hash_map<std::string, ParkedLine> parked_lines_;
  int64_t parked_bytes_ = 0;
  uint64_t next_parked_id_ = 1;
  RecentIds recent_ids_;
  absl::btree_set<std::pair<Lsn, uint64_t>> lookups_from_;  // with the id of the parked publish
  Producers producers_;
  Router router_;
  uint64_t next_producer_stream_ = 1;
  uint64_t unrouted_ = 0;  // messages that no binding took, since the start
  std::vector<const std::string*> routed_;  // scratch of RouteMessage

  ExpirySweep expiry_;
  std::deque<QueueId> dying_queues_;
  std::vector<QueueId> room_made_;
  const PublishPlan* making_room_for_ = nullptr;  // while MakeRoom runs
  // First ones of lines that wait for what is gone, or as part of it; by arrival.
  absl::btree_set<uint64_t> orphaned_;
  bool routes_changed_ = false;  // what waits for room may go elsewhere now, or nowhere
  int64_t last_turn_ms_ = 0;  // engine time
  std::deque<std::pair<Lsn, int64_t>> turn_times_;  // engine time of each turn not durable yet
  std::vector<QueueId> waiting_for_open_messages_;
  size_t open_messages_ = 0;
  std::string evict_cursor_;  // name of the queue after which the next eviction goes on
  bool draining_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SHARD_H_
