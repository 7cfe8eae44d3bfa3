#include "server/storage/mem_log.h"

#include "server/base/check.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

std::string_view View(const std::array<char, kMessageKeyBytes>& key) {
  return {key.data(), key.size()};
}

class Applier : public Batch::Visitor {
 public:
  explicit Applier(MemStore::Rows* rows) : rows_(rows) {}

  void OnPut(Family family, std::string_view key, std::string_view value) override {
    rows_->insert_or_assign({family, std::string(key)}, std::string(value));
  }
  void OnDelete(Family family, std::string_view key) override {
    rows_->erase({family, std::string(key)});
  }
  void OnDeleteMetaRange(std::string_view begin, std::string_view end) override {
    rows_->erase(rows_->lower_bound({Family::kMeta, std::string(begin)}),
                 rows_->lower_bound({Family::kMeta, std::string(end)}));
  }

 private:
  MemStore::Rows* const rows_;
};

absl::StatusOr<StoredMessage> ToStored(Seq seq, std::string_view value) {
  auto parsed = ParseMessageValue(value);
  if (!parsed.ok()) return parsed.status();
  return StoredMessage{seq, parsed->publish_ms, Payload::CopyOf(parsed->wire)};
}

}  // namespace

absl::Status MemStore::ScanMeta(
    absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)> row) {
  for (auto it = rows_.lower_bound({Family::kMeta, std::string()}); it != rows_.end(); ++it) {
    if (absl::Status status = row(it->first.second, it->second); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredMessage>> MemStore::ReadMessages(const ReadRange& range) {
  std::vector<StoredMessage> messages;
  uint64_t bytes = 0;
  const auto begin = MessageKey({shard_, range.qid, range.lane, range.begin});
  const auto end = MessageKey({shard_, range.qid, range.lane, range.end});
  for (auto it = rows_.lower_bound({Family::kMessages, std::string(View(begin))});
       it != rows_.end() && it->first.first == Family::kMessages && it->first.second < View(end) &&
       messages.size() < range.messages_max && (messages.empty() || bytes < range.bytes_max);
       ++it) {
    auto message = ToStored(ParseMessageKey(it->first.second)->seq, it->second);
    if (!message.ok()) return message.status();
    bytes += message->payload.size();
    messages.push_back(*std::move(message));
  }
  return messages;
}

absl::StatusOr<std::vector<StoredMessage>> MemStore::ReadMessagesAt(
    QueueId qid, Lane lane, const std::vector<Seq>& seqs) {
  std::vector<StoredMessage> messages;
  for (const Seq seq : seqs) {
    const auto key = MessageKey({shard_, qid, lane, seq});
    const auto it = rows_.find({Family::kMessages, std::string(View(key))});
    if (it == rows_.end()) continue;
    auto message = ToStored(seq, it->second);
    if (!message.ok()) return message.status();
    messages.push_back(*std::move(message));
  }
  return messages;
}

absl::Status MemStore::Apply(std::string_view record) {
  Applier applier(&rows_);
  return Batch::Visit(record, &last_header_, &applier);
}

void MemLog::Append(Batch batch, Done done) {
  const Lsn lsn = batch.header().lsn;
  SLUICE_CHECK(last_lsn_ == 0 || lsn == last_lsn_ + 1);
  last_lsn_ = lsn;
  if (!failure_.ok()) {
    done(failure_);
    return;
  }
  pending_.push_back({std::move(batch), std::move(done)});
}

bool MemLog::CommitOne() {
  if (pending_.empty()) return false;
  Pending pending = std::move(pending_.front());
  pending_.pop_front();
  pending.done(store_->Apply(pending.batch.record()));
  return true;
}

void MemLog::CommitAll() {
  while (CommitOne()) {
  }
}

void MemLog::Fail(absl::Status status) {
  SLUICE_CHECK(!status.ok());
  failure_ = std::move(status);
  while (!pending_.empty()) {
    Pending pending = std::move(pending_.front());
    pending_.pop_front();
    pending.done(failure_);
  }
}

void MemLog::DropPending() {
  pending_.clear();
  last_lsn_ = 0;
}

}  // namespace sluice::storage
