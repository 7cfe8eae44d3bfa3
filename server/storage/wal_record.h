// What every batch leaves in RocksDB's WAL beside its rows, so that the WAL can be checked before
// it is replayed.
#ifndef SLUICE_SERVER_STORAGE_WAL_RECORD_H_
#define SLUICE_SERVER_STORAGE_WAL_RECORD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "server/model/big_endian.h"
#include "server/storage/batch.h"

namespace sluice::storage {

// header of the batch (Batch::kHeaderBytes), then store_seq:8: everything that RocksDB numbered up
// to it was on stable storage when this was written. RocksDB's numbers are used because they never
// repeat and have no gaps, even over restarts that lose an unsynced tail.
inline constexpr size_t kWalNoteBytes = Batch::kHeaderBytes + sizeof(uint64_t);

inline std::array<char, kWalNoteBytes> WalNote(const Batch& batch, uint64_t durable_store_seq) {
  std::array<char, kWalNoteBytes> note;
  batch.record().copy(note.data(), Batch::kHeaderBytes);
  PutBigEndian(durable_store_seq, note.data() + Batch::kHeaderBytes);
  return note;
}

inline std::optional<uint64_t> DurableStoreSeq(std::string_view note) {
  BatchHeader header;
  if (note.size() != kWalNoteBytes || !Batch::ReadHeader(note, &header).ok()) return std::nullopt;
  return GetBigEndian<uint64_t>(note.data() + Batch::kHeaderBytes);
}

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_WAL_RECORD_H_
