// The rules of the contract, held against what a shard's batches do (model_ledger.h) and what its
// consumers are shown. Every change of a message has to have a reason that the contract gives:
// something that was asked for, or a time that has come; and what has to happen must have happened
// when the turn is over. Where the outcome depends on scheduling, any allowed one will do.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/broker/model_ledger.h"

namespace sluice::broker {

// A subscription, or a waiting Receive call.
struct FeatureConsumer {
  SubscriptionId id = 0;  // 0: a call
  std::string queue;
  QueueId qid = 0;
  int64_t lease_ms = 0;
  int32_t max_in_flight = 0;
  int64_t max_bytes_in_flight = 0;
  int64_t messages_left = -1;
  bool auto_ack = false;
  bool keep_leases_on_close = false;
  bool exclusive = false;
  int32_t priority = 0;
  RateLimit rate;
  bool draining = false;
  bool drained = false;
  bool started = false;
  bool ended = false;
  bool gone = false;
  bool credit_was_cut = false;  // what it holds may be more than its credit
  std::set<LedgerMessage*> leases;
  int64_t bytes_in_flight = 0;
  std::vector<Receipt> shown;
  size_t written = 0;
  int64_t unwritten_bytes = 0;
  int64_t since_ms = 0;
  int64_t idle_timeout_ms = 0;
  int64_t last_grant_ms = 0;
  bool ended_idle = false;     // in this turn
  bool owns_queue = false;     // which is temporary
  bool had_credit = false;     // when the turn began
  std::deque<int64_t> grants;  // when, for its rate
};

// A producer of PublishStream, of one queue or exchange and not of the next one of its name: its
// streams follow each other, each is a generation.
struct ModelProducer {
  std::string queue;
  std::string exchange;
  uint64_t number = 0;  // of the queue, or of the exchange's row
  Hash128 hash{};
  uint64_t generation = 0;
  Lsn opened_after = 0;  // what had been appended when this generation began
  // By generation: the first publish that was refused; nothing that was asked for later is stored.
  std::map<uint64_t, uint64_t> refused;
  std::map<int64_t, Lsn> stored;             // by sequence
  int64_t last_in_batch = 0;
};

struct PlannedMessage {
  uint64_t body = 0;
  int priority = kPriorityDefault;
  uint64_t group_hash = 0;
  int64_t delay_ms = 0;
  int64_t deliver_at_ms = 0;
  int64_t ttl_ms = 0;
  std::optional<Hash128> dedup;
  uint32_t bytes = 0;
  ModelRoute route;
  std::set<size_t> routed;  // to how many queues, once that is known
  std::set<QueueId> stored_in;
  std::optional<MessagePosition> id;
};
// One publish command, or one publish of a transaction.
struct PlannedPublish {
  std::string queue;  // where it is to go; empty: by the routes of its messages
  bool mandatory = false;
  ModelProducer* producer = nullptr;
  uint64_t generation = 0;
  int64_t first_sequence = 0;
  std::vector<PlannedMessage> messages;
  uint64_t number = 0;  // in the order of asking
  // Those of one line are stored in the order in which they were asked for.
  std::string line = {};
  Lsn asked_after = 0;  // what had been appended
  ModelRouting routing;  // as of when it was asked for
  int64_t asked_ms = 0;
  uint64_t routing_version = 0;  // when it was asked for
  bool of_transaction = false;  // which may be refused for the sake of another part
  bool answered = false;
  bool refused = false;
  bool abandoned = false;  // by its caller, before it was stored
  Lsn stored_lsn = 0;      // 0: not stored
};

enum class Honour : uint8_t { kOk, kExpired, kInvalid, kEither };

class FeatureModel {
 public:
  // `consumers`: those that there are now, also waiting calls.
  using Consumers = std::function<void(const std::function<void(FeatureConsumer&)>&)>;
  FeatureModel(std::function<void(const std::string&)> fail, Consumers consumers)
      : fail_(std::move(fail)), consumers_(std::move(consumers)) {}

  int64_t now_ms = 1'700'000'000'000;
  Boot boot = 0;
  bool windows_are_large = false;  // in this boot nothing leaves memory for want of room
  Lsn durable_lsn = 0;
  Lsn appended_lsn = 0;
  Ledger ledger;
  uint64_t deliveries = 0;
  uint64_t redeliveries = 0;
  // How often each kind of thing happened, so that a run can say what it covered.
  std::map<std::string, uint64_t> seen;
  std::deque<ModelProducer> producers;
  // What exchanges and bindings should be after this turn.
  ModelRouting routing;

  // --- turns
  void BeginTurn();
  void OnBatch(const storage::Batch& batch);
  void EndTurn();
  void Durable(Lsn lsn);
  void Crash();
  void CleanStop();
  void StartBoot();
  bool EverythingKnown() const { return known_; }
  bool HasTarget(const ModelProducer& producer) const;

