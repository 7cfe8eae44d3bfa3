// What batches may do to messages.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {
namespace {

// Of LikenessOfCopy.
constexpr int kLikenessMax = 6;

bool SameDeaths(const MessageInfo& a, const MessageInfo& b) {
  static const Deaths kNone;
  const Deaths& of_a = a.origin ? a.origin->deaths : kNone;
  const Deaths& of_b = b.origin ? b.origin->deaths : kNone;
  return of_a == of_b;
}

}  // namespace

// How well one is what became of the other: there may be several of an id. 0: not at all.
int FeatureModel::LikenessOfCopy(const LedgerMessage& message, const LedgerMessage& copy,
                                 int64_t time_ms) {
  if (copy.body != message.body) return 0;
  const bool same_deaths = SameDeaths(copy.info, message.info);
  if (copy.queue == message.queue) {
    const bool joins = (message.at.lane == kDelayedLane && copy.at.lane != kDelayedLane) ||
                       Has(message, {Why::kReschedule});
    if (!same_deaths || !joins) return same_deaths ? 1 : 0;
    const bool same_times = copy.info.expire_ms == message.info.expire_ms &&
                            copy.info.due_ms == message.info.due_ms;
    if (same_times) return kLikenessMax;
    // At another time than asked for it can hardly be its own, but nothing else is left for it.
    return IsPutOffTo(message, copy, time_ms)    ? kLikenessMax - 1
           : Has(message, {Why::kReschedule}) ? 1
                                              : 0;
  }
  if (!same_deaths) {
    const Deaths& deaths = copy.info.origin->deaths;
    if (deaths.empty() || deaths.front().queue != message.queue->name()) return 0;
    // Of the wrong death it can hardly be its own; to have expired tells two of an id apart.
    const bool by_time = deaths.front().reason == DeathReason::kExpired;
    const bool expired = message.info.expire_ms != 0 && message.info.expire_ms <= time_ms;
    if (by_time && !expired) return 1;
    // Those before the last one, unless it is counted with one of them.
    static const Deaths kNone;
    const Deaths& before = message.info.origin ? message.info.origin->deaths : kNone;
    const bool all = std::equal(before.begin(), before.end(), deaths.begin() + 1, deaths.end());
    return (all ? 4 : 3) + (by_time ? 1 : 0);
  }
  if (!Has(message, {Why::kMove}) || !HasTimesOfMoved(message, copy, time_ms)) return 0;
  // In a queue that has gone it can be of one that was there, and that the batch does not tell of.
  return IsMovedTo(message, copy) ? 2 : copy.queue->exists ? 1 : 0;
}

bool FeatureModel::Has(const LedgerMessage& message, std::initializer_list<Why> whys) {
  for (const auto& intent : message.intents) {
    if (std::find(whys.begin(), whys.end(), intent->why) != whys.end()) return true;
  }
  return false;
}

// Of the configs that were in force during the turn, one will do.
bool FeatureModel::Allows(QueueId qid, const std::function<bool(const QueueConfig&)>& rule) const {
  if (rule(ledger.queues.at(qid).row.config)) return true;
  const auto recent = recent_configs_.find(qid);
  return recent != recent_configs_.end() &&
         std::any_of(recent->second.begin(), recent->second.end(), rule);
}

