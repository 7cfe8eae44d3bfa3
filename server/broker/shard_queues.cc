// Making, changing, listing and removing queues.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

using storage::Family;
using storage::MetaType;

absl::Status QueueNotFound(const std::string& name) {
  return MakeError(ErrorReason::kQueueNotFound,
                   absl::StrCat("queue '", name, "' does not exist"));
}

absl::Status RevisionMismatch(const std::string& name) {
  return MakeError(ErrorReason::kEtagMismatch,
                   absl::StrCat("queue '", name, "' was changed meanwhile: read it again"));
}

void ApplyChange(const QueueConfigChange& change, QueueConfig& config) {
  config.name = change.name;
  if (change.lease_ms) config.lease_ms = *change.lease_ms;
  if (change.min_backoff_ms) config.retry.min_backoff_ms = *change.min_backoff_ms;
  if (change.max_backoff_ms) config.retry.max_backoff_ms = *change.max_backoff_ms;
  if (change.labels) config.labels = *change.labels;
}

absl::Status CheckConfig(const QueueConfig& config) {
  if (config.retry.min_backoff_ms > config.retry.max_backoff_ms) {
    return MakeFieldError("config.retry.min_backoff", "must not be more than max_backoff");
  }
  return absl::OkStatus();
}

// `*` any run of characters, `?` one. Linear in the text for each star.
bool GlobMatches(std::string_view glob, std::string_view text) {
  size_t g = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++g, ++t;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      mark = t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace

std::optional<int64_t> Shard::OldestReadyMs(Queue& queue, LaneState& lane) {
  if (lane.Ready() == 0) return std::nullopt;
  if (!lane.returned.empty()) {
    const OpenMessage& message = lane.open.at(*lane.returned.begin());
    if (message.publish_ms > 0) return message.publish_ms;
  }
  if (!lane.window.empty()) return lane.window.front().publish_ms;
  if (lane.peeked_publish_ms) return lane.peeked_publish_ms;
  if (!lane.reading && lane.HasMoreOnDisk()) {
    PageRequest request;
    request.peek = true;
    request.range = {queue.qid, lane.position.lane, lane.settled.NextUnsettled(lane.fetch_cursor),
                     lane.visible_end, 1, 1};
    StartRead(lane, std::move(request));
  }
  return std::nullopt;
}

QueueInfo Shard::Describe(Queue& queue, Now now) {
  QueueInfo info;
  info.config = queue.row.config;
  info.create_ms = queue.row.create_ms;
  info.update_ms = queue.row.update_ms;
  info.revision = queue.row.revision;
  info.counters = queue.counters;
  info.stats.consumers = static_cast<int32_t>(queue.consumers + queue.receivers);
  for (auto& lane : queue.lanes) {
    if (!lane) continue;
    info.stats.ready += static_cast<int64_t>(lane->Ready());
    info.stats.leased += static_cast<int64_t>(lane->leased);
    info.stats.delayed += static_cast<int64_t>(lane->waiting);
    info.stats.bytes += static_cast<int64_t>(lane->unsettled_bytes);
    if (const auto oldest_ms = OldestReadyMs(queue, *lane)) {
      info.stats.oldest_ready_age_ms =
          std::max(info.stats.oldest_ready_age_ms, now.engine_ms - *oldest_ms);
    }
  }
  return info;
}

void Shard::Do(CreateQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (!refused.ok()) return command.done(refused);
  QueueConfig wanted;
  ApplyChange(command.config, wanted);
  CreateQueueOutcome outcome;
  if (Queue* existing = FindQueue(command.config.name)) {
    // Only what the client set is compared.
    QueueConfig as_if_changed = existing->row.config;
    ApplyChange(command.config, as_if_changed);
    if (as_if_changed != existing->row.config) {
      return command.done(MakeError(
          ErrorReason::kConfigConflict,
          absl::StrCat("queue '", command.config.name, "' exists with another config")));
    }
    outcome.queue = Describe(*existing, now);
  } else {
    if (absl::Status status = CheckConfig(wanted); !status.ok()) return command.done(status);
    if (queues_.size() >= kQueuesMax) {
      return command.done(absl::ResourceExhaustedError(
          absl::StrCat("this server holds ", kQueuesMax, " queues, which is its limit")));
    }
    auto made = std::make_unique<Queue>();
    made->qid = boot_row_.next_qid++;
    made->row.config = std::move(wanted);
    made->row.create_ms = made->row.update_ms = now.engine_ms;
    // Numbers of queues are never reused: no etag of a deleted queue fits one made later.
    made->row.revision = (static_cast<uint64_t>(made->qid) << 32) + 1;
    batch_.Put(Family::kMeta, storage::QueueKey(options_.shard, made->qid),
               storage::EncodeQueue(made->row));
    Queue& queue = *made;
    by_qid_[queue.qid] = &queue;
    queues_[command.config.name] = std::move(made);
    outcome.queue = Describe(queue, now);
    outcome.created = true;
  }
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

void Shard::Do(GetQueueCommand& command, Now now) {
  Queue* queue = FindQueue(command.queue);
  if (!queue) return command.done(QueueNotFound(command.queue));
  AnswerWhenDurable(std::move(command.done), Describe(*queue, now));
}

void Shard::Do(ListQueuesCommand& command, Now now) {
  ListQueuesOutcome outcome;
  size_t scanned = 0;
  for (auto it = queues_.upper_bound(command.after_name); it != queues_.end(); ++it) {
    if (outcome.queues.size() == static_cast<size_t>(command.limit) ||
        scanned++ == kRowsScannedPerCallMax) {
      outcome.more = true;
      break;
    }
    outcome.last_name = it->first;
    if (!command.name_glob.empty() && !GlobMatches(command.name_glob, it->first)) continue;
    outcome.queues.push_back(Describe(*it->second, now));
  }
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

void Shard::Do(UpdateQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.config.name);
  if (refused.ok() && !queue) refused = QueueNotFound(command.config.name);
  if (refused.ok() && command.if_revision != 0 && command.if_revision != queue->row.revision) {
    refused = RevisionMismatch(command.config.name);
  }
  if (!refused.ok()) return command.done(refused);
  QueueConfig config = command.replace ? QueueConfig{} : queue->row.config;
  ApplyChange(command.config, config);
  if (absl::Status status = CheckConfig(config); !status.ok()) return command.done(status);
  if (config != queue->row.config) {
    queue->row.config = std::move(config);
    queue->row.update_ms = now.engine_ms;
    ++queue->row.revision;
    batch_.Put(Family::kMeta, storage::QueueKey(options_.shard, queue->qid),
               storage::EncodeQueue(queue->row));
  }
  AnswerWhenDurable(std::move(command.done), Describe(*queue, now));
}

void Shard::EndConsumersOf(Queue& queue, const absl::Status& status) {
  std::vector<SubscriptionId> ids;
  for (const auto& [id, consumer] : consumers_) {
    if (consumer->queue == &queue) ids.push_back(id);
  }
  for (const SubscriptionId id : ids) {
    Consumer& consumer = *consumers_.at(id);
    if (!consumer.IsReceive()) {
      EndSubscription(consumer, status);
      consumer.queue = nullptr;
      consumer.leases.clear();
      consumer.held.clear();
      consumer.unwritten_auto_acks.clear();
      continue;
    }
    ReceiveCommand::Done done = std::move(consumer.receive_done);
    RemoveConsumer(consumer);
    done(status);
  }
}

void Shard::Do(DeleteQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.queue);
  if (refused.ok() && !queue) refused = QueueNotFound(command.queue);
  if (refused.ok() && command.if_revision != 0 && command.if_revision != queue->row.revision) {
    refused = RevisionMismatch(command.queue);
  }
  if (refused.ok() && command.if_empty && queue->Unsettled() > 0) {
    refused = MakeError(ErrorReason::kNotEmpty,
                        absl::StrCat("queue '", command.queue, "' holds messages"));
  }
  if (refused.ok() && command.if_unused && queue->IsConsumed()) {
    refused = MakeError(ErrorReason::kInUse,
                        absl::StrCat("queue '", command.queue, "' has consumers"));
  }
  if (!refused.ok()) return command.done(refused);

  for (auto& lane : queue->lanes) {
    if (!lane) continue;
    for (auto& [seq, message] : lane->open) {
      const MessagePosition at = lane->At(seq);
      mono_timers_.Cancel({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
      engine_timers_.Cancel({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
      window_bytes_ -= message.payload.size();
    }
    ForgetOpen(*queue, lane->open.size());
    window_bytes_ -= lane->window_bytes;
  }
  EndConsumersOf(*queue, MakeError(ErrorReason::kQueueDeleted,
                                   absl::StrCat("queue '", command.queue, "' was deleted")));
  batch_.Delete(Family::kMeta, storage::QueueKey(options_.shard, queue->qid));
  for (const MetaType type : {MetaType::kAcks, MetaType::kLane, MetaType::kHistory}) {
    const storage::KeyRange range = storage::MetaRangeOfQueue(options_.shard, type, queue->qid);
    batch_.DeleteMetaRange(range.begin, range.end);
  }
  by_qid_.erase(queue->qid);
  queues_.erase(command.queue);
  ReplyWhenDurable([done = std::move(command.done)](const absl::Status& status) mutable {
    done(status);
  });
}

void Shard::PurgeLane(Queue& queue, LaneState& lane, bool include_leased, Now now) {
  std::vector<Seq> kept;
  std::vector<Seq> removed;
  for (auto& [seq, message] : lane.open) {
    if (message.state == OpenState::kLeased && !include_leased) {
      kept.push_back(seq);
    } else {
      removed.push_back(seq);
    }
  }
  std::sort(kept.begin(), kept.end());
  std::sort(removed.begin(), removed.end());
  for (const Seq seq : removed) {
    OpenMessage& message = lane.open.at(seq);
    Consumer* holder = FindConsumer(message.holder);
    if (message.state == OpenState::kLeased && holder && !holder->ended && !holder->IsReceive()) {
      const Receipt receipt{lane.At(seq), message.boot, message.delivery_count};
      holder->sink->OnLeaseLost({receipt}, ErrorReason::kMessageRemoved);
    }
    RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
    SettleMessage(queue, lane, seq, &message);
  }
  Seq from = lane.settled.head();
  for (const Seq seq : kept) {
    lane.settled.AddRange(from, seq);
    from = seq + 1;
  }
  lane.settled.AddRange(from, lane.next_seq);
  window_bytes_ -= lane.window_bytes;
  lane.window.clear();
  lane.window_bytes = 0;
  lane.fetch_cursor = lane.next_seq;
  lane.peeked_publish_ms.reset();
  lane.unsettled_bytes = 0;
  for (const Seq seq : kept) lane.unsettled_bytes += lane.open.at(seq).size_bytes;
  MarkDirty(queue, lane);
}

void Shard::Do(PurgeQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.queue);
  if (refused.ok() && !queue) refused = QueueNotFound(command.queue);
  if (!refused.ok()) return command.done(refused);
  int64_t purged = 0;
  for (auto& lane : queue->lanes) {
    if (!lane) continue;
    const uint64_t before = lane->Unsettled();
    if (command.dry_run) {
      purged += static_cast<int64_t>(before - (command.include_leased ? 0 : lane->leased));
      continue;
    }
    PurgeLane(*queue, *lane, command.include_leased, now);
    purged += static_cast<int64_t>(before - lane->Unsettled());
  }
  if (!command.dry_run) queue->counters.purged += static_cast<uint64_t>(purged);
  AnswerWhenDurable(std::move(command.done), purged);
}

}  // namespace sluice::broker
