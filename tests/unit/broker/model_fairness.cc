// Who is served first, and how fast.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {
namespace {

// A queue that was never deeper keeps all that came in this boot in memory.
constexpr int64_t kDepthInMemory = 60;
// Of heads of one lane before they are read: in turns that ask for the read.
constexpr int kPassesUnreadMax = 2;

}  // namespace

// ---- consumer priority

bool FeatureModel::MayTake(const FeatureConsumer& consumer, const LedgerMessage& message) const {
  if (!consumer.started || consumer.ended || consumer.gone || consumer.draining ||
      consumer.messages_left == 0 || consumer.max_bytes_in_flight == 0 ||
      consumer.rate.per_second > 0 ||
      consumer.unwritten_bytes >= static_cast<int64_t>(kUnwrittenReportBytes)) {
    return false;
  }
  if (static_cast<int32_t>(consumer.leases.size()) >= consumer.max_in_flight) return false;
  return consumer.leases.empty() ||
         consumer.bytes_in_flight + message.bytes <= consumer.max_bytes_in_flight;
}

// When the turn begins: credit that only came later may not have been there in time.
void FeatureModel::NoteCredit() {
  consumers_([](FeatureConsumer& consumer) {
    consumer.had_credit =
        consumer.id != 0 && !consumer.draining && consumer.max_bytes_in_flight > 0 &&
        static_cast<int32_t>(consumer.leases.size()) < consumer.max_in_flight;
  });
}

// A hand-out that has to wait for the disk holds back those that go with it, unseen.
bool FeatureModel::SomeWaitForTheDisk(const LedgerQueue& queue) const {
  return regranted_.contains(queue.qid) ||
         std::any_of(queue.lanes.begin(), queue.lanes.end(), [](const LedgerLane& lane) {
           return !lane.unsettled.empty() &&
                  lane.unsettled.rbegin()->first >= lane.durable_grant_bound;
         });
}

// Whatever it holds unseen, the consumer has credit for all that nobody is seen to hold.
bool FeatureModel::TakesAll(const FeatureConsumer& consumer, const LedgerQueue& queue) {
  auto count = static_cast<int32_t>(consumer.leases.size());
  int64_t bytes = consumer.bytes_in_flight;
  for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
    for (const auto& [seq, message] : queue.lanes[lane].unsettled) {
      if (message->leased && message->holder == &consumer) continue;
      ++count;
      bytes += message->bytes;
    }
  }
  return consumer.messages_left < 0 && count <= consumer.max_in_flight &&
         bytes <= consumer.max_bytes_in_flight;
}

// Nobody is served while one of a higher priority could take it.
void FeatureModel::CheckConsumerPriority() {
  if (!known_) return;
  for (const Grant& grant : granted_) {
    const LedgerMessage& message = *grant.message;
    const FeatureConsumer* holder = message.holder;
    if (!holder || holder->id == 0 || holder->gone || holder->ended ||
        recent_configs_.contains(message.at.qid) ||
        message.queue->row.config.single_active_consumer) {
      continue;
    }
    consumers_([&](const FeatureConsumer& other) {
      if (&other == holder || other.qid != holder->qid || other.priority <= holder->priority ||
          !other.had_credit || other.since_ms >= now_ms || !MayTake(other, message) ||
          (SomeWaitForTheDisk(*message.queue) && !TakesAll(other, *message.queue))) {
        return;
      }
      Fail(message, absl::StrCat("given to consumer ", holder->id, ", not to ", other.id,
                                 " of a higher priority"));
    });
    if (holder->priority > 0) ++seen["given by consumer priority"];
  }
}

// ---- priority aging

