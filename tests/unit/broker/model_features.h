// Random use of every feature of a shard at once, judged by the rules (model_rules.h).
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_FEATURES_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_FEATURES_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/broker/model_rules.h"
#include "tests/unit/broker/model_world.h"

namespace sluice::broker {

class FeatureDriver;

class FeatureSink : public SubscriptionSink {
 public:
  explicit FeatureSink(FeatureDriver* driver) : driver_(driver) {}
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnDrained() override;
  void OnEnd(absl::Status status) override;

  FeatureConsumer consumer;

 private:
  FeatureDriver* const driver_;
};

// A world that shows its batches to the model as they are made.
class FeatureWorld : public ModelWorld {
 public:
  explicit FeatureWorld(FeatureModel* model) : model_(model) {}
  void Append(storage::Batch batch) override {
    model_->OnBatch(batch);
    ModelWorld::Append(std::move(batch));
  }

 private:
  FeatureModel* const model_;
};

class FeatureDriver {
 public:
  explicit FeatureDriver(uint64_t seed)
      : seed_(seed),
        random_(seed),
        model_([this](const std::string& what) { Fail(what); },
               [this](const auto& visit) { ForEachConsumer(visit); }),
        world_(&model_) {}

  void Run(uint64_t ops);
  void Fail(const std::string& what);
  void Check(bool ok, const std::string& what) {
    if (!ok) Fail(what);
  }
  FeatureModel& model() { return model_; }
  uint64_t ops() const { return ops_; }
  uint64_t boots() const { return boots_; }
  bool failed() const { return failed_; }
  void Remember(const OutgoingDelivery& delivery);
  void ForEachConsumer(const std::function<void(FeatureConsumer&)>& visit);

 private:
  // Something asked of the shard whose answer has to come when its turn's batch is durable.
  struct Call {
    bool answered = false;
    bool may_wait = false;  // for reads, or for room
    Lsn lsn = 0;            // 0: its turn is not over
  };
  using CallRef = std::shared_ptr<Call>;

  // --- chance
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return values.begin()[Below(values.size())];
  }
  std::string SomeName();
  uint64_t SomeCaller();

  // --- time and turns
  Now now() const { return {(model_.now_ms - mono_origin_ms_) * kNsPerMs, model_.now_ms}; }
  void Boot();
  void Step();
  void Operate();
  void Turn();
  void Commit(size_t batches);
  void Serve(size_t reads);
  bool RunUntilQuiet();
  void CheckAtRest();
  void CheckLag();
  void CheckOldestAges();
  void CheckHeldByConsumers();
  void Crash();
  void CleanStop();
  void ForgetConsumers();
  void DrainAll();
  void FailLeft();
  void CheckStreamsEndIdle();
  CallRef NewCall(bool may_wait = false);
  void Answered(const CallRef& call);

