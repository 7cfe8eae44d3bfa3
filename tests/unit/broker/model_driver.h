// Random operations on a shard, each first applied to the naive model and then checked against it.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_DRIVER_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_DRIVER_H_

#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_state.h"
#include "tests/unit/broker/model_world.h"

namespace sluice::broker {

inline constexpr int64_t kNsPerMs = 1'000'000;
// Steps after a clean stop in which a crash is likelier.
inline constexpr int kStepsAtRisk = 40;

class ModelDriver;

class ModelSink : public SubscriptionSink {
 public:
  explicit ModelSink(ModelDriver* driver) : driver_(driver) {}
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnDrained() override {}
  void OnEnd(absl::Status status) override;

  ModelConsumer model;
  bool started = false;
  uint64_t unreported_bytes = 0;  // delivered, and not yet said to be written

 private:
  ModelDriver* const driver_;
};

class ModelDriver {
 public:
  explicit ModelDriver(uint64_t seed)
      : seed_(seed), random_(seed), model_([this](const std::string& what) { Fail(what); }) {}

  void Run(uint64_t ops) {
    Boot();
    while (ops_ < ops && !failed_) Step();
    if (!failed_) DrainAll();
    std::printf("model: seed %llu, %llu operations, %llu deliveries (%llu again), %u boots\n",
                static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(ops_),
                static_cast<unsigned long long>(model_.deliveries),
                static_cast<unsigned long long>(model_.redeliveries), model_.boot);
    if (!failed_) {
      EXPECT_GT(model_.redeliveries, 0u);
    }
  }

  void Fail(const std::string& what) {
    if (!failed_) {
      ADD_FAILURE() << what << " [operation " << ops_ << " of SLUICE_MODEL_SEED=" << seed_ << "]";
    }
    failed_ = true;
  }
  NaiveModel& model() { return model_; }

 private:
  // Something asked of the shard whose answer has to wait for its turn's batch.
  struct Call {
    bool answered = false;
    uint64_t turn = 0;
    Lsn lsn = 0;  // 0: its turn is not over
  };
  using CallRef = std::shared_ptr<Call>;

  // --- chance
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return values.begin()[Below(values.size())];
  }
  std::string SomeName() { return absl::StrCat("q", Below(3)); }

  // --- time and turns
  Now now() const {
    return {(model_.now_ms - mono_origin_ms_) * kNsPerMs, model_.now_ms};
  }
  void Boot();
  void Step();
  void Turn();
  void Commit(size_t batches);
  void CommitAll() { Commit(world_.batches.size()); }
  void Serve(size_t reads);
  void RunUntilQuiet();
  void CheckNobodyStarves();
  void Crash();
  void CleanStop();
  void ForgetConsumers();
  void DrainAll();
  void CheckEmpty();

  CallRef NewCall() {
    auto call = std::make_shared<Call>();
    call->turn = model_.next_turn();
    calls_.push_back(call);
    return call;
  }
  void Answered(const CallRef& call) {
    if (call->answered) Fail("answered twice");
    call->answered = true;
    const Lsn lsn = call->lsn != 0 ? call->lsn : world_.shard->last_lsn();
    if (lsn > model_.durable_lsn) Fail("answered before its batch was durable");
  }

  // --- operations
  void DoPublish();
  void DoSubscribe();
  void DoClose();
  void DoReceive();
  void DoWritten();
  void DoSettle();
  void DoExtend();
  void DoPurge();
  void DoCreate();
  void DoDelete();
  void DoGet();
  void Publish(const std::string& name, int count);
  void Settle(ModelQueue& queue, std::vector<SettleItem> items);
  void Close(size_t index, size_t unwritten);
  Receipt SomeReceipt(ModelQueue& queue);
  Receipt Garble(Receipt receipt);
  void Remember(const OutgoingDelivery& delivery);
  void Check(bool ok, const std::string& what) {
    if (!ok) Fail(what);
  }

  friend class ModelSink;

  const uint64_t seed_;
  std::mt19937_64 random_;
  NaiveModel model_;
  ModelWorld world_;
  int64_t mono_origin_ms_ = 0;
  uint64_t ops_ = 0;
  bool failed_ = false;
  uint64_t next_body_ = 1;
  uint64_t next_consumer_ = 1;
  int applied_ = 0;  // commands of this step
  int steps_since_stop_ = kStepsAtRisk;
  std::vector<CallRef> calls_;
  std::vector<std::shared_ptr<ModelSink>> sinks_;
  std::vector<std::shared_ptr<ModelSink>> old_sinks_;  // kept so that late calls are noticed
  std::map<uint64_t, std::shared_ptr<ModelConsumer>> receives_;  // by call id
  std::vector<std::shared_ptr<ModelConsumer>> old_receives_;
  std::deque<Receipt> receipts_;  // shown lately, any message
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_DRIVER_H_