void FeatureModel::OnBatch(const storage::Batch& appended) {
  const LedgerBatch& batch = ledger.Apply(appended);
  if (!ledger.error.empty()) return Fail(ledger.error);
  if (batch.lsn != appended_lsn + 1) Fail("lsns do not rise by one");
  appended_lsn = batch.lsn;
  for (const auto& [qid, row] : batch.queue_rows_before) NoteConfig(qid, row.config);
  routing_before_ = batch.routing_changed ? batch.routing_before : ledger.routing;
  if (batch.routing_changed) ++routing_version_;
  producers_before_ = batch.producers_before;
  for (ModelProducer& producer : producers) producer.last_in_batch = 0;
  std::multimap<std::pair<uint64_t, Seq>, LedgerMessage*> copies;
  const auto key = [](const MessagePosition& id) {
    return std::pair<uint64_t, Seq>{uint64_t{id.qid} << 8 | id.lane, id.seq};
  };
  for (LedgerMessage* added : batch.added) {
    added->stored_boot = boot;
    if (added->info.origin && !IsFanOutCopy(*added)) copies.insert({key(added->id), added});
  }
  // The likest first: twins of an id may move in one batch.
  std::map<const Change*, LedgerMessage*> copy_of;
  std::set<LedgerMessage*> matched;
  for (int likeness = kLikenessMax; likeness > 0; --likeness) {
    for (const Change& change : batch.changed) {
      if (!change.message->state.settled || copy_of.contains(&change)) continue;
      const auto range = copies.equal_range(key(change.message->id));
      for (auto it = range.first; it != range.second; ++it) {
        // One that was itself moved on in this batch has its copy behind it.
        const bool later = !change.is_new || it->second->order > change.message->order;
        if (it->second == change.message || !later || matched.contains(it->second) ||
            LikenessOfCopy(*change.message, *it->second, batch.time_ms) != likeness) {
          continue;
        }
        copy_of[&change] = it->second;
        matched.insert(it->second);
        break;
      }
    }
  }
  for (const Change& change : batch.changed) {
    const auto found = copy_of.find(&change);
    LedgerMessage* copy = found == copy_of.end() ? nullptr : found->second;
    // What only joins or is put off keeps its place among those of its id.
    if (copy && copy->queue == change.message->queue) copy->has_twin = change.message->has_twin;
    if (copy && copy->queue != change.message->queue) NoteTwins(*copy);
    CheckChange(change, copy, batch.time_ms);
    changed_now_.insert(change.message);
  }
  for (LedgerMessage* added : batch.added) {
    if (matched.contains(added)) continue;
    // Where it was has gone with its queue.
    const bool moved = added->info.origin && !IsFanOutCopy(*added);
    if (!moved || batch.queues_gone.empty()) CheckPublished(*added, batch.time_ms);
  }
  CheckLines(batch);
  CheckFanOuts(batch.time_ms);
  CheckQueueRows(batch);
  CheckRoom(batch);
  for (const LedgerMessage* dropped : std::exchange(dropped_, {})) CheckDroppedFirst(*dropped);
}

void FeatureModel::CheckChange(const Change& change, LedgerMessage* copy, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const bool live = message.leased && message.until_ms > time_ms;
  const bool ends = message.state.settled || message.state.row.lease_until_ms == 0;
  if (live && ends && message.intents.size() == 1) {
    message.intents.front()->done_lsn = appended_lsn;
  }
  if (message.state.settled) {
    CheckSettled(change, copy, time_ms);
    leaving_.push_back(&message);
    EndLease(message);
    message.removed_boot = boot;
    message.removed_ms = time_ms;
    return;
  }
  CheckRow(change, time_ms);
  if (message.state.row.lease_until_ms == 0) EndLease(message);
}

// ---- settled

void FeatureModel::CheckSettled(const Change& change, LedgerMessage* copy, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const bool live = message.leased && message.until_ms > time_ms;
  const bool asked = !message.intents.empty();
  message.state.unsure = asked;
  if (!copy) return CheckGone(change, time_ms);
  message.state.removed = true;
  if (copy->body != message.body || copy->bytes != message.bytes ||
      copy->info.group_hash != message.info.group_hash || copy->id != message.id) {
    Fail(message, "its copy differs");
  }
  if (copy->priority != message.priority) Fail(message, "its copy has another priority");
  if (live && !asked) Fail(message, "moved while it was leased");
  if (copy->queue == message.queue) {
    if (!SameDeaths(copy->info, message.info)) Fail(message, "deaths changed");
    if (message.at.lane == kDelayedLane && !Has(message, {Why::kReschedule})) {
      return CheckJoin(message, *copy, time_ms);
    }
    return CheckReschedule(message, *copy, time_ms);
  }
  if (Has(message, {Why::kMove}) && SameDeaths(copy->info, message.info)) {
    return CheckMoved(message, *copy, time_ms);
  }
  CheckDeadLetter(change, *copy, time_ms);
}

void FeatureModel::CheckJoin(const LedgerMessage& message, const LedgerMessage& copy,
                             int64_t time_ms) {
  ++seen["joined"];
  if (message.info.due_ms > time_ms) Fail(message, "joined before it was due");
  if (copy.at.lane == kDelayedLane) Fail(message, "delayed again");
  if (message.has_twin) return;  // it may be the other one's copy
  if (copy.info.expire_ms != message.info.expire_ms) Fail(message, "expiry changed by joining");
  if (copy.info.due_ms != message.info.due_ms) Fail(message, "joined with another due time");
}