  // --- operations: model_features_*.cc
  void DoPublish();
  void DoAbandon();
  void DoSubscribe();
  void DoReceive();
  void DoClose();
  void DoWritten();
  void DoSettle();
  void DoExtend();
  void DoGet();
  void DoPurge();
  void DoCreate();
  void DoDelete();
  void DoUpdate();
  void DoPause();
  void DoCredit();
  void DoDrain();
  void DoCloseConsumer();
  void DoListConsumers();
  void DoEdit();
  void DoList();
  void DoGetMessage();
  void DoTransact();
  void DoReceiveWritten();
  void DoSubscribeTemporary();
  // model_features_routes.cc
  void DoExchange();
  void DoBinding();
  void DoListRoutes();
  void DoDefinitions();
  void DoExport();
  // model_features_producers.cc
  void DoOpenProducer();
  void DoProduce();
  std::shared_ptr<const bool> ExpectEnd(OpenProducerCommand& command, ModelProducer& producer);
  void CheckStreamsOfProducers();
  NewMessage MakeMessage(PlannedMessage* planned);
  // `caller`: of a publish of its own; nothing: of one in a transaction.
  Publish MakePublish(std::shared_ptr<PlannedPublish>* planned, std::optional<uint64_t> caller);
  std::string LineOf(const Publish& publish, uint64_t caller) const;
  void MakeRoute(NewMessage& message, const std::string& exchange, PlannedMessage* planned);
  void CheckPublishResult(PlannedPublish& planned,
                          const absl::StatusOr<std::vector<PublishedMessage>>& result);
  std::string SomeExchange();
  Binding SomeBinding(const std::string& queue);
  ErrorReason RefusalOf(const Binding& binding) const;
  // Checks that the command comes to that, refused at once or done when it is durable.
  template <typename Command>
  void ApplyExpecting(Command command, ErrorReason expected, const char* what);
  struct ExpectedDefinitions;
  Definitions SomeDefinitions(bool prune);
  ExpectedDefinitions Expect(const Definitions& definitions, bool prune);
  QueueConfigChange SomeConfig(const std::string& name);
  Receipt SomeReceipt(const LedgerQueue& queue);
  std::optional<Receipt> SomeLiveReceipt();
  SettleItem SomeItem(const LedgerQueue& queue);
  LedgerMessage* SomeMessage(LedgerQueue& queue);
  struct Judged {
    Honour honour = Honour::kEither;
    MessagePosition at;
    Receipt receipt;
    SettleAction action = SettleAction::kAck;
    std::shared_ptr<Intent> intent;
  };
  Judged AskSettle(const LedgerQueue& queue, const SettleItem& item);
  void CheckSettleResult(const Judged& judged, ErrorReason reason);
  void Settle(const LedgerQueue& queue, std::vector<SettleItem> items);
  void Subscribe(SubscribeCommand command);
  void Close(size_t index, size_t unwritten);
  std::vector<ListedMessage> ListAll(const std::string& name);

  friend class FeatureSink;
  static constexpr int64_t kNsPerMs = 1'000'000;

  const uint64_t seed_;
  std::mt19937_64 random_;
  FeatureModel model_;
  FeatureWorld world_;
  int64_t mono_origin_ms_ = 0;
  uint64_t ops_ = 0;
  uint64_t boots_ = 0;
  bool failed_ = false;
  bool first_of_turn_ = true;  // nothing was decided that the log does not show
  bool deleted_now_ = false;   // a queue; the log does not show it yet
  std::vector<std::string> must_be_gone_;  // queues, after this turn
  uint64_t next_body_ = 1;
  uint64_t next_call_ = 1;
  uint64_t next_temporary_ = 1;
  struct ProducerStream {
    ModelProducer* producer = nullptr;
    uint64_t generation = 0;
    uint64_t stream = 0;
    int64_t next_sequence = 1;
    uint64_t caller = 0;
    std::shared_ptr<const bool> ended;  // it was told so
  };
  std::vector<ProducerStream> producer_streams_;  // of this boot
  struct Received {
    std::vector<Receipt> receipts;
    bool auto_ack = false;
  };
  std::deque<Received> received_;  // by calls, and not yet reported as written
  // Callers whose publishes may wait, the latest ones, each with what it asked for.
  struct Caller {
    uint64_t number = 0;
    std::vector<std::shared_ptr<PlannedPublish>> publishes;
  };
  std::deque<Caller> callers_;
  uint64_t next_caller_ = 1;
  std::vector<std::shared_ptr<PlannedPublish>> abandoned_;  // in this boot
  std::vector<CallRef> calls_;
  std::vector<std::shared_ptr<FeatureSink>> sinks_;
  std::vector<std::shared_ptr<FeatureSink>> old_sinks_;  // kept so that late calls are noticed
  std::map<uint64_t, std::shared_ptr<FeatureConsumer>> receives_;
  std::vector<std::shared_ptr<FeatureConsumer>> old_receives_;
  std::vector<std::pair<MessagePosition, uint64_t>> not_found_;  // with its body; by GetMessage
  std::deque<Receipt> receipts_;  // shown lately
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_FEATURES_H_
