#include "server/broker/topic_index.h"

#include "server/base/strings.h"

namespace sluice::broker {
namespace {

constexpr std::string_view kStarWord = "*";
constexpr std::string_view kHashWord = "#";

// Cuts a key into words from the left.
class Words {
 public:
  explicit Words(std::string_view key) : rest_(key), done_(key.empty()) {}

  bool Next(std::string_view* word) {
    if (done_) return false;
    const size_t dot = rest_.find('.');
    *word = rest_.substr(0, dot);
    done_ = dot == std::string_view::npos;
    if (!done_) rest_.remove_prefix(dot + 1);
    return true;
  }

 private:
  std::string_view rest_;
  bool done_;
};

}  // namespace

TopicIndex::NodeId TopicIndex::Child(NodeId parent, std::string_view word) const {
  if (word == kStarWord) return nodes_[parent].star;
  if (word == kHashWord) return nodes_[parent].hash;
  const auto known = words_.find(ToAbsl(word));
  if (known == words_.end()) return kRoot;
  const auto edge = edges_.find(Edge(parent, known->second.id));
  return edge == edges_.end() ? kRoot : edge->second;
}

TopicIndex::NodeId TopicIndex::NewNode() {
  if (free_nodes_.empty()) {
    nodes_.emplace_back();
    return static_cast<NodeId>(nodes_.size() - 1);
  }
  const NodeId id = free_nodes_.back();
  free_nodes_.pop_back();
  return id;
}

TopicIndex::NodeId TopicIndex::AddChild(NodeId parent, std::string_view word) {
  const NodeId id = NewNode();
  Node& node = nodes_[id];
  node.parent = parent;
  nodes_[parent].children += 1;
  if (word == kStarWord) {
    node.word = kStar;
    nodes_[parent].star = id;
  } else if (word == kHashWord) {
    node.word = kHash;
    nodes_[parent].hash = id;
  } else {
    Word& known = words_[ToAbsl(word)];
    if (known.uses++ == 0) {
      if (free_words_.empty()) {
        known.id = next_word_++;
      } else {
        known.id = free_words_.back();
        free_words_.pop_back();
      }
    }
    node.word = known.id;
    edges_.emplace(Edge(parent, known.id), id);
  }
  return id;
}

void TopicIndex::Add(BoundEntry* entry) {
  NodeId at = kRoot;
  Words words(entry->binding.binding_key);
  for (std::string_view word; words.Next(&word);) {
    const NodeId child = Child(at, word);
    at = child != kRoot ? child : AddChild(at, word);
  }
  FileEntry(nodes_[at].entries, entry);
}

void TopicIndex::Remove(const BoundEntry* entry) {
  std::vector<std::string_view> path;
  NodeId at = kRoot;
  Words words(entry->binding.binding_key);
  for (std::string_view word; words.Next(&word);) {
    at = Child(at, word);
    path.push_back(word);
  }
  UnfileEntry(nodes_[at].entries, entry);
  // Nodes that lead nowhere any more go, from the leaf up.
  for (; at != kRoot && nodes_[at].children == 0 && nodes_[at].entries.empty(); path.pop_back()) {
    // Having no children and no entries it is as good as new.
    nodes_[at].entries.shrink_to_fit();
    free_nodes_.push_back(at);
    const WordId gone = nodes_[at].word;
    at = nodes_[at].parent;
    nodes_[at].children -= 1;
    if (gone == kStar) {
      nodes_[at].star = kRoot;
    } else if (gone == kHash) {
      nodes_[at].hash = kRoot;
    } else {
      edges_.erase(Edge(at, gone));
      const auto word = words_.find(ToAbsl(path.back()));
      if (--word->second.uses == 0) {
        free_words_.push_back(gone);
        words_.erase(word);
      }
    }
  }
}

void TopicIndex::Activate(NodeId id, std::vector<NodeId>* active) {
  // A `#` that may stand for no words is reached together with its parent.
  for (bool first = true; first || id != kRoot; id = nodes_[id].hash, first = false) {
    Node& node = nodes_[id];
    if (node.active_at == step_) return;
    node.active_at = step_;
    active->push_back(id);
  }
}

void TopicIndex::Advance(NodeId id, WordId word, std::vector<NodeId>* active) {
  const Node& node = nodes_[id];
  if (node.word == kHash) Activate(id, active);
  if (node.star != kRoot) Activate(node.star, active);
  if (word == kNoWord || node.children == 0) return;
  if (const auto edge = edges_.find(Edge(id, word)); edge != edges_.end()) {
    Activate(edge->second, active);
  }
}

bool TopicIndex::Match(std::string_view key, int64_t* steps_left,
                       std::vector<BoundEntry*>* matched) {
  active_.clear();
  ++step_;
  Activate(kRoot, &active_);
  Words words(key);
  for (std::string_view text; words.Next(&text) && !active_.empty();) {
    *steps_left -= static_cast<int64_t>(active_.size());
    if (*steps_left < 0) return false;
    // A word that no pattern has only goes with `*` and `#`.
    const auto known = words_.find(ToAbsl(text));
    const WordId word = known == words_.end() ? kNoWord : known->second.id;
    ++step_;
    next_active_.clear();
    for (const NodeId id : active_) Advance(id, word, &next_active_);
    active_.swap(next_active_);
  }
  for (const NodeId id : active_) {
    const BoundEntries& entries = nodes_[id].entries;
    *steps_left -= static_cast<int64_t>(entries.size());
    if (*steps_left < 0) return false;
    matched->insert(matched->end(), entries.begin(), entries.end());
  }
  return true;
}

}  // namespace sluice::broker