// One of the times that were asked for.
bool FeatureModel::IsPutOffTo(const LedgerMessage& message, const LedgerMessage& copy,
                              int64_t time_ms) {
  return std::any_of(message.intents.begin(), message.intents.end(), [&](const auto& intent) {
    if (intent->why != Why::kReschedule) return false;
    const int64_t due_ms = intent->delay_ms > 0 ? time_ms + intent->delay_ms
                                                : intent->deliver_at_ms;
    return copy.info.due_ms == std::max(due_ms, time_ms);
  });
}

void FeatureModel::CheckReschedule(const LedgerMessage& message, const LedgerMessage& copy,
                                   int64_t time_ms) {
  ++seen["rescheduled"];
  bool found = IsPutOffTo(message, copy, time_ms);
  // Its time may also have come meanwhile.
  found |= message.at.lane == kDelayedLane && message.info.due_ms <= time_ms &&
           copy.info.due_ms == message.info.due_ms;
  // Which of twins became which copy is not told.
  if (!found && !message.has_twin) {
    Fail(message, absl::StrCat("stored again, due at ", copy.info.due_ms));
  }
}

// One of the queues that were asked for.
bool FeatureModel::IsMovedTo(const LedgerMessage& message, const LedgerMessage& copy) {
  return std::any_of(message.intents.begin(), message.intents.end(), [&](const auto& intent) {
    if (intent->why != Why::kMove) return false;
    std::string to = intent->to_queue;
    if (to.empty() && message.info.origin && !message.info.origin->deaths.empty()) {
      to = message.info.origin->deaths.front().queue;
    }
    return copy.queue->name() == to;
  });
}

// What has died starts anew, the rest keeps its times; nothing comes before it is due.
bool FeatureModel::HasTimesOfMoved(const LedgerMessage& message, const LedgerMessage& copy,
                                   int64_t time_ms) {
  const bool died = message.info.origin && !message.info.origin->deaths.empty();
  int64_t due_ms =
      message.at.lane == kDelayedLane ? message.info.due_ms : message.NotBeforeMs();
  if (!died && message.info.expire_ms != 0) due_ms = std::min(due_ms, message.info.expire_ms);
  const bool later = due_ms > time_ms;
  return copy.info.expire_ms == (died ? 0 : message.info.expire_ms) &&
         copy.info.due_ms == (later ? due_ms : died ? 0 : message.info.due_ms) &&
         (copy.at.lane == kDelayedLane) == later;
}

void FeatureModel::CheckMoved(const LedgerMessage& message, const LedgerMessage& copy,
                              int64_t time_ms) {
  ++seen["moved"];
  if (!IsMovedTo(message, copy)) Fail(message, "moved to another queue than asked for");
  if (!HasTimesOfMoved(message, copy, time_ms)) Fail(message, "moved with other times");
  if (message.info.group_hash == 0) return;
  if (message.NotBeforeMs() > time_ms) Fail(message, "moved while its group waits for its retry");
  for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
    for (const auto& [seq, other] : message.queue->lanes[lane].unsettled) {
      const bool is_out = other->leased ? other->until_ms > time_ms : other->NotBeforeMs() > time_ms;
      const bool just_now = changed_now_.contains(other) ||
                            std::any_of(granted_.begin(), granted_.end(),
                                        [&](const Grant& grant) { return grant.message == other; });
      if (other->info.group_hash == message.info.group_hash && is_out && !just_now &&
          other->ShownNow(boot) && other->intents.empty()) {
        return Fail(message, "moved past one of its group");
      }
    }
  }
}

