#include "server/storage/wal_scan.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/storage/crc32c.h"
#include "server/storage/wal_record.h"

namespace sluice::storage {
namespace {

// RocksDB's format: blocks of 32 KiB hold fragments; crc:4 (masked, of type and data), length:2,
// type:1, all little-endian. A block's last bytes are zeros if no header fits.
constexpr size_t kBlockBytes = 32 * 1024;
constexpr size_t kFragmentHeaderBytes = 7;
constexpr uint8_t kFull = 1;
constexpr uint8_t kFirst = 2;
constexpr uint8_t kMiddle = 3;
constexpr uint8_t kLast = 4;
// A record is a write batch: sequence:8 count:4, then operations; our note is the first.
constexpr size_t kWriteBatchHeaderBytes = 12;
constexpr uint8_t kLogDataTag = 3;
// Only this much of a record is kept: header, tag, one byte of length, note.
constexpr size_t kRecordBytesKept = kWriteBatchHeaderBytes + 2 + kWalNoteBytes;
static_assert(kWalNoteBytes < 128, "the note's length must fit one varint byte");

template <typename T>
T GetLittleEndian(const char* in) {
  T value = 0;
  for (size_t i = sizeof(T); i > 0; --i) value = static_cast<T>(value << 8 | uint8_t(in[i - 1]));
  return value;
}

struct Record {
  uint64_t first_seq = 0;
  uint64_t count = 0;
  std::optional<uint64_t> durable_seq;
};

std::optional<Record> ParseRecord(std::string_view bytes) {
  if (bytes.size() < kWriteBatchHeaderBytes) return std::nullopt;
  Record record;
  record.first_seq = GetLittleEndian<uint64_t>(bytes.data());
  record.count = GetLittleEndian<uint32_t>(bytes.data() + 8);
  const std::string_view operations = bytes.substr(kWriteBatchHeaderBytes);
  if (operations.size() >= 2 && operations[0] == kLogDataTag &&
      operations[1] == static_cast<char>(kWalNoteBytes)) {
    record.durable_seq = DurableStoreSeq(operations.substr(2, kWalNoteBytes));
  }
  return record;
}

// Whether these bytes to the end of a block were made ahead of records to come (wal_room.h). A
// fragment's type is never 0.
bool IsRoom(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

class Scanner {
 public:
  absl::Status ScanFile(const std::string& path);
  absl::StatusOr<WalScan> Finish();

 private:
  struct Hole {
    std::string path;
    uint64_t offset = 0;
    uint64_t seq = 0;    // the first that is lost
    bool damaged = false;  // or cleanly missing
  };

  void ScanBlock(const std::string& path, uint64_t offset, std::string_view block);
  void OnFragment(const std::string& path, uint64_t offset, uint8_t type, std::string_view data);
  void OnRecord(const std::string& path, uint64_t offset);
  void OnDamage(const std::string& path, uint64_t offset);
  // Something follows zeros that were taken for the room behind the records.
  void OnGap(const std::string& path);

  WalScan scan_;
  std::optional<uint64_t> next_seq_;   // expected of the next record; none before the first
  std::optional<Hole> hole_;           // the first one
  uint64_t durable_behind_hole_ = 0;   // named by records behind it
  bool first_of_file_ = false;
  std::optional<uint64_t> room_;  // of this file, where it begins
  // The record that is being put together, and where it began.
  bool in_record_ = false;
  std::string partial_;
  uint64_t partial_offset_ = 0;
};

absl::Status Scanner::ScanFile(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) {
    return MakeError(ErrorReason::kStoreFailed, absl::StrCat("cannot read ", path));
  }
  first_of_file_ = true;
  room_.reset();
  in_record_ = false;
  std::vector<char> block(kBlockBytes);
  uint64_t offset = 0;
  while (const size_t size = std::fread(block.data(), 1, kBlockBytes, file.get())) {
    ScanBlock(path, offset, {block.data(), size});
    offset += size;
  }
  if (std::ferror(file.get())) {
    return MakeError(ErrorReason::kDataDamaged,
                     absl::StrCat("cannot read ", path, " at offset ", offset,
                                  ": check the disk, then restore the data from a backup"));
  }
  if (in_record_) OnDamage(path, partial_offset_);
  return absl::OkStatus();
}

void Scanner::ScanBlock(const std::string& path, uint64_t offset, std::string_view block) {
  size_t at = 0;
  while (block.size() - at >= kFragmentHeaderBytes) {
    const char* header = block.data() + at;
    const auto crc = GetLittleEndian<uint32_t>(header);
    const size_t length = GetLittleEndian<uint16_t>(header + 4);
    const size_t end = at + kFragmentHeaderBytes + length;
    if (length == 0 && header[6] == 0) {
      if (!room_) room_ = offset + at;
      if (IsRoom(block.substr(at))) return;
    }
    if (room_) OnGap(path);
    if (end > block.size()) {
      OnDamage(path, offset + at);
      return;
    }
    const std::string_view covered(header + 6, 1 + length);
    if (MaskCrc(ExtendCrc32c(0, covered)) == crc) {
      OnFragment(path, offset + at, static_cast<uint8_t>(header[6]), covered.substr(1));
    } else {
      // If its length is right the next one is readable; if not, its checksum tells.
      OnDamage(path, offset + at);
    }
    at = end;
  }
  // A last block that is cut within a fragment's header.
  if (block.size() < kBlockBytes && !IsRoom(block.substr(at))) OnDamage(path, offset + at);
}

void Scanner::OnFragment(const std::string& path, uint64_t offset, uint8_t type,
                         std::string_view data) {
  const bool begins = type == kFull || type == kFirst;
  if (begins == in_record_ || (!begins && type != kMiddle && type != kLast)) {
    // The rest of a record whose beginning is lost, or a beginning where a rest should be.
    OnDamage(path, in_record_ ? partial_offset_ : offset);
    if (!begins) return;
  }
  if (begins) {
    partial_.clear();
    partial_offset_ = offset;
    in_record_ = true;
  }
  partial_.append(data.substr(0, kRecordBytesKept - std::min(kRecordBytesKept, partial_.size())));
  if (type == kFull || type == kLast) {
    in_record_ = false;
    OnRecord(path, partial_offset_);
  }
}

void Scanner::OnRecord(const std::string& path, uint64_t offset) {
  const std::optional<Record> record = ParseRecord(partial_);
  if (!record) {
    OnDamage(path, offset);
    return;
  }
  ++scan_.records;
  const bool first_of_file = std::exchange(first_of_file_, false);
  if (hole_ && first_of_file && record->first_seq == hole_->seq) {
    // The store has been opened since: it dropped what was behind the hole and went on from there.
    next_seq_ = hole_->seq;
    hole_.reset();
    durable_behind_hole_ = 0;
  }
  if (!hole_ && next_seq_ && record->first_seq > *next_seq_) {
    hole_ = Hole{path, offset, *next_seq_, false};
  }
  if (record->durable_seq) {
    uint64_t& durable = hole_ ? durable_behind_hole_ : scan_.durable_store_seq;
    durable = std::max(durable, *record->durable_seq);
  }
  if (!hole_) next_seq_ = record->first_seq + record->count;
}

void Scanner::OnGap(const std::string& path) {
  if (!hole_ && scan_.gap_path.empty()) {
    scan_.gap_path = path;
    scan_.gap_offset = *room_;
  }
  OnDamage(path, *room_);
  room_.reset();
}

void Scanner::OnDamage(const std::string& path, uint64_t offset) {
  in_record_ = false;
  if (hole_) return;
  if (next_seq_) {
    hole_ = Hole{path, offset, *next_seq_, true};
  } else if (scan_.damaged_start.empty()) {
    scan_.damaged_start = absl::StrCat(path, " at offset ", offset);
  }
}

absl::StatusOr<WalScan> Scanner::Finish() {
  if (hole_ && (durable_behind_hole_ >= hole_->seq || !hole_->damaged)) {
    return WalDamage(absl::StrCat(hole_->path, " at offset ", hole_->offset));
  }
  scan_.durable_store_seq = std::max(scan_.durable_store_seq, durable_behind_hole_);
  scan_.torn_tail = hole_.has_value();
  return scan_;
}

}  // namespace

absl::Status EndWalAt(const std::string& path, uint64_t offset) {
  const char header[kFragmentHeaderBytes] = {1, 1, 1, 1, 0, 0, kFull};
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool done =
      fd != -1 &&
      pwrite(fd, header, sizeof(header), static_cast<off_t>(offset)) == ssize_t{sizeof(header)} &&
      fsync(fd) == 0;
  if (fd != -1) close(fd);
  if (done) return absl::OkStatus();
  return MakeError(ErrorReason::kStoreFailed, absl::StrCat("cannot write to ", path));
}

absl::Status WalDamage(const std::string& where) {
  return MakeError(
      ErrorReason::kDataDamaged,
      absl::StrCat("the log of the store is damaged or incomplete in ", where,
                   ", in front of what is known to have been durable: acknowledged messages would "
                   "be lost. Nothing has been changed. Check the disk and restore the data "
                   "directory from a backup"));
}

absl::StatusOr<WalScan> ScanWal(const std::string& dir) {
  std::error_code error;
  std::vector<std::pair<uint64_t, std::string>> files;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() != ".log") continue;
    const std::string stem = it->path().stem().string();
    uint64_t number = 0;
    const auto parsed = std::from_chars(stem.data(), stem.data() + stem.size(), number);
    if (parsed.ec == std::errc() && parsed.ptr == stem.data() + stem.size()) {
      files.emplace_back(number, it->path().string());
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return MakeError(ErrorReason::kStoreFailed,
                     absl::StrCat("cannot list ", dir, ": ", error.message()));
  }
  std::sort(files.begin(), files.end());
  Scanner scanner;
  for (const auto& [number, path] : files) {
    if (absl::Status status = scanner.ScanFile(path); !status.ok()) return status;
  }
  return scanner.Finish();
}

}  // namespace sluice::storage
