// Room for small commits at the end of a write-ahead log.
//
// A write that makes a file longer has its new size synced along with it, which costs the file
// system a second write (without a journal) or a whole transaction (with one). Over bytes that are
// there already only the data is synced. So while commits are small, zeros are written ahead of
// them, a chunk at a time; large commits would only pay for the zeros.
//
// RocksDB's reader and wal_scan.h take zeros for the end of a log's records: what is left of the
// room after a crash is not read. ADR 0008 has the figures.
#ifndef SLUICE_SERVER_STORAGE_WAL_ROOM_H_
#define SLUICE_SERVER_STORAGE_WAL_ROOM_H_

#include <atomic>
#include <cstdint>
#include <string>

namespace sluice::storage {

// Of one file. BeforeAppend, has_room and appended: by whoever appends; OnSync: any thread.
class WalRoom {
 public:
  explicit WalRoom(std::string path) : path_(std::move(path)) {}
  ~WalRoom();
  WalRoom(const WalRoom&) = delete;
  WalRoom& operator=(const WalRoom&) = delete;

  // `bytes` are appended next. That room cannot be made is no error: then there is none.
  void BeforeAppend(uint64_t bytes);
  void OnSync() { syncs_.fetch_add(1, std::memory_order_relaxed); }

  // Whether the file is longer than what was appended.
  bool has_room() const { return end_ > appended_; }
  uint64_t appended() const { return appended_; }

 private:
  bool CommitsAreSmall();
  // Writes zeros over `bytes` from `begin` on.
  bool Make(uint64_t begin, uint64_t bytes);

  const std::string path_;
  int fd_ = -1;  // once needed
  bool useless_ = false;
  uint64_t appended_ = 0;
  uint64_t end_ = 0;  // of the zeros; behind it the file has what was appended, or nothing
  uint64_t judged_at_ = 0;
  std::atomic<uint64_t> syncs_{0};  // since then
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_WAL_ROOM_H_
