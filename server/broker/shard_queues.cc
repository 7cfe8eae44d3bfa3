// Making, changing, listing and removing queues.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/glob.h"
#include "server/broker/config_plan.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

using storage::Family;
using storage::MetaType;

// Reads under way for statistics.
constexpr size_t kPeeksMax = 8;
// Of each lane that is purged: the first ones, which are those that were handed out before a crash.
constexpr size_t kPurgedRememberedMax = 1000;

absl::Status RevisionMismatch(const std::string& name) {
  return MakeError(ErrorReason::kEtagMismatch,
                   absl::StrCat("queue '", name, "' was changed meanwhile: read it again"));
}

}  // namespace

// ---- config

const QueueConfig* Shard::FindDeadLetterConfig(const std::string& name) {
  const Queue* queue = FindQueue(name);
  return queue && !queue->row.temporary ? &queue->row.config : nullptr;
}

absl::Status Shard::CheckConfig(const QueueConfig& config) {
  return CheckQueueConfig(config, "config", [this](const std::string& name) {
    return FindDeadLetterConfig(name);
  });
}

absl::StatusOr<QueueConfig> Shard::PlanQueue(const QueueConfigChange& change) {
  QueueConfig config;
  ApplyChange(change, config);
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  if (queues_.size() >= kQueuesMax) {
    return MakeError(
        ErrorReason::kLimitReached,
        absl::StrCat("this server holds ", kQueuesMax, " queues, which is its limit"));
  }
  return config;
}

void Shard::StoreQueueRow(Queue& queue) {
  batch_.Put(Family::kMeta, storage::QueueKey(options_.shard, queue.qid),
             storage::EncodeQueue(queue.row));
}

Queue& Shard::MakeQueue(QueueConfig config, bool temporary, Now now) {
  auto made = std::make_unique<Queue>();
  Queue& queue = *made;
  queue.qid = boot_row_.next_qid++;
  queue.row.config = std::move(config);
  queue.row.temporary = temporary;
  queue.row.create_ms = queue.row.update_ms = now.engine_ms;
  // Numbers of queues are never reused: no etag of a deleted queue fits one made later.
  queue.row.revision = (static_cast<uint64_t>(queue.qid) << 32) + 1;
  queue.last_used_ms = now.engine_ms;
  queues_.Add(std::move(made));
  StoreQueueRow(queue);
  ConfigChanged(queue, now);
  return queue;
}

absl::StatusOr<Queue*> Shard::MakeTemporaryQueue(const TemporaryQueueSpec& spec, Now now) {
  if (FindQueue(spec.config.name)) {
    return MakeError(ErrorReason::kConfigConflict, "the name of the temporary queue is taken");
  }
  absl::StatusOr<QueueConfig> config = PlanQueue(spec.config);
  if (!config.ok()) return config.status();
  for (const Binding& binding : spec.bindings) {
    if (absl::Status status = router_.CheckExchange(binding.exchange); !status.ok()) return status;
  }
  Queue& queue = MakeQueue(*std::move(config), /*temporary=*/true, now);
  for (const Binding& binding : spec.bindings) {
    if (absl::Status status = AddBinding(binding); !status.ok()) {
      RemoveQueue(queue, status);
      return status;
    }
  }
  return &queue;
}

void Shard::ChangeQueue(Queue& queue, QueueConfig config, Now now) {
  queue.row.config = std::move(config);
  queue.row.update_ms = now.engine_ms;
  ++queue.row.revision;
  StoreQueueRow(queue);
  ConfigChanged(queue, now);
}

// What the queue's runtime state takes from its config.
void Shard::ConfigChanged(Queue& queue, Now now) {
  queue.rate.Configure(queue.row.config.delivery_rate, now.mono_ns);
  if (queue.rate_timer_ns != 0) {
    mono_timers_.Cancel({queue.rate_timer_ns, TimerKind::kQueueRate, 0, queue.qid, 0});
    queue.rate_timer_ns = 0;
  }
  ResetTakers(queue);
  ScheduleIdleExpiry(queue, now);
  // A new dead-letter queue, or larger limits.
  RetryDying(queue);
  RoomMade(queue);
  Wake(queue);
}

