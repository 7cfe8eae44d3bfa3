// What the log says: every stored message, row by row, as of the last batch appended. A crash takes
// back what was not durable. It knows no rules; model_rules.h judges what the batches did.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_LEDGER_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_LEDGER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/broker/commands.h"
#include "server/storage/batch.h"
#include "server/storage/rows.h"
#include "tests/unit/broker/model_routing.h"

namespace sluice::broker {

struct LedgerQueue;
struct FeatureConsumer;

// Something that was asked for a message, and that its batch may show.
enum class Why : uint8_t {
  kAck, kDiscard, kRetry, kDelay, kRelease, kDeadLetter,  // receipts
  kClosed, kUnwritten,                                    // the end of its stream
  kPurge, kDelete, kReschedule, kMove,
};
struct Intent {
  Why why = Why::kAck;
  bool certain = true;     // it was sure to be honoured
  bool was_leased = false;
  bool lasting = false;    // until `over`; otherwise it is done with its turn
  bool over = false;
  int64_t delay_ms = 0;
  int64_t deliver_at_ms = 0;
  std::string detail = {};
  std::string to_queue = {};
  Lsn done_lsn = 0;  // the batch that ended a live lease, where nothing else was asked for
};

struct LedgerMessage {
  LedgerQueue* queue = nullptr;
  MessagePosition at;
  MessagePosition id;
  uint64_t body = 0;
  uint32_t bytes = 0;
  MessageInfo info;
  int priority = 0;
  Lsn stored_lsn = 0;
  Boot stored_boot = 0;
  size_t order = 0;  // among those that its batch stored

  // As of the last batch.
  struct State {
    bool settled = false;
    bool removed = false;  // by anything but an ack or discard
    bool unsure = false;   // which of them it was
    Lsn settled_lsn = 0;
    bool has_row = false;
    storage::HistoryRow row;
    Lsn row_lsn = 0;
    bool ran_out_while_down = false;  // its saved lease: one attempt more than the row says
    Lsn count_lsn = 0;  // of the row that first told of its last hand-out
  };
  State state;

  // What was seen in this boot.
  std::optional<Receipt> last;  // receipt last shown, of any boot
  bool leased = false;
  int64_t until_ms = 0;
  FeatureConsumer* holder = nullptr;
  bool lost = false;       // was held when the process died
  bool may_have_been_held = false;  // when it left, by somebody who had not seen it
  const char* left_as = "";         // what it left as
  bool has_twin = false;  // another one of its id is, or was, in its queue
  bool ran_out_while_down = false;
  int64_t removed_ms = 0;
  Boot removed_boot = 0;
  std::vector<std::shared_ptr<Intent>> intents;

  bool ShownNow(Boot boot) const { return last && last->boot == boot; }
  bool Dying() const { return state.has_row && state.row.death != DeathReason::kUnspecified; }
  int32_t Attempt() const { return state.has_row ? state.row.attempt : 1; }
  int64_t NotBeforeMs() const { return state.has_row ? state.row.not_before_ms : 0; }
};

struct LedgerLane {
  std::vector<std::unique_ptr<LedgerMessage>> all;  // by seq - 1
  std::map<Seq, LedgerMessage*> unsettled;
  Seq durable_grant_bound = 1;
};

struct LedgerQueue {
  QueueId qid = 0;
  storage::QueueRow row;
  bool exists = false;
  std::array<LedgerLane, kLanes> lanes;
  int64_t messages = 0;
  int64_t bytes = 0;
  int64_t paused_ms = 0;  // since when; 0: it is not
  // When it was last used for all that is known, and when it may have been.
  int64_t used_ms = 0;
  int64_t may_be_used_ms = 0;
  // An earlier boot's receipt has settled, or opened, a message whose size was not in memory; as long
  // as any message is there.
  bool bytes_near = false;
  bool crashed = false;   // there was a crash while it existed
  int64_t deepest = 0;    // in this boot
  const std::string& name() const { return row.config.name; }
};

// What one batch did.
struct LedgerBatch {
  struct Change {
    LedgerMessage* message = nullptr;
    LedgerMessage::State before;
    int row_puts = 0;
    bool is_new = false;
  };
  Lsn lsn = 0;
  int64_t time_ms = 0;
  std::vector<LedgerMessage*> added;
  std::vector<Change> changed;
  std::map<QueueId, storage::QueueRow> queue_rows_before;
  std::map<QueueId, std::pair<int64_t, int64_t>> sizes_before;  // messages, bytes
  std::vector<QueueId> queues_gone;
  bool routing_changed = false;
  ModelRouting routing_before;
  std::map<Hash128, storage::ProducerRow> producers_before;  // of those that it stores
};

class Ledger : private storage::Batch::Visitor {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;

  const LedgerBatch& Apply(const storage::Batch& batch);
  void Durable(Lsn lsn);
  // What is not durable never was.
  void Rollback(Lsn durable_lsn);

  // Those that exist.
  const std::vector<LedgerQueue*>& live() const { return live_; }
  LedgerQueue* Find(const std::string& name) const;
  LedgerMessage* At(const MessagePosition& at);
  const storage::DedupRow* Dedup(QueueId qid, const Hash128& hash) const;
  // The numbers of the rows of exchanges that exist; 0: there is none.
  uint64_t ExchangeNumber(const std::string& name) const;

  std::map<QueueId, LedgerQueue> queues;
  ModelRouting routing;
  std::map<Hash128, storage::ProducerRow> producers;
  std::string error;  // not empty: a batch cannot be right

 private:
  using Undo = absl::AnyInvocable<void()>;
  void OnPut(storage::Family family, std::string_view key, std::string_view value) override;
  void OnDelete(storage::Family family, std::string_view key) override;
  void OnDeleteMetaRange(std::string_view begin, std::string_view end) override {}
  void OnMessage(std::string_view key, std::string_view value);
  void OnMeta(std::string_view key, std::string_view value);
  void OnHistory(const storage::MetaKey& key, std::string_view value);
  void OnQueue(QueueId qid, std::string_view value);
  void OnProducer(const Hash128& producer, std::string_view value);
  void OnRouting(const storage::MetaKey& key, const std::string_view* value);
  void SettleBelow(QueueId qid, Lane lane, Seq begin, Seq end, const storage::AcksRow* row);
  void Settle(LedgerMessage& message);
  LedgerBatch::Change& Touch(LedgerMessage& message);
  void NoteSize(LedgerQueue& queue) {
    current_.sizes_before.try_emplace(queue.qid, queue.messages, queue.bytes);
  }

  void FindLive();

  LedgerBatch current_;
  std::vector<LedgerQueue*> live_;
  std::map<LedgerMessage*, size_t> touched_;
  std::vector<Undo> undo_;
  struct Pending {
    Lsn lsn = 0;
    std::vector<Undo> undo;
    std::vector<std::pair<std::pair<QueueId, Lane>, Seq>> bounds;
  };
  std::deque<Pending> pending_;
  std::vector<std::pair<std::pair<QueueId, Lane>, Seq>> bounds_;
  std::map<std::pair<QueueId, Hash128>, storage::DedupRow> dedup_;
  // By the numbers of their rows.
  std::map<uint64_t, std::string> exchange_rows_;
  std::map<uint64_t, Binding> binding_rows_;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_LEDGER_H_
