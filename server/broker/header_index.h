// The bindings of one headers exchange, by the headers that they want.
//
// A header agrees when the message has an attribute of that name with exactly that value; an empty
// value is a value like any other and does not mean "any value".
//
// A binding that wants all its headers is filed under one of them, the one that selects best at the
// time; one that wants any is filed under each. So a message looks only at bindings of which at
// least one header agrees. Not thread-safe.
#ifndef SLUICE_SERVER_BROKER_HEADER_INDEX_H_
#define SLUICE_SERVER_BROKER_HEADER_INDEX_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/broker/bound_entry.h"

namespace sluice::broker {

using Attributes = std::vector<std::pair<std::string, std::string>>;

class HeaderIndex {
 public:
  // By `binding.headers` and `binding.header_match`, which must not change while it is here.
  void Add(BoundEntry* entry);
  void Remove(const BoundEntry* entry);

  // Appends the entries that agree, in no order; one that wants any may come more than once. Takes
  // what it looks at from `steps_left`; false: that was not enough, and `matched` is not complete.
  bool Match(const Attributes& attributes, int64_t* steps_left, std::vector<BoundEntry*>* matched);

 private:
  using HeaderView = std::pair<std::string_view, std::string_view>;
  struct HeaderHash {
    using is_transparent = void;
    size_t operator()(const HeaderView& header) const;
  };
  struct HeaderEqual {
    using is_transparent = void;
    bool operator()(const HeaderView& a, const HeaderView& b) const { return a == b; }
  };
  using Header = std::pair<std::string, std::string>;
  using Table = absl::flat_hash_map<Header, BoundEntries, HeaderHash, HeaderEqual>;

  bool AllAgree(const Binding& binding) const;

  Table all_;
  Table any_;
  BoundEntries unconditional_;  // want all of no headers
  std::vector<HeaderView> sorted_attributes_;  // of the message that is being matched
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_HEADER_INDEX_H_