std::string Shard::ReferrerOf(const Queue& queue) const {
  for (const auto& [name, other] : queues_) {
    if (other->row.config.dead_letter_queue == queue.row.config.name) return name;
  }
  return {};
}

// ---- queues that go when nobody uses them

void Shard::ScheduleIdleExpiry(Queue& queue, Now now) {
  if (queue.idle_timer_ms != 0) {
    engine_timers_.Cancel({queue.idle_timer_ms, TimerKind::kQueueIdle, 0, queue.qid, 0});
    queue.idle_timer_ms = 0;
  }
  const int64_t idle_ms = queue.row.config.idle_expiry_ms;
  if (idle_ms == 0) return;
  const int64_t used_ms = queue.IsConsumed() ? now.engine_ms : queue.last_used_ms;
  queue.idle_timer_ms = std::max(used_ms + idle_ms, now.engine_ms + 1);
  engine_timers_.Add({queue.idle_timer_ms, TimerKind::kQueueIdle, 0, queue.qid, 0});
}

void Shard::QueueIsIdle(Queue& queue, Now now) {
  queue.idle_timer_ms = 0;
  const int64_t idle_ms = queue.row.config.idle_expiry_ms;
  // To be named as a dead-letter queue is a use, and so is to be waited for.
  if (!ReferrerOf(queue).empty() || !queue.waiting_for_room.empty()) {
    queue.last_used_ms = now.engine_ms;
  }
  if (queue.IsConsumed() || now.engine_ms < queue.last_used_ms + idle_ms) {
    return ScheduleIdleExpiry(queue, now);
  }
  RemoveQueue(queue, QueueDeleted(queue.row.config.name));
}

// ---- commands

std::optional<int64_t> Shard::OldestReadyMs(Queue& queue, LaneState& lane) {
  if (lane.Ready() == 0) return std::nullopt;
  if (!lane.returned.empty()) {
    const OpenMessage& message = lane.open.at(*lane.returned.begin());
    if (message.ready_since_ms > 0) return message.ready_since_ms;
  }
  const Lane id = lane.position.lane;
  if (queue.groups && queue.groups->Candidate(id)) {
    const storage::StoredMessage& candidate = queue.groups->CandidateMessage(id);
    const int64_t since_ms = candidate.info.ReadySinceMs();
    if (since_ms > 0) return since_ms;
    // It was found by its group's index, which does not tell. What follows it is younger.
    WantPeek(queue, lane);
    if (candidate.seq < lane.loaded_end) return boot_begin_ms_;
    return std::nullopt;
  }
  if (const auto* front = lane.Front(&window_bytes_)) return front->info.ReadySinceMs();
  if (const auto since_ms = lane.FirstOnDiskReadySinceMs()) return since_ms;
  if (!lane.reading && lane.FirstOnDisk() < lane.visible_end) {
    WantPeek(queue, lane);
    if (lane.FirstOnDisk() < lane.loaded_end) return boot_begin_ms_;
  }
  return std::nullopt;
}

void Shard::WantPeek(Queue& queue, LaneState& lane) {
  if (std::exchange(lane.peek_wanted, true)) return;
  peeks_wanted_.push_back({queue.qid, lane.position.lane});
  StartPeeks();
}

// Few at a time: statistics must not get in the way of what consumers wait for.
void Shard::StartPeeks() {
  while (peeks_ < kPeeksMax && !peeks_wanted_.empty()) {
    const auto [qid, lane_id] = peeks_wanted_.front();
    peeks_wanted_.pop_front();
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    LaneState& lane = *queue->lanes[lane_id];
    lane.peek_wanted = false;
    if (queue->groups && queue->groups->Candidate(lane_id)) {
      if (queue->groups->CandidateMessage(lane_id).info.ReadySinceMs() == 0) {
        PeekCandidate(*queue, lane);
      }
      continue;
    }
    const bool known = !lane.window.empty() || lane.FirstOnDiskReadySinceMs();
    if (!known && !lane.reading && lane.FirstOnDisk() < lane.visible_end) StartPeek(*queue, lane);
  }
}

