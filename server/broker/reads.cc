#include "server/broker/reads.h"

#include <utility>

namespace sluice::broker {
namespace {

template <typename T>
absl::Status Take(absl::StatusOr<T> found, T* out) {
  if (!found.ok()) return found.status();
  *out = *std::move(found);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ReadResult> Read(storage::Store& store, const ReadRequest& request) {
  ReadResult result;
  absl::Status status;
  if (!request.seqs.empty()) {
    status = Take(store.ReadMessagesAt(request.range.qid, request.range.lane, request.seqs,
                                       request.range.bytes_max, &result.seqs_read),
                  &result.messages);
  } else if (!request.keys.empty()) {
    status = Take(store.GetIndex(request.keys), &result.values);
  } else if (request.rows_max > 0) {
    status = Take(store.ScanIndex(request.index_begin, request.index_end, request.rows_max),
                  &result.rows);
  } else if (request.range.messages_max > 0) {
    status = Take(store.ReadMessages(request.range), &result.messages);
  }
  if (status.ok() && !request.meta_keys.empty()) {
    status = Take(store.GetMeta(request.meta_keys), &result.meta_values);
  }
  if (!status.ok()) return status;
  return result;
}

}  // namespace sluice::broker