void FeatureModel::CheckDeadLetter(const Change& change, const LedgerMessage& copy,
                                   int64_t time_ms) {
  const LedgerMessage& message = *change.message;
  if (!Allows(message.at.qid, [&](const QueueConfig& config) {
        return config.dead_letter_queue == copy.queue->name();
      })) {
    return Fail(message, absl::StrCat("moved to ", copy.queue->name(),
                                      ", which is not its dead-letter queue"));
  }
  if (copy.info.expire_ms != 0 || copy.info.due_ms != 0) Fail(message, "dead, but has a time");
  if (!copy.info.origin || copy.info.origin->deaths.empty()) return Fail(message, "no death");
  const Death& death = copy.info.origin->deaths.front();
  Deaths expected = message.info.origin ? message.info.origin->deaths : Deaths();
  Death added;
  added.queue = message.queue->name();
  added.reason = death.reason;
  added.attempts = change.before.has_row ? change.before.row.attempt - 1 : 0;
  if (!change.before.has_row && message.state.has_row) added.attempts = death.attempts;
  added.first_ms = added.last_ms = time_ms;
  added.detail = death.detail;
  AddDeath(added, expected);
  if (!(expected == copy.info.origin->deaths)) {
    Fail(message, absl::StrCat("its deaths are wrong: attempts ", death.attempts, " instead of ",
                               added.attempts));
  }
  if (change.before.has_row && change.before.row.death != DeathReason::kUnspecified) {
    if (death.reason != change.before.row.death) Fail(message, "died of another reason");
    if (death.detail != change.before.row.detail) {
      Fail(message, "its death tells another detail");
    }
  } else {
    CheckDeath(change, death.reason, time_ms);
  }
  if (death.reason == DeathReason::kAttempts) change.message->may_have_been_held = true;
  static const char* const kNames[] = {"", "died: attempts", "died: rejected", "died: expired",
                                       "died: overflow"};
  change.message->left_as = kNames[static_cast<int>(death.reason)];
  ++seen[kNames[static_cast<int>(death.reason)]];
}

// Without a copy: acked, discarded, purged, deleted, or dead where nobody wants it.
void FeatureModel::CheckGone(const Change& change, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  if (Has(message, {Why::kAck, Why::kDiscard})) {
    message.state.unsure = message.intents.size() > 1 || !message.intents.front()->certain;
    return;
  }
  message.state.removed = true;
  message.left_as = "purged or deleted";
  // Or its only attempt has failed unseen just before.
  message.may_have_been_held |= Allows(message.at.qid, [&](const QueueConfig& config) {
    return config.retry.max_attempts == change.before.row.attempt;
  });
  if (Has(message, {Why::kPurge, Why::kDelete})) return;
  message.left_as = "dead";
  const bool exhausted =
      MayHaveFailed(change, time_ms) && Allows(message.at.qid, [&](const QueueConfig& config) {
        return config.retry.max_attempts > 0 && config.retry.discard_when_exhausted &&
               change.before.row.attempt >= config.retry.max_attempts;
      });
  const bool unwanted = Allows(message.at.qid, [](const QueueConfig& config) {
    return config.dead_letter_queue.empty();
  });
  if (!unwanted && exhausted) {
    ++seen["exhausted away beside a dead-letter queue"];
    message.left_as = "exhausted";
    message.may_have_been_held = true;
    return;
  }
  if (!unwanted) return Fail(message, "gone instead of to its dead-letter queue");
  if (Has(message, {Why::kDeadLetter})) return;
  if (change.before.has_row && change.before.row.death != DeathReason::kUnspecified) return;
  const int64_t expire_ms = message.info.expire_ms;
  if (expire_ms != 0 && expire_ms <= time_ms) {
    CheckDeath(change, DeathReason::kExpired, time_ms);
    ++seen["expired away"];
    return;
  }
  if (MayHaveFailed(change, time_ms) &&
      Allows(message.at.qid, [&](const QueueConfig& config) {
        return config.retry.max_attempts > 0 &&
               change.before.row.attempt >= config.retry.max_attempts;
      })) {
    ++seen["exhausted away"];
    message.left_as = "exhausted";
    message.may_have_been_held = true;
    return;
  }
  if (Allows(message.at.qid, [](const QueueConfig& config) {
        return config.overflow == Overflow::kDropHead;
      })) {
    ++seen["dropped away"];
    message.left_as = "dropped";
    return CheckDropped(message);
  }
  Fail(message, "gone without a reason");
}

bool FeatureModel::CheckDeath(const Change& change, DeathReason reason, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const auto fails = [&](const char* what) {
    Fail(message, what);
    return false;
  };
  const bool live = message.leased && message.until_ms > time_ms && message.intents.empty();
  switch (reason) {
    case DeathReason::kExpired:
      if (message.info.expire_ms == 0 || message.info.expire_ms > time_ms) {
        return fails("expired before its time");
      }
      if (live) return fails("expired while it was leased");
      return true;
    case DeathReason::kRejected:
      return Has(message, {Why::kDeadLetter}) || fails("rejected by nobody");
    case DeathReason::kAttempts:
      if (!MayHaveFailed(change, time_ms)) return fails("out of attempts, but did not fail");
      return Allows(message.at.qid,
                    [&](const QueueConfig& config) {
                      return config.retry.max_attempts > 0 &&
                             !config.retry.discard_when_exhausted &&
                             change.before.row.attempt >= config.retry.max_attempts;
                    }) ||
             fails("died before its attempts were used up, or instead of being discarded");
    case DeathReason::kOverflow:
      if (live) return fails("dropped while it was leased");
      CheckDropped(message);
      return true;
    case DeathReason::kUnspecified: break;
  }
  return fails("died for no reason");
}