void Shard::StartPeek(Queue& queue, LaneState& lane) {
  ReadRequest request;
  request.range = {queue.qid, lane.position.lane, lane.FirstOnDisk(),
                   lane.visible_end, 1, 1};
  if (queue.groups) request.range.skip_groups = queue.groups->SkippedGroups(lane.position.lane);
  lane.reading = true;
  ++peeks_;
  StartRead(std::move(request),
            [this, qid = queue.qid, lane_id = lane.position.lane](ReadResult& result, Now) {
              --peeks_;
              if (Queue* queue = FindQueue(qid)) {
                LaneState& lane = *queue->lanes[lane_id];
                lane.reading = false;
                if (!result.messages.empty()) {
                  const storage::StoredMessage& first = result.messages.front();
                  lane.peeked = {first.seq, first.info.ReadySinceMs()};
                }
                Wake(*queue);
              }
              StartPeeks();
              return absl::OkStatus();
            });
}

// Nobody has to wait for this read: it brings what no hand-out needs.
void Shard::PeekCandidate(Queue& queue, LaneState& lane) {
  const Seq seq = *queue.groups->Candidate(lane.position.lane);
  ReadRequest request;
  request.range = {queue.qid, lane.position.lane, seq, seq + 1, 1, 1};
  lane.peek_wanted = true;  // asked for once only
  ++peeks_;
  StartRead(std::move(request),
            [this, qid = queue.qid, lane_id = lane.position.lane](ReadResult& result, Now) {
              --peeks_;
              if (Queue* queue = FindQueue(qid)) {
                queue->lanes[lane_id]->peek_wanted = false;
                for (storage::StoredMessage& message : result.messages) {
                  queue->groups->NoteInfo(lane_id, message.seq, std::move(message.info));
                }
              }
              StartPeeks();
              return absl::OkStatus();
            });
}

WaitReason Shard::WhyReadyWaits(Queue& queue, Now now) const {
  if (queue.row.paused) return WaitReason::kPaused;
  if (!queue.IsConsumed()) return WaitReason::kNoConsumer;
  if (queue.open_messages >= options_.open_messages_per_queue_max ||
      queue.waits_for_open_messages) {
    return WaitReason::kOpenLimit;
  }
  if (!queue.rate.HasToken(now.mono_ns)) return WaitReason::kRateLimited;
  if (queue.takers.empty()) {
    const auto waits_for_token = [this](SubscriptionId id) {
      return consumers_.at(id)->rate_timer_ns != 0;
    };
    const bool paced = std::any_of(queue.attached.begin(), queue.attached.end(), waits_for_token);
    return paced ? WaitReason::kRateLimited : WaitReason::kNoCredit;
  }
  return WaitReason::kBehindOthers;
}

