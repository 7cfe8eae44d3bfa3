#include "server/broker/due_window.h"

#include <algorithm>
#include <iterator>

namespace sluice::broker {

void DueWindow::Add(Key key, Lsn lsn, Lsn durable_lsn) {
  while (!reading_ && !recent_.empty() && recent_.front().first <= durable_lsn) {
    recent_.pop_front();
  }
  if (key < end_) {
    keys_.insert(key);
    Trim();
  }
  // Also what is in the window now: trimming may take it out again before it is durable.
  recent_.push_back({lsn, key});
}

// What is trimmed is in the index, or among the recent ones.
void DueWindow::Trim() {
  while (keys_.size() > kEntriesMax) {
    const auto last = std::prev(keys_.end());
    end_ = *last;
    keys_.erase(last);
  }
}

std::vector<DueWindow::Key> DueWindow::PopDue(int64_t now_ms, size_t max) {
  std::vector<Key> due;
  auto it = keys_.begin();
  while (it != keys_.end() && it->due_ms <= now_ms && due.size() < max) due.push_back(*it++);
  keys_.erase(keys_.begin(), it);
  return due;
}

DueWindow::Key DueWindow::StartPage(Lsn durable_lsn) {
  while (!recent_.empty() && recent_.front().first <= durable_lsn) recent_.pop_front();
  reading_ = true;
  page_begin_ = end_;
  return end_;
}

void DueWindow::OnPage(const std::vector<Key>& keys, bool exhausted) {
  reading_ = false;
  // The window was trimmed meanwhile: the page would leave a gap.
  if (end_ != page_begin_) return;
  if (exhausted) {
    end_ = kEnd;
  } else if (!keys.empty()) {
    end_ = {keys.back().due_ms, keys.back().seq + 1};
  }
  keys_.insert(keys.begin(), keys.end());
  for (const auto& [lsn, key] : recent_) {
    if (page_begin_ <= key && key < end_) keys_.insert(key);
  }
  Trim();
}

}  // namespace sluice::broker
