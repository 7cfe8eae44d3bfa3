#include "tests/unit/broker/model_ledger.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::broker {

using storage::Family;
using storage::MetaType;

LedgerQueue* Ledger::Find(const std::string& name) const {
  for (LedgerQueue* queue : live_) {
    if (queue->name() == name) return queue;
  }
  return nullptr;
}

void Ledger::FindLive() {
  live_.clear();
  for (auto& [qid, queue] : queues) {
    if (queue.exists) live_.push_back(&queue);
  }
}

LedgerMessage* Ledger::At(const MessagePosition& at) {
  const auto queue = queues.find(at.qid);
  if (at.shard != 0 || queue == queues.end() || at.lane >= kLanes || at.seq == 0) return nullptr;
  auto& all = queue->second.lanes[at.lane].all;
  return at.seq <= all.size() ? all[at.seq - 1].get() : nullptr;
}

const storage::DedupRow* Ledger::Dedup(QueueId qid, const Hash128& hash) const {
  const auto it = dedup_.find({qid, hash});
  return it == dedup_.end() ? nullptr : &it->second;
}

const LedgerBatch& Ledger::Apply(const storage::Batch& batch) {
  current_ = {};
  current_.lsn = batch.header().lsn;
  current_.time_ms = batch.header().log_time_ms;
  touched_.clear();
  undo_.clear();
  bounds_.clear();
  storage::BatchHeader header;
  if (!storage::Batch::Visit(batch.record(), &header, this).ok()) error = "a garbled batch";
  if (!current_.queue_rows_before.empty() || !current_.queues_gone.empty()) FindLive();
  pending_.push_back({current_.lsn, std::move(undo_), std::move(bounds_)});
  return current_;
}

void Ledger::Durable(Lsn lsn) {
  while (!pending_.empty() && pending_.front().lsn <= lsn) {
    for (const auto& [at, bound] : pending_.front().bounds) {
      queues[at.first].lanes[at.second].durable_grant_bound = bound;
    }
    pending_.pop_front();
  }
}

void Ledger::Rollback(Lsn durable_lsn) {
  Durable(durable_lsn);
  while (!pending_.empty()) {
    auto& undo = pending_.back().undo;
    for (auto it = undo.rbegin(); it != undo.rend(); ++it) (*it)();
    pending_.pop_back();
  }
  FindLive();
}

LedgerBatch::Change& Ledger::Touch(LedgerMessage& message) {
  const auto [it, is_new] = touched_.try_emplace(&message, current_.changed.size());
  if (is_new) {
    current_.changed.push_back({&message, message.state, 0, message.stored_lsn == current_.lsn});
    undo_.push_back([&message, before = message.state] {
      if (message.state.settled && !before.settled) {
        message.queue->lanes[message.at.lane].unsettled[message.at.seq] = &message;
        ++message.queue->messages;
        message.queue->bytes += message.bytes;
      }
      message.state = before;
    });
  }
  return current_.changed[it->second];
}

void Ledger::OnPut(Family family, std::string_view key, std::string_view value) {
  if (family == Family::kMessages) return OnMessage(key, value);
  if (family == Family::kMeta) return OnMeta(key, value);
  const auto index = storage::ParseIndexKey(key);
  if (!index.ok()) {
    error = "a garbled index key";
    return;
  }
  if (index->type != storage::IndexType::kDedup) return;
  const std::pair at{index->position.qid, index->hash};
  const auto old = dedup_.find(at);
  std::optional<storage::DedupRow> before;
  if (old != dedup_.end()) before = old->second;
  undo_.push_back([this, at, before] {
    if (before) {
      dedup_[at] = *before;
    } else {
      dedup_.erase(at);
    }
  });
  dedup_[at] = *storage::ParseDedup(value);
}

