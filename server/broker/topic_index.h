// The bindings of one topic exchange, by pattern.
//
// A key is cut into words at its dots; the empty key has no words, and "a..b" has an empty one in
// the middle. In a pattern the word `*` stands for exactly one word, `#` for any number of words,
// none included; anything else, also "a*", stands for itself.
//
// Patterns share a trie. A key walks it with a set of nodes, one step per word, and no node is in
// the set twice: the work is at most words * nodes, whatever the patterns, where following one
// pattern after the other would take exponential time with many `#`. Not thread-safe.
#ifndef SLUICE_SERVER_BROKER_TOPIC_INDEX_H_
#define SLUICE_SERVER_BROKER_TOPIC_INDEX_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/broker/bound_entry.h"

namespace sluice::broker {

class TopicIndex {
 public:
  TopicIndex() : nodes_(1) {}

  // By `binding.binding_key`, which must not change while it is here.
  void Add(BoundEntry* entry);
  void Remove(const BoundEntry* entry);

  // Appends the entries whose patterns match, each once, in no order. Takes what it looks at from
  // `steps_left`; false: that was not enough, and `matched` is not complete.
  bool Match(std::string_view key, int64_t* steps_left, std::vector<BoundEntry*>* matched);

  // Nodes in use: memory is proportional to it. A pattern needs at most one per word.
  size_t nodes() const { return nodes_.size() - 1 - free_nodes_.size(); }

 private:
  using NodeId = uint32_t;
  using WordId = uint32_t;
  static constexpr NodeId kRoot = 0;  // never a child, so it also says: no child
  static constexpr WordId kNoWord = 0;  // first of the ids: also of the root
  static constexpr WordId kStar = 1;
  static constexpr WordId kHash = 2;
  static constexpr WordId kFirstWord = 3;

  struct Node {
    NodeId parent = kRoot;
    WordId word = kNoWord;    // on the edge from the parent
    NodeId star = kRoot;      // child by `*`
    NodeId hash = kRoot;      // child by `#`
    uint32_t children = 0;
    uint64_t active_at = 0;   // the step at which it was last put into the set
    BoundEntries entries;
  };
  struct Word {
    WordId id = kNoWord;
    uint32_t uses = 0;  // edges with it
  };
  using Edge = std::pair<NodeId, WordId>;

  NodeId Child(NodeId parent, std::string_view word) const;
  NodeId AddChild(NodeId parent, std::string_view word);
  NodeId NewNode();
  void Activate(NodeId id, std::vector<NodeId>* active);
  // The children of `id` by a word, and itself if it is a `#`.
  void Advance(NodeId id, WordId word, std::vector<NodeId>* active);

  std::vector<Node> nodes_;
  std::vector<NodeId> free_nodes_;
  // One table for the edges of all nodes: most nodes have one child, and words compare as numbers.
  absl::flat_hash_map<Edge, NodeId> edges_;
  absl::flat_hash_map<std::string, Word> words_;
  std::vector<WordId> free_words_;
  WordId next_word_ = kFirstWord;

  uint64_t step_ = 0;  // of all matches, so that `active_at` never has to be cleared
  std::vector<NodeId> active_;
  std::vector<NodeId> next_active_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_TOPIC_INDEX_H_