  // --- what is asked
  std::shared_ptr<PlannedPublish> Plan(PlannedPublish publish);
  // The queue may be made, changed or paused in this turn; or may go.
  void AskRow(const std::string& queue) { asked_rows_.insert(queue); }
  void AskGone(const std::string& queue) { may_go_.insert(queue); }
  void Used(LedgerQueue& queue) { queue.used_ms = queue.may_be_used_ms = now_ms; }
  std::shared_ptr<Intent> Ask(LedgerMessage& message, Intent intent);
  // It was refused: nothing is done for it.
  void Withdraw(LedgerMessage& message, const std::shared_ptr<Intent>& intent);
  Honour Judge(const LedgerQueue& queue, const Receipt& receipt);
  void Extend(LedgerMessage& message, int64_t until_ms);
  void TakeBack(const Receipt& receipt);
  void DropFromHolder(LedgerMessage& message);
  bool IsSettledBy(const LedgerMessage& message, Lsn lsn) const {
    return message.state.settled && message.state.settled_lsn <= lsn;
  }
  // Something that makes the next batch hard to foretell.
  void Muddle() { known_ = false; }
  // Something was decided that no batch shows yet.
  void Blur() { known_ = exact_ = false; }
  bool Exact() const { return exact_; }
  // No read is under way: what is decided from now on knows all that is durable.
  void NothingIsBeingRead() {
    read_through_lsn_ = durable_lsn;
    released_unseen_.clear();
    nothing_is_read_ = true;
  }
  // What it held back for a stream comes back, and no row tells.
  void NoteReleasedUnseen(QueueId qid);
  // It was in force for a part of this turn.
  void NoteConfig(QueueId qid, const QueueConfig& config) {
    recent_configs_[qid].push_back(config);
  }

  // --- what is answered
  void Answered(PlannedPublish& publish,
                const absl::StatusOr<std::vector<PublishedMessage>>& result);
  void Shown(FeatureConsumer& consumer, const OutgoingDelivery& delivery);

  // --- at rest: everything is durable, nothing is being read, nothing is left to do
  void CheckIdleConsumers(const std::vector<FeatureConsumer*>& consumers);
  void CheckListed(LedgerQueue& queue, const std::vector<ListedMessage>& listed);
  // Messages that should have gone for `lag_ms`.
  std::set<const LedgerMessage*> FindOverdue(int64_t lag_ms) const;
  void CheckIdleQueues();
  bool IsReady(const LedgerMessage& message) const;

  void Fail(const LedgerMessage& message, const std::string& what);
  void Fail(const std::string& what) { fail_(what); }

 private:
  using Change = LedgerBatch::Change;

  // model_changes.cc
  void CheckChange(const Change& change, LedgerMessage* copy, int64_t time_ms);
  void CheckSettled(const Change& change, LedgerMessage* copy, int64_t time_ms);
  void CheckJoin(const LedgerMessage& message, const LedgerMessage& copy, int64_t time_ms);
  void CheckReschedule(const LedgerMessage& message, const LedgerMessage& copy, int64_t time_ms);
  void CheckDeadLetter(const Change& change, const LedgerMessage& copy, int64_t time_ms);
  static bool HasTimesOfMoved(const LedgerMessage& message, const LedgerMessage& copy,
                              int64_t time_ms);
  void CheckMoved(const LedgerMessage& message, const LedgerMessage& copy, int64_t time_ms);
  void CheckGone(const Change& change, int64_t time_ms);
  bool CheckDeath(const Change& change, DeathReason reason, int64_t time_ms);
  void CheckDropped(LedgerMessage& message);
  void CheckDroppedFirst(const LedgerMessage& message);
  void CheckRow(const Change& change, int64_t time_ms);
  void CheckReturned(const Change& change, int64_t time_ms);
  void CheckRegranted(const Change& change, int64_t time_ms);
  void CheckRetryTime(const Change& change, int64_t time_ms);
  bool CutShort(const LedgerMessage::State& state) const;
  bool MayHaveFailed(const Change& change, int64_t time_ms) const;
  bool MayBeHeldUnseen(const LedgerMessage& message, const LedgerMessage::State& state) const;
  void CheckPublished(LedgerMessage& message, int64_t time_ms);
  void CheckDedup(const LedgerMessage& message, const PlannedMessage& planned, int64_t time_ms);
  void CheckRoom(const LedgerBatch& batch);
  // Where it goes by the exchanges and bindings; nothing: its exchange does not exist.
  static std::optional<std::set<std::string>> RouteOf(const PlannedPublish& publish,
                                                      const PlannedMessage& message,
                                                      const ModelRouting& routing);
  std::vector<const ModelRouting*> RoutingsOf(const PlannedPublish& publish) const;
  bool MayGoTo(const PlannedPublish& publish, const PlannedMessage& message,
               const std::string& queue) const;
  bool IsFanOutCopy(const LedgerMessage& message) const;
  void CheckFanOuts(int64_t time_ms);
  bool IsFanOutBy(const PlannedPublish& publish, const ModelRouting& routing, int64_t time_ms);
  void CheckSequence(const LedgerMessage& message, PlannedPublish& publish, size_t index);
  void CheckLines(const LedgerBatch& batch);
  void NoteTwins(LedgerMessage& message);

