// A set of seqs as bits: for many that lie close together.
#ifndef SLUICE_SERVER_BROKER_SEQ_SET_H_
#define SLUICE_SERVER_BROKER_SEQ_SET_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/container/btree_map.h"
#include "server/model/ids.h"

namespace sluice::broker {

// Blocks of 512 that are not empty, of some 72 bytes each: an eighth of a byte for each member where
// they lie side by side. Not thread-safe.
class SeqSet {
 public:
  static constexpr Seq kNone = std::numeric_limits<Seq>::max();

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  bool Contains(Seq seq) const {
    const auto it = blocks_.find(seq / kBits);
    return it != blocks_.end() && (it->second[WordOf(seq)] & BitOf(seq)) != 0;
  }
  void Insert(Seq seq) {
    uint64_t& word = blocks_[seq / kBits][WordOf(seq)];
    if ((word & BitOf(seq)) == 0) ++size_;
    word |= BitOf(seq);
  }
  // False: it was not there.
  bool Erase(Seq seq) {
    const auto it = blocks_.find(seq / kBits);
    if (it == blocks_.end() || (it->second[WordOf(seq)] & BitOf(seq)) == 0) return false;
    it->second[WordOf(seq)] &= ~BitOf(seq);
    --size_;
    if (it->second == Block{}) blocks_.erase(it);
    return true;
  }
  void Clear() {
    blocks_.clear();
    size_ = 0;
  }
  // The first member at or after `from`; kNone: there is none.
  Seq Next(Seq from) const {
    for (auto it = blocks_.lower_bound(from / kBits); it != blocks_.end(); ++it) {
      const Seq begin = it->first * kBits;
      size_t word = from > begin ? WordOf(from) : 0;
      uint64_t bits = it->second[word] & (from > begin ? ~uint64_t{0} << (from % 64) : ~uint64_t{0});
      while (bits == 0 && ++word < kWords) bits = it->second[word];
      if (bits != 0) return begin + word * 64 + static_cast<Seq>(std::countr_zero(bits));
    }
    return kNone;
  }
  // The first seq at or after `from` that is not a member.
  Seq NextAbsent(Seq from) const {
    for (auto it = blocks_.find(from / kBits); it != blocks_.end() && it->first == from / kBits;
         ++it) {
      for (size_t word = WordOf(from); word < kWords; ++word) {
        const uint64_t absent = ~it->second[word] & (~uint64_t{0} << (from % 64));
        if (absent != 0) return from / 64 * 64 + static_cast<Seq>(std::countr_zero(absent));
        from = (from / 64 + 1) * 64;
      }
    }
    return from;
  }

 private:
  static constexpr Seq kBits = 512;
  static constexpr size_t kWords = kBits / 64;
  using Block = std::array<uint64_t, kWords>;
  static size_t WordOf(Seq seq) { return seq % kBits / 64; }
  static uint64_t BitOf(Seq seq) { return uint64_t{1} << (seq % 64); }

  absl::btree_map<uint64_t, Block> blocks_;
  size_t size_ = 0;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SEQ_SET_H_