void Ledger::OnDelete(Family family, std::string_view key) {
  if (family != Family::kMeta) return;
  const auto meta = storage::ParseMetaKey(key);
  if (!meta.ok()) return;
  if (meta->type == MetaType::kExchange || meta->type == MetaType::kBinding) {
    return OnRouting(*meta, nullptr);
  }
  if (meta->type == MetaType::kProducer) {
    const auto kept = producers.find(meta->hash);
    if (kept == producers.end()) return;
    undo_.push_back([this, at = kept->first, before = kept->second] { producers[at] = before; });
    producers.erase(kept);
    return;
  }
  if (meta->type != MetaType::kQueue) return;
  LedgerQueue& queue = queues[meta->qid];
  current_.queues_gone.push_back(meta->qid);
  undo_.push_back([&queue, before = queue.exists] { queue.exists = before; });
  queue.exists = false;
}

void Ledger::OnMessage(std::string_view key, std::string_view value) {
  const auto at = storage::ParseMessageKey(key);
  const auto parsed = storage::ParseMessageValue(value);
  if (!at || !parsed.ok() || at->lane >= kLanes) {
    error = "a garbled message row";
    return;
  }
  LedgerQueue& queue = queues[at->qid];
  LedgerLane& lane = queue.lanes[at->lane];
  if (at->seq != lane.all.size() + 1) {
    error = absl::StrCat("seq ", at->seq, " follows ", lane.all.size());
    return;
  }
  NoteSize(queue);
  auto message = std::make_unique<LedgerMessage>();
  message->queue = &queue;
  message->at = *at;
  message->info = parsed->info;
  message->id = message->info.origin ? message->info.origin->id : *at;
  message->bytes = static_cast<uint32_t>(parsed->wire.size());
  message->priority =
      at->lane == kDelayedLane ? message->info.priority : PriorityOfLane(at->lane);
  message->stored_lsn = current_.lsn;
  message->order = current_.added.size();
  if (parsed->wire.size() >= sizeof(message->body)) {
    std::memcpy(&message->body, parsed->wire.data(), sizeof(message->body));
  }
  current_.added.push_back(message.get());
  lane.unsettled[at->seq] = message.get();
  ++queue.messages;
  queue.bytes += message->bytes;
  lane.all.push_back(std::move(message));
  undo_.push_back([&queue, &lane, seq = at->seq] {
    LedgerMessage& last = *lane.all.back();
    if (lane.unsettled.erase(seq) > 0) {
      --queue.messages;
      queue.bytes -= last.bytes;
    }
    lane.all.pop_back();
  });
}

void Ledger::OnMeta(std::string_view key_bytes, std::string_view value) {
  const auto key = storage::ParseMetaKey(key_bytes);
  if (!key.ok()) {
    error = "a garbled meta key";
    return;
  }
  switch (key->type) {
    case MetaType::kQueue: return OnQueue(key->qid, value);
    case MetaType::kHistory: return OnHistory(*key, value);
    case MetaType::kProducer: return OnProducer(key->hash, value);
    case MetaType::kExchange:
    case MetaType::kBinding: return OnRouting(*key, &value);
    case MetaType::kLane: {
      const auto row = storage::ParseLane(value);
      SettleBelow(key->qid, key->lane, 0, row->head, nullptr);
      bounds_.push_back({{key->qid, key->lane}, row->grant_bound});
      const LedgerLane& lane = queues[key->qid].lanes[key->lane];
      if (row->next_seq != lane.all.size() + 1) error = "a lane row with another next seq";
      return;
    }
    case MetaType::kAcks: {
      const auto row = storage::ParseAcks(value);
      const Seq begin = key->number * storage::kSeqsPerBlock;
      const Seq blocks = row->run > 0 ? row->run : 1;
      SettleBelow(key->qid, key->lane, begin, begin + blocks * storage::kSeqsPerBlock, &*row);
      return;
    }
    default: return;
  }
}

void Ledger::OnQueue(QueueId qid, std::string_view value) {
  LedgerQueue& queue = queues[qid];
  queue.qid = qid;
  current_.queue_rows_before.try_emplace(qid, queue.row);
  undo_.push_back([&queue, row = queue.row, exists = queue.exists, paused = queue.paused_ms] {
    queue.row = row;
    queue.exists = exists;
    queue.paused_ms = paused;
  });
  queue.row = *storage::ParseQueue(value);
  queue.exists = true;
  if (!queue.row.paused) {
    queue.paused_ms = 0;
  } else if (queue.paused_ms == 0) {
    queue.paused_ms = current_.time_ms;
  }
}