QueueInfo Shard::Describe(Queue& queue, Now now) {
  QueueInfo info;
  info.config = queue.row.config;
  info.paused = queue.row.paused;
  info.create_ms = queue.row.create_ms;
  info.update_ms = queue.row.update_ms;
  info.revision = queue.row.revision;
  info.qid = queue.qid;
  info.counters = queue.counters;
  info.now_ms = now.engine_ms;
  QueueStats& stats = info.stats;
  stats.consumers = static_cast<int32_t>(queue.Consumers());
  size_t waiting = 0;
  for (Lane id = 0; id < kImmediateLanes; ++id) {
    LaneState* lane = queue.lanes[id].get();
    if (!lane) continue;
    const uint64_t blocked = queue.Blocked(id);
    stats.ready += static_cast<int64_t>(lane->Ready() - blocked);
    stats.leased += static_cast<int64_t>(lane->leased);
    stats.delayed += static_cast<int64_t>(lane->waiting);
    stats.blocked += static_cast<int64_t>(blocked + lane->dying);
    stats.dying += static_cast<int64_t>(lane->dying);
    waiting += lane->waiting;
    if (const auto oldest_ms = OldestReadyMs(queue, *lane)) {
      stats.oldest_ready_age_ms = std::max(stats.oldest_ready_age_ms, now.engine_ms - *oldest_ms);
    }
  }
  stats.bytes = static_cast<int64_t>(queue.Bytes());
  const LaneState* delayed = queue.lanes[kDelayedLane].get();
  if (delayed) stats.delayed += static_cast<int64_t>(delayed->Unsettled());

  if (stats.ready > 0) info.waiting.push_back(WhyReadyWaits(queue, now));
  if (delayed && delayed->Unsettled() > 0) info.waiting.push_back(WaitReason::kNotDue);
  if (waiting > 0) info.waiting.push_back(WaitReason::kRetryBackoff);
  if (stats.leased > 0) info.waiting.push_back(WaitReason::kLeased);
  if (stats.blocked > stats.dying) info.waiting.push_back(WaitReason::kGroupBlocked);
  // Those that found no room may have gone in other ways since.
  const bool some_wait = stats.dying > 0 || expiry_.Holds(queue.qid);
  if (queue.dead_letters_wait && some_wait) {
    info.waiting.push_back(WaitReason::kDeadLetterQueueFull);
  }
  return info;
}

void Shard::Do(CreateQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (!refused.ok()) return command.done(refused);
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
    absl::StatusOr<QueueConfig> config = PlanQueue(command.config);
    if (!config.ok()) return command.done(config.status());
    outcome.queue = Describe(MakeQueue(*std::move(config), /*temporary=*/false, now), now);
    outcome.created = true;
  }
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

void Shard::Do(GetQueueCommand& command, Now now) {
  const auto queue = GetQueue(command.queue);
  if (!queue.ok()) return command.done(queue.status());
  AnswerWhenDurable(std::move(command.done), Describe(**queue, now));
}

void Shard::Do(ListQueuesCommand& command, Now now) {
  ListQueuesOutcome outcome;
  size_t scanned = 0;
  for (auto it = queues_.After(command.after_name); it != queues_.end(); ++it) {
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
  if (config != queue->row.config) ChangeQueue(*queue, std::move(config), now);
  AnswerWhenDurable(std::move(command.done), Describe(*queue, now));
}

void Shard::Do(PauseQueueCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.queue);
  if (refused.ok() && !queue) refused = QueueNotFound(command.queue);
  if (!refused.ok()) return command.done(refused);
  if (queue->row.paused != command.paused) {
    queue->row.paused = command.paused;
    queue->row.update_ms = now.engine_ms;
    ++queue->row.revision;
    StoreQueueRow(*queue);
    Wake(*queue);
  }
  AnswerWhenDurable(std::move(command.done), Describe(*queue, now));
}

// They take nothing from now on, and are told when it is true for good.
void Shard::EndConsumersOf(Queue& queue, const absl::Status& status) {
  for (const SubscriptionId id : std::exchange(queue.attached, {})) {
    Consumer& consumer = *consumers_.at(id);
    const bool ended = consumer.ended;
    if (!ended) LeaveQueue(consumer);
    consumer.queue = nullptr;
    consumer.owns_queue = false;
    consumer.ended = true;
    if (consumer.IsReceive()) {
      ReplyWhenDurable([done = std::move(consumer.receive_done),
                        status](const absl::Status& durable) mutable {
        done(durable.ok() ? status : durable);
      });
      RemoveConsumer(consumer);
      continue;
    }
    consumer.leases.clear();
    consumer.held.clear();
    consumer.outbox.clear();
    consumer.unwritten_auto_acks.clear();
    if (ended) continue;
    ReplyWhenDurable([this, id, status](const absl::Status& durable) {
      if (Consumer* consumer = FindConsumer(id)) {
        consumer->sink->OnEnd(durable.ok() ? status : durable);
      }
    });
  }
}