  // model_answers.cc
  void CheckRefusal(const PlannedPublish& publish, ErrorReason reason);
  void CheckUnrouted();
  void CheckTargetsGone();
  void CheckDuplicate(const PlannedPublish& publish, size_t index,
                      const PublishedMessage& published);
  bool HasRoomFor(const LedgerQueue& queue, int64_t bytes, int depth) const;

  // model_lifetimes.cc
  void CheckQueueRows(const LedgerBatch& batch);
  void CheckQueueGone(const LedgerQueue& queue, int64_t time_ms);
  bool IsConsumed(QueueId qid) const;
  bool IsReferredTo(const LedgerQueue& queue) const;
  void NoteUses();
  void CheckIdleStreams();

  // model_fairness.cc
  void NoteCredit();
  bool MayTake(const FeatureConsumer& consumer, const LedgerMessage& message) const;
  void CheckConsumerPriority();
  void CheckAging();
  void CheckRates(FeatureConsumer& consumer, LedgerMessage& message, int64_t grant_ms);
  static bool KeepsRate(const std::deque<int64_t>& grants, const RateLimit& rate,
                        int64_t since_ms);
  bool SomeWaitForTheDisk(const LedgerQueue& queue) const;
  static bool TakesAll(const FeatureConsumer& consumer, const LedgerQueue& queue);

  // model_deliveries.cc
  void CheckGrant(FeatureConsumer& consumer, LedgerMessage& message, int64_t grant_ms);
  void CheckCredit(const FeatureConsumer& consumer, const LedgerMessage& message);
  void CheckReceipt(LedgerMessage& message, const OutgoingDelivery& delivery);
  void CheckGroup(const LedgerMessage& message, bool fresh);
  void CheckLeftForGood(const LedgerMessage& message);
  void CheckOrder();
  bool MustHaveBeenGranted(const LedgerMessage& message) const;
  void CheckPromises();

  void EndLease(LedgerMessage& message);
  bool Allows(QueueId qid, const std::function<bool(const QueueConfig&)>& rule) const;
  static int LikenessOfCopy(const LedgerMessage& message, const LedgerMessage& copy,
                            int64_t time_ms);
  static bool IsMovedTo(const LedgerMessage& message, const LedgerMessage& copy);
  static bool IsPutOffTo(const LedgerMessage& message, const LedgerMessage& copy, int64_t time_ms);
  static bool Has(const LedgerMessage& message, std::initializer_list<Why> whys);

  std::function<void(const std::string&)> fail_;
  Consumers consumers_;
  ModelRouting routing_before_;  // the batch
  std::map<Hash128, storage::ProducerRow> producers_before_;
  uint64_t routing_version_ = 0;
  uint64_t publishes_ = 0;
  ModelRouting routing_of_last_turn_;
  std::vector<std::pair<const PlannedPublish*, ErrorReason>> unrouted_;  // refused in this turn
  std::vector<const ModelProducer*> without_target_;  // refused for that in this turn
  std::set<std::string> asked_rows_;
  std::set<std::string> may_go_;
  std::set<PlannedPublish*> stored_now_;  // by the batch
  std::map<std::string, uint64_t> last_in_line_;  // the number of the last one stored
  std::map<QueueId, std::deque<int64_t>> queue_grants_;
  bool booting_ = false;  // its first turn
  std::map<uint64_t, std::pair<std::shared_ptr<PlannedPublish>, size_t>> planned_;  // by body
  std::vector<std::weak_ptr<PlannedPublish>> refused_;  // of this turn
  std::set<std::pair<int64_t, LedgerMessage*>> leases_;  // shown and live, by end
  std::set<LedgerMessage*> asked_;
  std::map<QueueId, std::vector<QueueConfig>> recent_configs_;  // in force during this turn
  struct Grant {
    LedgerMessage* message = nullptr;
    bool fresh = false;
  };
  std::vector<Grant> granted_;  // shown in this turn, by its own dispatch
  std::deque<LedgerMessage*> leaving_;  // settled by batches that are not durable
  std::set<LedgerMessage*> changed_now_;
  std::set<const LedgerMessage*> withdrawn_now_;  // what was asked for them was refused in this turn
  std::set<QueueId> regranted_;  // first hand-outs may be held back with further ones
  std::vector<LedgerMessage*> dropped_;
  bool nothing_is_read_ = false;  // as far as is known since the turn began
  std::map<std::pair<QueueId, Lane>, int> aged_passes_;  // while nothing was read, in this boot
  std::set<QueueId> released_unseen_;  // since nothing was being read
  std::map<LedgerMessage*, int64_t> passed_over_;  // by a drop, at that time
  Lsn durable_before_ = 0;  // when the turn began
  Lsn read_through_lsn_ = 0;
  int64_t last_turn_ms_ = 0;
  bool in_turn_ = false;
  bool exact_ = true;  // the log shows all that was decided before this turn's commands
  bool known_ = true;  // at the turn's begin every lease had been seen
  struct FirstOfId {
    MessagePosition at;
    uint64_t body = 0;
    int64_t expire_ms = 0;
  };
  std::map<Hash128, FirstOfId> first_ids_;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_