void Ledger::OnProducer(const Hash128& producer, std::string_view value) {
  const auto row = storage::ParseProducer(value);
  if (!row.ok()) {
    error = "a garbled producer row";
    return;
  }
  storage::ProducerRow& kept = producers[producer];
  current_.producers_before.try_emplace(producer, kept);
  undo_.push_back([this, producer, before = kept] { producers[producer] = before; });
  kept = *row;
}

uint64_t Ledger::ExchangeNumber(const std::string& name) const {
  for (const auto& [number, exchange] : exchange_rows_) {
    if (exchange == name) return number;
  }
  return 0;
}

// Null: the row goes.
void Ledger::OnRouting(const storage::MetaKey& key, const std::string_view* value) {
  if (!std::exchange(current_.routing_changed, true)) {
    current_.routing_before = routing;
    undo_.push_back([this, before = routing, exchanges = exchange_rows_,
                     bindings = binding_rows_] {
      routing = before;
      exchange_rows_ = exchanges;
      binding_rows_ = bindings;
    });
  }
  if (key.type == MetaType::kExchange) {
    const auto old = exchange_rows_.find(key.number);
    if (old != exchange_rows_.end()) {
      routing.exchanges.erase(old->second);
      exchange_rows_.erase(old);
    }
    if (!value) return;
    auto exchange = storage::ParseExchange(*value);
    if (!exchange.ok() || routing.exchanges.contains(exchange->name)) {
      error = "an exchange that cannot be";
      return;
    }
    exchange_rows_[key.number] = exchange->name;
    routing.exchanges[exchange->name] = *std::move(exchange);
    return;
  }
  const auto old = binding_rows_.find(key.number);
  if (old != binding_rows_.end()) {
    routing.bindings.erase(old->second);
    binding_rows_.erase(old);
  }
  if (!value) return;
  auto binding = storage::ParseBinding(*value);
  if (!binding.ok() || !routing.bindings.insert(*binding).second) {
    error = "a binding that cannot be";
    return;
  }
  binding_rows_[key.number] = *std::move(binding);
}

void Ledger::OnHistory(const storage::MetaKey& key, std::string_view value) {
  LedgerMessage* message = At({0, key.qid, key.lane, key.number});
  const auto row = storage::ParseHistory(value);
  if (!message || !row.ok()) {
    error = "history of no message";
    return;
  }
  LedgerBatch::Change& change = Touch(*message);
  ++change.row_puts;
  const storage::HistoryRow& before = message->state.row;
  if (!message->state.has_row || before.boot != row->boot ||
      before.delivery_count != row->delivery_count) {
    message->state.count_lsn = current_.lsn;
  }
  message->state.has_row = true;
  message->state.ran_out_while_down = false;
  message->state.row = *row;
  message->state.row_lsn = current_.lsn;
}

void Ledger::SettleBelow(QueueId qid, Lane lane_id, Seq begin, Seq end,
                         const storage::AcksRow* row) {
  LedgerLane& lane = queues[qid].lanes[lane_id];
  auto it = lane.unsettled.lower_bound(begin);
  while (it != lane.unsettled.end() && it->first < end) {
    LedgerMessage& message = *(it++)->second;
    const Seq bit = message.at.seq % storage::kSeqsPerBlock;
    if (row && row->run == 0 && (row->bits[bit / 64] >> (bit % 64) & 1) == 0) continue;
    Settle(message);
  }
}

void Ledger::Settle(LedgerMessage& message) {
  Touch(message);
  LedgerQueue& queue = *message.queue;
  NoteSize(queue);
  message.state.settled = true;
  message.state.settled_lsn = current_.lsn;
  queue.lanes[message.at.lane].unsettled.erase(message.at.seq);
  --queue.messages;
  queue.bytes -= message.bytes;
}

}  // namespace sluice::broker