void Shard::RemoveQueue(Queue& queue, const absl::Status& why) {
  for (auto& lane : queue.lanes) {
    if (!lane) continue;
    for (auto& [seq, message] : lane->open) {
      const MessagePosition at = lane->At(seq);
      mono_timers_.Cancel({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
      engine_timers_.Cancel({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
      window_bytes_ -= message.payload.size();
    }
    if (lane->due_timer_ms != 0) {
      const MessagePosition& at = lane->position;
      engine_timers_.Cancel({lane->due_timer_ms, TimerKind::kDue, at.lane, at.qid, 0});
    }
    ForgetOpen(queue, lane->open.size());
    window_bytes_ -= lane->window_bytes;
  }
  if (queue.groups) window_bytes_ -= queue.groups->DropPayloads();
  if (queue.idle_timer_ms != 0) {
    engine_timers_.Cancel({queue.idle_timer_ms, TimerKind::kQueueIdle, 0, queue.qid, 0});
  }
  if (queue.rate_timer_ns != 0) {
    mono_timers_.Cancel({queue.rate_timer_ns, TimerKind::kQueueRate, 0, queue.qid, 0});
  }
  EndConsumersOf(queue, why);
  RemoveBindingsOf(queue);
  RemoveProducersOf({.is_exchange = false, .number = queue.qid});
  batch_.Delete(Family::kMeta, storage::QueueKey(options_.shard, queue.qid));
  for (const MetaType type : {MetaType::kAcks, MetaType::kLane, MetaType::kHistory}) {
    const storage::KeyRange range = storage::MetaRangeOfQueue(options_.shard, type, queue.qid);
    batch_.DeleteMetaRange(range.begin, range.end);
  }
  // Those who waited for room in it find that it is gone.
  for (const uint64_t id : queue.waiting_for_room) {
    ParkedPublish& attempt = *parked_.at(id);
    attempt.awaits.erase(std::find(attempt.awaits.begin(), attempt.awaits.end(), queue.qid));
    orphaned_.insert(id);
  }
  queues_.Remove(queue);
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
  if (refused.ok()) {
    if (const std::string referrer = ReferrerOf(*queue); !referrer.empty()) {
      refused = MakeError(ErrorReason::kInUse, absl::StrCat("queue '", command.queue,
                                                            "' is the dead-letter queue of '",
                                                            referrer, "'"));
    }
  }
  if (!refused.ok()) return command.done(refused);
  RemoveQueue(*queue, QueueDeleted(command.queue));
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
    if (message.state == OpenState::kLeased) {
      TellLeaseLost(message.holder, {lane.At(seq), message.boot, message.delivery_count},
                    ErrorReason::kMessageRemoved);
    }
    RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
    Leave(queue, lane, seq, message.size_bytes, message.group_hash);
  }
  // Of messages that an earlier boot may have handed out the receipts are out as well.
  const Seq handed_out = std::min(lane.crash_bound, lane.next_seq);
  size_t remembered = 0;
  for (Seq seq = lane.settled.NextUnsettled(lane.settled.head());
       seq < handed_out && remembered < kPurgedRememberedMax;
       seq = lane.settled.NextUnsettled(seq + 1)) {
    if (lane.open.contains(seq) || lane.resting.Contains(seq)) continue;
    RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
    ++remembered;
  }
  const Lane id = lane.position.lane;
  if (queue.groups && id != kDelayedLane) window_bytes_ -= queue.groups->ClearLane(id);
  for (Seq seq = lane.resting.Next(0); seq != SeqSet::kNone && remembered < kPurgedRememberedMax;
       seq = lane.resting.Next(seq + 1)) {
    RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
    ++remembered;
  }
  ForgetResting(lane, kept);
  if (lane.due) {
    lane.due->Clear();
    ScheduleDue(queue, lane);
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
  lane.unsettled_bytes = 0;
  for (const Seq seq : kept) lane.unsettled_bytes += lane.open.at(seq).size_bytes;
  MarkDirty(queue, lane);
  RoomMade(queue);
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
