// The rules of the contract, held against what a shard's batches do (model_ledger.h) and what its
// consumers are shown. Every change of a message has to have a reason that the contract gives:
// something that was asked for, or a time that has come; and what has to happen must have happened
// when the turn is over. Where the outcome depends on scheduling, any allowed one will do.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_

#include <cstdint>
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
  int64_t since_ms = 0;
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
  std::set<QueueId> stored_in;
  std::optional<MessagePosition> id;
};
// One publish command, or one publish of a transaction.
struct PlannedPublish {
  std::set<std::string> queues;  // where it is to go
  std::vector<PlannedMessage> messages;
  int64_t asked_ms = 0;
  bool answered = false;
  bool refused = false;
  Lsn stored_lsn = 0;  // 0: not stored
};

enum class Honour : uint8_t { kOk, kExpired, kInvalid, kEither };

class FeatureModel {
 public:
  explicit FeatureModel(std::function<void(const std::string&)> fail) : fail_(std::move(fail)) {}

  int64_t now_ms = 1'700'000'000'000;
  Boot boot = 0;
  Lsn durable_lsn = 0;
  Lsn appended_lsn = 0;
  Ledger ledger;
  uint64_t deliveries = 0;
  uint64_t redeliveries = 0;
  // How often each kind of thing happened, so that a run can say what it covered.
  std::map<std::string, uint64_t> seen;

  // --- turns
  void BeginTurn();
  void OnBatch(const storage::Batch& batch);
  void EndTurn();
  void Durable(Lsn lsn);
  void Crash();
  void CleanStop();
  void StartBoot();
  bool EverythingKnown() const { return known_; }

  // --- what is asked
  std::shared_ptr<PlannedPublish> Plan(std::set<std::string> queues,
                                       std::vector<PlannedMessage> messages);
  std::shared_ptr<Intent> Ask(LedgerMessage& message, Intent intent);
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
  void NothingIsBeingRead() { read_through_lsn_ = durable_lsn; }
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
  // A message that should have gone for `lag_ms`; null: none.
  LedgerMessage* FindOverdue(int64_t lag_ms);
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
  void CheckMoved(const LedgerMessage& message, const LedgerMessage& copy);
  void CheckGone(const Change& change, int64_t time_ms);
  bool CheckDeath(const Change& change, DeathReason reason, int64_t time_ms);
  void CheckDropped(LedgerMessage& message);
  void CheckDroppedFirst(const LedgerMessage& message);
  void CheckRow(const Change& change, int64_t time_ms);
  void CheckReturned(const Change& change, int64_t time_ms);
  void CheckRegranted(const Change& change, int64_t time_ms);
  void CheckRetryTime(const Change& change, int64_t time_ms);
  bool MayHaveFailed(const Change& change, int64_t time_ms) const;
  bool MayBeHeldUnseen(const LedgerMessage& message, const LedgerMessage::State& state) const;
  void CheckPublished(LedgerMessage& message, int64_t time_ms);
  void CheckDedup(const LedgerMessage& message, const PlannedMessage& planned, int64_t time_ms);
  void CheckRoom(const LedgerBatch& batch);

  // model_deliveries.cc
  void CheckGrant(FeatureConsumer& consumer, LedgerMessage& message, int64_t grant_ms);
  void CheckCredit(const FeatureConsumer& consumer, const LedgerMessage& message);
  void CheckReceipt(LedgerMessage& message, const OutgoingDelivery& delivery);
  void CheckGroup(const LedgerMessage& message, bool fresh);
  void CheckOrder();
  bool MustHaveBeenGranted(const LedgerMessage& message) const;
  void CheckPromises();

  void EndLease(LedgerMessage& message);
  bool Allows(QueueId qid, const std::function<bool(const QueueConfig&)>& rule) const;
  static bool Has(const LedgerMessage& message, std::initializer_list<Why> whys);

  std::function<void(const std::string&)> fail_;
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
  std::set<LedgerMessage*> changed_now_;
  std::set<QueueId> regranted_;  // first hand-outs may be held back with further ones
  std::vector<LedgerMessage*> dropped_;
  std::map<LedgerMessage*, int64_t> passed_over_;  // by a drop, at that time
  Lsn durable_before_ = 0;  // when the turn began
  Lsn read_through_lsn_ = 0;
  int64_t last_turn_ms_ = 0;
  bool in_turn_ = false;
  bool exact_ = true;  // the log shows all that was decided before this turn's commands
  bool known_ = true;  // at the turn's begin every lease had been seen
  std::map<Hash128, std::pair<MessagePosition, int64_t>> first_ids_;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_RULES_H_
