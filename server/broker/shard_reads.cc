// Reads that other parts of the shard wait for.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

absl::Status MissingMessage(const MessagePosition& at) {
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat("message ", FormatMessageId(at),
                                " is neither settled nor in the store"));
}

}  // namespace

void Shard::StartRead(ReadRequest request, ReadDone done) {
  request.ticket = next_ticket_++;
  reading_bytes_ += request.range.bytes_max;
  reads_[request.ticket] = {request.range.bytes_max, std::move(done)};
  port_->StartRead(std::move(request));
}

absl::Status Shard::OnRead(uint64_t ticket, ReadResult result, Now now) {
  const auto it = reads_.find(ticket);
  PendingRead read = std::move(it->second);
  reads_.erase(it);
  reading_bytes_ -= read.bytes_max;
  return read.done(result, now);
}

// Those that rest come into memory with their bodies: whoever reads them means to change them.
void Shard::ReadBodies(Queue& queue, Lane lane, std::vector<Seq> seqs, uint64_t bytes_max,
                       BodiesDone done) {
  LaneState& state = *queue.lanes[lane];
  ReadRequest request;
  request.range.qid = queue.qid;
  request.range.lane = lane;
  request.range.bytes_max = bytes_max;
  request.seqs = seqs;
  std::vector<MessagePosition> resting;
  for (const Seq seq : seqs) {
    if (state.resting.Contains(seq)) resting.push_back(state.At(seq));
  }
  request.meta_keys = HistoryKeys(resting);
  ++state.body_reads;
  StartRead(std::move(request), [this, qid = queue.qid, lane, seqs = std::move(seqs),
                                 resting = std::move(resting), done = std::move(done)](
                                    ReadResult& result, Now now) mutable -> absl::Status {
    Bodies bodies;
    Queue* queue = FindQueue(qid);
    if (!queue) {
      done(nullptr, std::move(bodies), now);
      return absl::OkStatus();
    }
    LaneState& state = *queue->lanes[lane];
    bodies.unread = seqs.size() - result.seqs_read;
    for (size_t i = 0; i < resting.size(); ++i) {
      const absl::Status status =
          WakeResting(*queue, state, resting[i].seq, result.meta_values[i], false, now);
      if (!status.ok()) return status;
    }
    auto found = result.messages.begin();
    for (size_t i = 0; i < result.seqs_read; ++i) {
      const bool present = found != result.messages.end() && found->seq == seqs[i];
      if (!state.settled.Contains(seqs[i])) {
        if (!present) return MissingMessage(state.At(seqs[i]));
        bodies.messages.push_back(std::move(*found));
      }
      if (present) ++found;
    }
    done(queue, std::move(bodies), now);
    // What was not changed after all rests again.
    queue = FindQueue(qid);
    if (!queue) return absl::OkStatus();
    RestAgain(resting);
    BodiesWereRead(*queue, *queue->lanes[lane]);
    return absl::OkStatus();
  });
}

}  // namespace sluice::broker