// Where one message was handed out alone, its lane was the first by what its head had waited.
void FeatureModel::CheckAging() {
  if (!known_) return;
  std::map<LedgerQueue*, std::vector<LedgerMessage*>> by_queue;
  for (const Grant& grant : granted_) by_queue[grant.message->queue].push_back(grant.message);
  for (const auto& [queue, messages] : by_queue) {
    const int64_t aging_ms = queue->row.config.priority_aging_ms;
    // What is not in memory does not count before it is: here all of it is.
    const bool in_memory = windows_are_large && queue->deepest < kDepthInMemory;
    if (aging_ms == 0 || messages.size() != 1 || !in_memory ||
        recent_configs_.contains(queue->qid)) {
      continue;
    }
    const LedgerMessage& granted = *messages.front();
    const auto rank = [&](const LedgerMessage& message) {
      const int64_t waited_ms = now_ms - message.info.publish_ms;
      return std::pair(std::min<int64_t>(kPriorityMax,
                                         PriorityOfLane(message.at.lane) + waited_ms / aging_ms),
                       -message.info.publish_ms);
    };
    for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
      const auto& unsettled = queue->lanes[lane].unsettled;
      const bool plain =
          std::none_of(unsettled.begin(), unsettled.end(), [&](const auto& entry) {
            const LedgerMessage& message = *entry.second;
            if (message.leased && message.intents.empty()) return false;
            return message.info.group_hash != 0 || message.state.has_row ||
                   message.stored_boot != boot;
          });
      if (!plain || granted.info.group_hash != 0) continue;
      for (const auto& [seq, message] : unsettled) {
        if (message == &granted || message->leased) continue;
        if (lane == granted.at.lane || message->stored_lsn > durable_before_ ||
            changed_now_.contains(message) || !message->intents.empty() || !IsReady(*message)) {
          break;
        }
        // Only where priority alone would say otherwise. A head that has to be read first counts
        // as new until then, so that now and then one is passed over: how often, the test says.
        // It may also have been given in this very turn, and be held back for the disk.
        const bool may_be_held =
            regranted_.contains(queue->qid) || seq >= queue->lanes[lane].durable_grant_bound;
        if (rank(*message) > rank(granted) && granted.at.lane < lane && !may_be_held) {
          ++seen["passed over though aged"];
          // A turn that passes it over asks for it to be read.
          if (nothing_is_read_ && ++aged_passes_[{queue->qid, lane}] > kPassesUnreadMax) {
            return Fail(*message, absl::StrCat("passed over though aged, by lane ",
                                               granted.at.lane, " seq ", granted.at.seq));
          }
        } else if (rank(granted) > rank(*message) && lane < granted.at.lane) {
          ++seen["given for its age"];
        }
        break;
      }
    }
  }
}

// ---- rates

// No stretch of time that ends with the last one has more than the rate allows.
bool FeatureModel::KeepsRate(const std::deque<int64_t>& grants, const RateLimit& rate,
                             int64_t since_ms) {
  for (size_t i = grants.size(); i > 0; --i) {
    if (grants[i - 1] <= since_ms) return true;
    const auto count = static_cast<double>(grants.size() - i + 1);
    const auto ms = static_cast<double>(grants.back() - grants[i - 1]);
    // A token may be due within the same millisecond.
    if (count > std::max(1, rate.burst) + rate.per_second * (ms + 1) / 1000) return false;
  }
  return true;
}

void FeatureModel::CheckRates(FeatureConsumer& consumer, LedgerMessage& message,
                              int64_t grant_ms) {
  constexpr size_t kRemembered = 64;
  const auto note = [&](std::deque<int64_t>& grants) {
    grants.insert(std::upper_bound(grants.begin(), grants.end(), grant_ms), grant_ms);
    if (grants.size() > kRemembered) grants.pop_front();
  };
  if (consumer.rate.per_second > 0) {
    note(consumer.grants);
    ++seen["given at a consumer's rate"];
    if (!KeepsRate(consumer.grants, consumer.rate, 0)) Fail(message, "given faster than the rate");
  }
  const storage::QueueRow& row = message.queue->row;
  if (row.config.delivery_rate.per_second <= 0 || recent_configs_.contains(message.at.qid)) return;
  std::deque<int64_t>& grants = queue_grants_[message.at.qid];
  note(grants);
  ++seen["given at a queue's rate"];
  if (!KeepsRate(grants, row.config.delivery_rate, row.update_ms)) {
    Fail(message, "given faster than its queue's rate");
  }
}

}  // namespace sluice::broker