// The oldest that nobody holds, of the lowest priority.
void FeatureModel::CheckDropped(LedgerMessage& message) {
  if (!Allows(message.at.qid, [](const QueueConfig& config) {
        return config.overflow == Overflow::kDropHead &&
               (config.max_length > 0 || config.max_bytes > 0);
      })) {
    return Fail(message, "dropped by a queue that does not drop");
  }
  dropped_.push_back(&message);
}

void FeatureModel::CheckDroppedFirst(const LedgerMessage& message) {
  if (!known_) return;
  const LedgerQueue& queue = *message.queue;
  // An older one may have found no room in its dead-letter queue where a smaller one does.
  const LedgerQueue* dead = ledger.Find(queue.row.config.dead_letter_queue);
  if (dead && (dead->row.config.max_bytes > 0 || dead->row.config.max_length > 0)) return;
  // Delayed ones come last.
  const bool delayed = message.at.lane == kDelayedLane;
  for (Lane lane = delayed ? 0 : message.at.lane; lane < kLanes; ++lane) {
    if (lane == kDelayedLane && !delayed) break;
    for (const auto& [seq, other] : queue.lanes[lane].unsettled) {
      if (lane == message.at.lane && seq >= message.at.seq) break;
      const Lsn since = std::max(other->stored_lsn, other->state.row_lsn);
      if (other->leased || other->Dying() || !other->intents.empty() ||
          changed_now_.contains(other) || since > read_through_lsn_) {
        continue;
      }
      // Room was made for a transaction that would have settled it, and was refused after all.
      if (withdrawn_now_.contains(other)) continue;
      // It may have been held back for a stream when it was decided what to read and drop, and have
      // come back unseen when that stream was closed.
      if (released_unseen_.contains(message.at.qid) && MayBeHeldUnseen(*other, other->state)) {
        continue;
      }
      // Unless it turns out to have been in somebody's hands.
      passed_over_[other] = now_ms;
      return;
    }
  }
}

// ---- not settled

// A hand-out that no consumer has seen yet, or ever will.
bool FeatureModel::MayBeHeldUnseen(const LedgerMessage& message,
                                   const LedgerMessage::State& state) const {
  if (!state.has_row) return !message.ShownNow(boot);
  const Receipt of_row{message.at, state.row.boot, state.row.delivery_count};
  return state.row.boot == boot && !(message.last && *message.last == of_row);
}

// Its last hand-out, by the end of an earlier boot.
bool FeatureModel::CutShort(const LedgerMessage::State& state) const {
  return state.has_row && state.row.held && state.row.boot != boot;
}

bool FeatureModel::MayHaveFailed(const Change& change, int64_t time_ms) const {
  const LedgerMessage& message = *change.message;
  if (message.leased && message.until_ms <= time_ms) return true;
  if (message.ran_out_while_down) return true;
  for (const auto& intent : message.intents) {
    const bool fails = intent->why == Why::kRetry || intent->why == Why::kDelay ||
                       intent->why == Why::kClosed || intent->why == Why::kDeadLetter;
    if (fails && (intent->was_leased || !intent->certain || CutShort(change.before))) return true;
  }
  return MayBeHeldUnseen(message, change.before);
}

