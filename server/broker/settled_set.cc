#include "server/broker/settled_set.h"

#include <algorithm>
#include <bit>

#include "server/base/check.h"

namespace sluice::broker {
namespace {

using storage::kSeqsPerBlock;
using storage::kWordsPerBlock;

bool GetBit(const storage::AcksRow& row, unsigned bit) {
  return (row.bits[bit / 64] >> (bit % 64)) & 1;
}

unsigned CountBits(const storage::AcksRow& row) {
  unsigned count = 0;
  for (const uint64_t word : row.bits) count += std::popcount(word);
  return count;
}

// First zero bit at or after `from`, or kSeqsPerBlock.
unsigned FirstZero(const storage::AcksRow& row, unsigned from) {
  for (unsigned word = from / 64; word < kWordsPerBlock; ++word) {
    uint64_t zeros = ~row.bits[word];
    if (word == from / 64) zeros &= ~uint64_t{0} << (from % 64);
    if (zeros) return word * 64 + std::countr_zero(zeros);
  }
  return kSeqsPerBlock;
}

// Set bits in [begin, end).
unsigned CountRange(const storage::AcksRow& row, unsigned begin, unsigned end) {
  unsigned count = 0;
  for (unsigned bit = begin; bit < end; ++bit) count += GetBit(row, bit);
  return count;
}

}  // namespace

SettledSet::Map::const_iterator SettledSet::Find(uint64_t block) const {
  auto it = blocks_.upper_bound(block);
  if (it == blocks_.begin()) return blocks_.end();
  --it;
  const uint64_t covered = std::max<uint64_t>(1, it->second.row.run);
  return block < it->first + covered ? it : blocks_.end();
}

bool SettledSet::Contains(Seq seq) const {
  if (seq < head_) return true;
  const auto it = Find(seq / kSeqsPerBlock);
  if (it == blocks_.end()) return false;
  return it->second.row.run > 0 || GetBit(it->second.row, seq % kSeqsPerBlock);
}

Seq SettledSet::NextUnsettled(Seq from) const {
  Seq seq = std::max(from, head_);
  if (blocks_.empty()) return seq;
  while (true) {
    const auto it = Find(seq / kSeqsPerBlock);
    if (it == blocks_.end()) return seq;
    if (it->second.row.run > 0) {
      seq = (it->first + it->second.row.run) * kSeqsPerBlock;
      continue;
    }
    const unsigned zero = FirstZero(it->second.row, seq % kSeqsPerBlock);
    if (zero < kSeqsPerBlock) return it->first * kSeqsPerBlock + zero;
    seq = (it->first + 1) * kSeqsPerBlock;
  }
}

void SettledSet::MarkDirty(uint64_t block, Entry& entry) {
  if (entry.dirty) return;
  entry.dirty = true;
  dirty_.push_back(block);
}

SettledSet::Map::iterator SettledSet::Erase(Map::iterator it) {
  if (it->second.stored) dropped_.push_back(it->first);
  return blocks_.erase(it);
}

bool SettledSet::Add(Seq seq) {
  if (seq == head_) {  // the usual case: consumers settle in order
    ++head_;
    if (!blocks_.empty()) AdvanceHead();
    return true;
  }
  if (Contains(seq)) return false;
  const unsigned bit = seq % kSeqsPerBlock;
  SetBits(seq / kSeqsPerBlock, bit, bit + 1);
  return true;
}

void SettledSet::SetBits(uint64_t block, unsigned begin, unsigned end) {
  if (Find(block) != blocks_.end() && blocks_.find(block) == blocks_.end()) return;  // in a run
  Entry& entry = blocks_[block];
  if (entry.row.run > 0) return;
  for (unsigned bit = begin; bit < end; ++bit) {
    uint64_t& word = entry.row.bits[bit / 64];
    const uint64_t mask = uint64_t{1} << (bit % 64);
    if (!(word & mask)) ++above_;
    word |= mask;
  }
  MarkDirty(block, entry);
  if (CountBits(entry.row) == kSeqsPerBlock) InsertRun(block, 1);
}

// Makes [block, block + run) one settled run, merged with the runs beside it.
void SettledSet::InsertRun(uint64_t block, uint64_t run) {
  uint64_t end = block + run;
  if (auto before = Find(block); before != blocks_.end() && before->second.row.run > 0) {
    end = std::max(end, before->first + before->second.row.run);
    block = before->first;
  } else if (block > 0) {
    before = Find(block - 1);
    if (before != blocks_.end() && before->second.row.run > 0) block = before->first;
  }
  uint64_t counted = 0;
  auto it = blocks_.lower_bound(block);
  while (it != blocks_.end() && it->first <= end) {
    if (it->first == end && it->second.row.run == 0) break;
    if (it->second.row.run > 0) {
      end = std::max(end, it->first + it->second.row.run);
      counted += it->second.row.run * kSeqsPerBlock;
    } else {
      counted += CountBits(it->second.row);
    }
    if (it->first == block) {
      ++it;
    } else {
      it = Erase(it);
    }
  }
  Entry& entry = blocks_[block];
  entry.row.bits = {};
  entry.row.run = end - block;
  MarkDirty(block, entry);
  above_ += (end - block) * kSeqsPerBlock - counted;
}

void SettledSet::AddRange(Seq begin, Seq end) {
  begin = std::max(begin, head_);
  if (begin >= end) return;
  if (begin == head_) {
    // Everything up to `end` goes below the head: what lies above it stays as it is.
    for (auto it = blocks_.begin(); it != blocks_.end();) {
      const uint64_t first = it->first * kSeqsPerBlock;
      const uint64_t last = first + std::max<uint64_t>(1, it->second.row.run) * kSeqsPerBlock;
      if (first >= end) break;
      if (last <= end) {
        above_ -= it->second.row.run > 0 ? it->second.row.run * kSeqsPerBlock
                                         : CountBits(it->second.row);
        // Bits below the old head were subtracted when the head passed them.
        if (it->second.row.run == 0 && first < head_) {
          above_ += CountRange(it->second.row, 0, static_cast<unsigned>(head_ - first));
        }
        it = Erase(it);
        continue;
      }
      if (it->second.row.run > 0) {
        // The run reaches over `end`: the head jumps to its end.
        above_ -= it->second.row.run * kSeqsPerBlock;
        end = last;
        it = Erase(it);
        continue;
      }
      const unsigned from = head_ > first ? static_cast<unsigned>(head_ - first) : 0;
      above_ -= CountRange(it->second.row, from, static_cast<unsigned>(end - first));
      ++it;
    }
    head_ = end;
    AdvanceHead();
    return;
  }
  const uint64_t first_block = begin / kSeqsPerBlock;
  const uint64_t last_block = end / kSeqsPerBlock;
  const unsigned begin_bit = begin % kSeqsPerBlock;
  const unsigned end_bit = end % kSeqsPerBlock;
  if (first_block == last_block) {
    SetBits(first_block, begin_bit, end_bit);
    return;
  }
  if (begin_bit > 0) SetBits(first_block, begin_bit, kSeqsPerBlock);
  const uint64_t whole = begin_bit > 0 ? first_block + 1 : first_block;
  if (whole < last_block) InsertRun(whole, last_block - whole);
  if (end_bit > 0) SetBits(last_block, 0, end_bit);
}

// Moves the head over what is settled and forgets entries that no longer say anything.
void SettledSet::AdvanceHead() {
  while (!blocks_.empty()) {
    auto it = blocks_.begin();
    const Seq first = it->first * kSeqsPerBlock;
    if (it->second.row.run > 0) {
      if (head_ < first) return;
      above_ -= it->second.row.run * kSeqsPerBlock;
      head_ = std::max(head_, first + it->second.row.run * kSeqsPerBlock);
      Erase(it);
      continue;
    }
    if (head_ >= first + kSeqsPerBlock) {
      Erase(it);
      continue;
    }
    if (head_ < first) return;
    const unsigned from = static_cast<unsigned>(head_ - first);
    const unsigned zero = FirstZero(it->second.row, from);
    above_ -= zero - from;
    head_ += zero - from;
    if (zero == kSeqsPerBlock) continue;
    if (CountRange(it->second.row, zero, kSeqsPerBlock) == 0) {
      Erase(it);
      continue;
    }
    return;
  }
}

void SettledSet::RestoreRow(uint64_t block, const storage::AcksRow& row) {
  Entry& entry = blocks_[block];
  entry.row = row;
  entry.stored = true;
  if (row.run > 0) {
    above_ += row.run * kSeqsPerBlock;
    return;
  }
  // Bits below the head may still be in the row: they do not count.
  const Seq first = block * kSeqsPerBlock;
  const unsigned from =
      head_ > first ? static_cast<unsigned>(std::min<Seq>(head_ - first, kSeqsPerBlock)) : 0;
  above_ += CountRange(row, from, kSeqsPerBlock);
}

void SettledSet::TakeDirty(
    absl::FunctionRef<void(uint64_t block, const storage::AcksRow* row)> visit) {
  for (const uint64_t block : dropped_) {
    if (blocks_.find(block) == blocks_.end()) visit(block, nullptr);
  }
  dropped_.clear();
  for (const uint64_t block : dirty_) {
    const auto it = blocks_.find(block);
    if (it == blocks_.end() || !it->second.dirty) continue;
    it->second.dirty = false;
    it->second.stored = true;
    visit(block, &it->second.row);
  }
  dirty_.clear();
}

}  // namespace sluice::broker
