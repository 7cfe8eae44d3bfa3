// Acks, nacks and publishes in one batch.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"

namespace sluice::broker {

void Shard::Do(TransactCommand& command, Now now) {
  if (absl::Status refused = RefuseWhenDraining(); !refused.ok()) return command.done(refused);
  std::vector<MessagePosition> resting;
  for (const auto* settles : {&command.acks, &command.nacks}) {
    for (const TransactCommand::Settle& settle : *settles) {
      if (const Queue* queue = FindQueue(settle.queue)) {
        CollectResting(*queue, settle.items, &resting);
      }
    }
  }
  if (!resting.empty()) {
    // They stay in memory: this may wait for more.
    return ReadResting(std::move(resting), /*only_due=*/false,
                       [this, command = std::move(command)](Now now) mutable { Do(command, now); });
  }
  for (auto* settles : {&command.acks, &command.nacks}) {
    for (TransactCommand::Settle& settle : *settles) {
      Queue* queue = FindQueue(settle.queue);
      if (!queue) continue;
      Unread unread = FindOutlines(*queue, settle.items, now);
      if (unread.seqs.empty()) continue;
      // The command is moved, its items stay where they are.
      return ReadBodies(*queue, unread.lane, std::move(unread.seqs), kPageBytesMax,
                        [this, lane = unread.lane, items = &settle.items,
                         command = std::move(command)](Queue*, Bodies bodies, Now now) mutable {
                          NoteOutlines(lane, bodies.messages, items);
                          Do(command, now);
                        });
    }
  }
  ParkedPublish attempt;
  // Waits for nobody but for what it has to look up itself.
  attempt.line = absl::StrCat("t", next_parked_id_);
  for (const Publish& publish : command.publishes) {
    for (const NewMessage& message : publish.messages) attempt.bytes += message.payload.size();
  }
  attempt.command = std::move(command);
  PublishOrPark(std::move(attempt), now);
}

// Changes nothing.
absl::Status Shard::PlanTransact(TransactCommand& command, const ParkedPublish* parked, Now now,
                                 PublishPlan* plan) {
  const auto check = [&](const char* field, std::vector<TransactCommand::Settle>& settles) {
    for (size_t i = 0; i < settles.size(); ++i) {
      const auto queue = GetQueue(settles[i].queue);
      if (!queue.ok()) return queue.status();
      for (size_t k = 0; k < settles[i].items.size(); ++k) {
        const auto found = FindHonoured(**queue, settles[i].items[k].receipt, now.mono_ns);
        if (found.ok()) {
          PlanSettle(**queue, settles[i].items[k], *found, plan);
          continue;
        }
        return MakeError(ReasonOf(found.status()),
                         absl::StrCat(field, "[", i, "] item ", k, ": ",
                                      found.status().message()));
      }
    }
    return absl::OkStatus();
  };
  absl::Status status = check("acks", command.acks);
  if (status.ok()) status = check("nacks", command.nacks);
  for (Publish& publish : command.publishes) {
    if (status.ok()) status = PlanPublish(publish, parked, now, plan);
  }
  // The whole is one commit: what leaves a queue makes room for what comes.
  for (auto& [qid, demand] : plan->demand) {
    const auto settling = plan->settling.find(qid);
    if (settling == plan->settling.end()) continue;
    demand.messages -= settling->second.leaving;
    demand.bytes -= settling->second.leaving_bytes;
  }
  return status;
}

void Shard::PlanSettle(const Queue& queue, const SettleItem& item, const Honoured& honoured,
                       PublishPlan* plan) {
  if (honoured.settled) return;
  LaneState& lane = *honoured.lane;
  const Seq seq = item.receipt.position.seq;
  PublishPlan::Settling& settling = plan->settling[queue.qid];
  if (!settling.messages.insert({lane.position.lane, seq}).second) return;
  if (item.action != SettleAction::kAck && item.action != SettleAction::kDiscard) return;
  ++settling.leaving;
  if (honoured.message) {
    settling.leaving_bytes += honoured.message->size_bytes;
  } else if (item.outline) {
    settling.leaving_bytes += item.outline->size_bytes;
  }
}

void Shard::ApplyTransact(TransactCommand& command, std::vector<PublishedMessage> published,
                          Now now) {
  for (auto* settles : {&command.acks, &command.nacks}) {
    for (const TransactCommand::Settle& settle : *settles) {
      Queue& queue = *FindQueue(settle.queue);
      for (const SettleItem& item : settle.items) {
        // Cannot fail: it was honoured just now, and the same receipt twice is OK.
        SettleOne(queue, item, now).IgnoreError();
      }
    }
  }
  std::vector<std::vector<PublishedMessage>> results;
  auto next = published.begin();
  for (const Publish& publish : command.publishes) {
    const auto end = next + static_cast<std::ptrdiff_t>(publish.messages.size());
    results.emplace_back(next, end);
    next = end;
  }
  AnswerWhenDurable(std::move(command.done), std::move(results));
}

}  // namespace sluice::broker
