#include "server/storage/mem_log.h"

#include "server/base/check.h"
#include "server/storage/page_builder.h"
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

}  // namespace

absl::Status MemStore::ScanMeta(
    absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)> row) {
  for (auto it = rows_.lower_bound({Family::kMeta, std::string()});
       it != rows_.end() && it->first.first == Family::kMeta; ++it) {
    if (absl::Status status = row(it->first.second, it->second); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredMessage>> MemStore::ReadMessages(const ReadRange& range) {
  PageBuilder page(range);
  const auto begin = MessageKey({shard_, range.qid, range.lane, range.begin});
  const auto end = MessageKey({shard_, range.qid, range.lane, range.end});
  for (auto it = rows_.lower_bound({Family::kMessages, std::string(View(begin))});
       it != rows_.end() && it->first.first == Family::kMessages && it->first.second < View(end) &&
       !page.Full();
       ++it) {
    const absl::Status status = page.Add(ParseMessageKey(it->first.second)->seq, it->second);
    if (!status.ok()) return status;
  }
  return page.Take();
}

absl::StatusOr<std::vector<StoredMessage>> MemStore::ReadMessagesAt(
    QueueId qid, Lane lane, const std::vector<Seq>& seqs, uint64_t bytes_max,
    size_t* seqs_read) {
  std::vector<StoredMessage> messages;
  uint64_t bytes = 0;
  *seqs_read = 0;
  for (const Seq seq : seqs) {
    if (*seqs_read > 0 && bytes >= bytes_max) break;
    ++*seqs_read;
    const auto key = MessageKey({shard_, qid, lane, seq});
    const auto it = rows_.find({Family::kMessages, std::string(View(key))});
    if (it == rows_.end()) continue;
    auto message = ToStored(seq, it->second);
    if (!message.ok()) return message.status();
    bytes += message->payload.size();
    messages.push_back(*std::move(message));
  }
  return messages;
}

absl::StatusOr<std::vector<IndexRow>> MemStore::ScanIndex(std::string_view begin,
                                                          std::string_view end,
                                                          uint32_t rows_max) {
  std::vector<IndexRow> rows;
  for (auto it = rows_.lower_bound({Family::kIndex, std::string(begin)});
       it != rows_.end() && it->first.first == Family::kIndex && it->first.second < end &&
       rows.size() < rows_max;
       ++it) {
    rows.push_back({it->first.second, it->second});
  }
  return rows;
}

absl::StatusOr<std::vector<std::optional<std::string>>> MemStore::GetIndex(
    const std::vector<std::string>& keys) {
  return GetRows(Family::kIndex, keys);
}

absl::StatusOr<std::vector<std::optional<std::string>>> MemStore::GetMeta(
    const std::vector<std::string>& keys) {
  return GetRows(Family::kMeta, keys);
}

std::vector<std::optional<std::string>> MemStore::GetRows(
    Family family, const std::vector<std::string>& keys) const {
  std::vector<std::optional<std::string>> values;
  for (const std::string& key : keys) {
    const auto it = rows_.find({family, key});
    values.push_back(it == rows_.end() ? std::nullopt : std::optional(it->second));
  }
  return values;
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
