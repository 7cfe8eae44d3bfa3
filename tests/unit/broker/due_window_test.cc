// The window over the next due messages: what it keeps, pages and must not miss.
#include "server/broker/due_window.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace sluice::broker {
namespace {

using Key = DueWindow::Key;

// The index as a store would have it, and a window over it.
class World {
 public:
  void Add(int64_t due_ms) {
    const Key key{due_ms, ++seq_};
    pending_.push_back({++lsn_, key});
    window_.Add(key, lsn_, durable_);
  }
  // The next batches become durable.
  void Commit(size_t batches) {
    while (batches-- > 0 && !pending_.empty()) {
      durable_ = pending_.front().first;
      index_.insert(pending_.front().second);
      pending_.pop_front();
    }
  }
  void StartPage() {
    const Key from = window_.StartPage(durable_);
    page_.clear();
    for (auto it = index_.lower_bound(from);
         it != index_.end() && page_.size() < DueWindow::kPageRowsMax; ++it) {
      page_.push_back(*it);
    }
  }
  void FinishPage() { window_.OnPage(page_, page_.size() < DueWindow::kPageRowsMax); }
  void Page() {
    StartPage();
    FinishPage();
  }
  DueWindow& window() { return window_; }
  const std::set<Key>& index() const { return index_; }

 private:
  DueWindow window_;
  std::set<Key> index_;
  std::deque<std::pair<Lsn, Key>> pending_;
  std::vector<Key> page_;
  Seq seq_ = 0;
  Lsn lsn_ = 0;
  Lsn durable_ = 0;
};

TEST(DueWindow, AnEmptyOneWantsNothing) {
  DueWindow window;
  EXPECT_TRUE(window.empty());
  EXPECT_FALSE(window.WantsPage());
  EXPECT_EQ(window.FirstDueMs(), std::nullopt);
  EXPECT_TRUE(window.PopDue(1'000'000, 10).empty());
}

TEST(DueWindow, PopsInOrderOfTimeThenSeqAndAtMostWhatIsAskedFor) {
  World world;
  for (const int64_t due_ms : {30, 10, 20, 10}) world.Add(due_ms);
  EXPECT_EQ(world.window().FirstDueMs(), 10);
  EXPECT_TRUE(world.window().PopDue(9, 10).empty());
  EXPECT_EQ(world.window().PopDue(20, 2), (std::vector<Key>{{10, 2}, {10, 4}}));
  EXPECT_EQ(world.window().PopDue(20, 2), (std::vector<Key>{{20, 3}}));
  world.window().PutBack({20, 3});
  EXPECT_EQ(world.window().PopDue(30, 10), (std::vector<Key>{{20, 3}, {30, 1}}));
}

TEST(DueWindow, KeepsTheFirstUpToItsLimitAndPagesTheRestWhenItRunsLow) {
  World world;
  constexpr size_t kMax = DueWindow::kEntriesMax;
  for (size_t i = 0; i < kMax; ++i) world.Add(1000 + static_cast<int64_t>(i));
  world.Commit(kMax);
  EXPECT_EQ(world.window().size(), kMax);
  EXPECT_FALSE(world.window().WantsPage());
  world.Add(999);  // one too many: the last one goes
  world.Add(5'000'000);
  EXPECT_EQ(world.window().size(), kMax);
  EXPECT_FALSE(world.window().WantsPage());
  world.Commit(2);
  EXPECT_EQ(world.window().PopDue(5'000'000, kMax - DueWindow::kEntriesLow).size(),
            kMax - DueWindow::kEntriesLow);
  EXPECT_FALSE(world.window().WantsPage());
  EXPECT_EQ(world.window().PopDue(5'000'000, 1).size(), 1u);
  EXPECT_TRUE(world.window().WantsPage());
  world.StartPage();
  EXPECT_FALSE(world.window().WantsPage()) << "one at a time";
  EXPECT_TRUE(world.window().reading());
  world.FinishPage();
  EXPECT_FALSE(world.window().WantsPage()) << "that was all";
  const auto rest = world.window().PopDue(5'000'000, kMax);
  ASSERT_EQ(rest.size(), DueWindow::kEntriesLow - 1 + 2);
  EXPECT_EQ(rest.back().due_ms, 5'000'000);
}

TEST(DueWindow, WhatIsAddedWhileAPageIsReadIsNotMissed) {
  World world;
  world.window().StartUnread();
  for (int64_t due_ms : {10, 20, 30}) world.Add(due_ms);
  world.Commit(3);
  world.Add(15);  // not durable when the page is read
  world.StartPage();
  world.Add(25);
  world.Commit(2);
  world.FinishPage();
  EXPECT_EQ(world.window().PopDue(100, 100),
            (std::vector<Key>{{10, 1}, {15, 4}, {20, 2}, {25, 5}, {30, 3}}));
}

TEST(DueWindow, APageThatATrimHasOvertakenIsReadAgain) {
  World world;
  constexpr int kFar = 2 * DueWindow::kEntriesMax;
  for (int i = 0; i < kFar; ++i) world.Add(1'000'000 + i);
  world.Commit(kFar);
  std::set<Key> popped;
  for (const Key& key : world.window().PopDue(2'000'000, DueWindow::kEntriesMax - 10)) {
    popped.insert(key);
  }
  world.StartPage();
  // Earlier ones fill the window while the page is being read, so that it is trimmed.
  for (int i = 0; i < kFar; ++i) world.Add(1000 + i);
  world.Commit(kFar);
  world.FinishPage();
  for (int round = 0; round < 100; ++round) {
    for (const Key& key : world.window().PopDue(2'000'000, 1000)) popped.insert(key);
    if (world.window().WantsPage()) world.Page();
  }
  EXPECT_EQ(popped, world.index());
}

TEST(DueWindow, RandomlyNothingIsMissedAndNothingComesLate) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    std::mt19937 random(seed);
    World world;
    world.window().StartUnread();
    std::set<Key> popped;
    bool reading = false;
    int64_t now_ms = 0;
    for (int step = 0; step < 4000; ++step) {
      for (uint32_t i = random() % 40; step < 3000 && i > 0; --i) {
        world.Add(now_ms + 1 + static_cast<int64_t>(random() % 100'000));
      }
      world.Commit(random() % 60);
      if (reading && random() % 3 == 0) {
        world.FinishPage();
        reading = false;
      } else if (!reading && world.window().WantsPage()) {
        world.StartPage();
        reading = true;
      }
      now_ms += random() % 50;
      if (step >= 3000) now_ms += 1000;
      for (const Key& key : world.window().PopDue(now_ms, 500)) popped.insert(key);
      ASSERT_LE(world.window().size(), DueWindow::kEntriesMax);
    }
    for (const Key& key : world.index()) {
      ASSERT_TRUE(popped.contains(key)) << "seed " << seed << " due " << key.due_ms;
    }
  }
}

}  // namespace
}  // namespace sluice::broker