void FeatureModel::CheckRow(const Change& change, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const storage::HistoryRow& row = message.state.row;
  const storage::HistoryRow& before = change.before.row;
  regranted_.insert(message.at.qid);
  const int32_t failures = row.attempt - (change.before.has_row ? before.attempt : 1);
  if (change.before.has_row && before.death != DeathReason::kUnspecified) {
    // Only its detail may still change.
    if (row.death != before.death || failures != 0) Fail(message, "changed after its death");
    return;
  }
  if (row.group_hash != message.info.group_hash &&
      (row.boot == boot || row.group_hash != 0)) {
    Fail(message, "its row has another group");
  }
  if (row.lease_until_ms > 0) {
    if (failures != 0) Fail(message, "failed by the saving of its lease");
    return;
  }
  if (failures < 0 || failures > change.row_puts) {
    return Fail(message, absl::StrCat("attempt ", row.attempt, " follows ", before.attempt));
  }
  if (failures > 0 && !MayHaveFailed(change, time_ms)) {
    Fail(message, "an attempt is counted that did not fail");
  }
  if (row.death != DeathReason::kUnspecified) {
    CheckDeath(change, row.death, time_ms);
    ++seen["dying"];
    return;
  }
  const uint32_t count = change.before.has_row      ? before.delivery_count
                         : message.ShownNow(boot)   ? message.last->delivery_count
                         : row.boot == boot         ? 0
                                                    : row.delivery_count;
  if (row.delivery_count == count + 1 && change.before.has_row) {
    return CheckRegranted(change, time_ms);
  }
  if (row.delivery_count > count + 1) return Fail(message, "delivery count skips");
  // Only the number of a hand-out that nobody has seen is used again.
  if (row.delivery_count < count && !MayBeHeldUnseen(message, change.before)) {
    return Fail(message, "delivery count goes back");
  }
  CheckReturned(change, time_ms);
}

void FeatureModel::CheckReturned(const Change& change, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const bool live = message.leased && message.until_ms > time_ms;
  if (live && message.intents.empty()) return Fail(message, "its lease was ended by nobody");
  const int64_t expire_ms = message.info.expire_ms;
  if (expire_ms != 0 && expire_ms <= time_ms && change.row_puts == 1 &&
      !Has(message, {Why::kDelay, Why::kReschedule})) {
    // Was a fresh hand-out that is told apart by its history.
    if (message.leased) Fail(message, "returned though it has expired");
  }
  CheckRetryTime(change, time_ms);
}

void FeatureModel::CheckRetryTime(const Change& change, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  const storage::HistoryRow& row = message.state.row;
  if (change.row_puts != 1 || message.intents.size() > 1) return;
  const int32_t attempt = change.before.has_row ? change.before.row.attempt : 1;
  const bool ran_out = message.leased && message.until_ms <= time_ms;
  if (message.intents.empty() || ran_out) {
    if (row.not_before_ms != 0 && message.intents.empty()) Fail(message, "waits for no reason");
    if (ran_out && message.intents.empty() && row.attempt != attempt + 1) {
      Fail(message, "its lease ran out, which is not counted");
    }
    return;
  }
  const Intent& intent = *message.intents.front();
  // Without a live lease a nack asks for nothing, or for a delay; what the turn did is a hand-out.
  const bool held = intent.was_leased || CutShort(change.before);
  if (!intent.certain || (!held && intent.why != Why::kDelay)) return;
  int64_t expected_ms = 0;
  switch (intent.why) {
    case Why::kRetry:
      if (!Allows(message.at.qid, [&](const QueueConfig& config) {
            return row.not_before_ms == time_ms + BackoffMs(config.retry, attempt);
          })) {
        Fail(message, absl::StrCat("its backoff is ", row.not_before_ms - time_ms));
      }
      if (row.attempt != attempt + 1) Fail(message, "its retry is not counted");
      return;
    case Why::kDelay:
      expected_ms = intent.delay_ms > 0 ? time_ms + intent.delay_ms : 0;
      if (row.attempt != attempt + (held ? 1 : 0)) {
        Fail(message, "its delayed retry is counted wrongly");
      }
      break;
    case Why::kRelease:
    case Why::kUnwritten:
      if (row.attempt != attempt) Fail(message, "a release counts as a failure");
      break;
    case Why::kClosed:
      if (row.attempt != attempt + 1) Fail(message, "the broken stream is not counted");
      break;
    default: return;
  }
  if (row.not_before_ms != expected_ms) Fail(message, "waits for another time");
}

// Its hand-out is in the batch before anybody sees it.
void FeatureModel::CheckRegranted(const Change& change, int64_t time_ms) {
  LedgerMessage& message = *change.message;
  if (change.row_puts > 1) return;
  const storage::HistoryRow& before = change.before.row;
  if (message.state.row.boot != boot) return Fail(message, "granted by another boot");
  if (message.leased) Fail(message, "granted again while it is leased");
  if (before.not_before_ms > time_ms) Fail(message, "granted before its retry time");
  if (message.info.expire_ms != 0 && message.info.expire_ms <= time_ms) {
    Fail(message, "granted though it has expired");
  }
  const LedgerQueue& queue = *message.queue;
  if (queue.row.paused && queue.paused_ms < time_ms) Fail(message, "granted while paused");
  CheckGroup(message, /*fresh=*/false);
}

}  // namespace sluice::broker
