#include "server/broker/header_index.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "server/base/strings.h"

namespace sluice::broker {

size_t HeaderIndex::HeaderHash::operator()(const HeaderView& header) const {
  return absl::HashOf(ToAbsl(header.first), ToAbsl(header.second));
}

void HeaderIndex::Add(BoundEntry* entry) {
  const Binding& binding = entry->binding;
  if (binding.header_match == HeaderMatch::kAny) {
    for (const auto& header : binding.headers) any_[header].push_back(entry);
    return;
  }
  if (binding.headers.empty()) {
    FileEntry(unconditional_, entry);
    return;
  }
  const std::pair<const std::string, std::string>* best = nullptr;
  size_t best_size = 0;
  for (const auto& header : binding.headers) {
    const auto filed = all_.find(HeaderView(header));
    const size_t size = filed == all_.end() ? 0 : filed->second.size();
    if (best == nullptr || size < best_size) {
      best = &header;
      best_size = size;
    }
  }
  FileEntry(all_[*best], entry);
}

void HeaderIndex::Remove(const BoundEntry* entry) {
  const Binding& binding = entry->binding;
  if (binding.header_match == HeaderMatch::kAny) {
    for (const auto& header : binding.headers) {
      const auto filed = any_.find(HeaderView(header));
      BoundEntries& entries = filed->second;
      *std::find(entries.begin(), entries.end(), entry) = entries.back();
      entries.pop_back();
      if (entries.empty()) any_.erase(filed);
    }
    return;
  }
  if (binding.headers.empty()) return UnfileEntry(unconditional_, entry);
  // Under which header it was filed depended on the others of that time.
  for (const auto& header : binding.headers) {
    const auto filed = all_.find(HeaderView(header));
    if (filed == all_.end() || !IsFiled(filed->second, entry)) continue;
    UnfileEntry(filed->second, entry);
    if (filed->second.empty()) all_.erase(filed);
    return;
  }
}

bool HeaderIndex::AllAgree(const Binding& binding) const {
  return std::includes(sorted_attributes_.begin(), sorted_attributes_.end(),
                       binding.headers.begin(), binding.headers.end(),
                       [](const auto& a, const auto& b) { return HeaderView(a) < HeaderView(b); });
}

bool HeaderIndex::Match(const Attributes& attributes, int64_t* steps_left,
                        std::vector<BoundEntry*>* matched) {
  matched->insert(matched->end(), unconditional_.begin(), unconditional_.end());
  *steps_left -= static_cast<int64_t>(unconditional_.size());
  sorted_attributes_.assign(attributes.begin(), attributes.end());
  std::sort(sorted_attributes_.begin(), sorted_attributes_.end());
  for (const HeaderView& attribute : sorted_attributes_) {
    if (const auto any = any_.find(attribute); any != any_.end()) {
      *steps_left -= static_cast<int64_t>(any->second.size());
      if (*steps_left < 0) return false;
      matched->insert(matched->end(), any->second.begin(), any->second.end());
    }
    const auto all = all_.find(attribute);
    if (all == all_.end()) continue;
    for (BoundEntry* entry : all->second) {
      *steps_left -= static_cast<int64_t>(entry->binding.headers.size());
      if (*steps_left < 0) return false;
      if (AllAgree(entry->binding)) matched->push_back(entry);
    }
  }
  return *steps_left >= 0;
}

}  // namespace sluice::broker
