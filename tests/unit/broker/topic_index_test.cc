#include "server/broker/topic_index.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kAllSteps = std::numeric_limits<int64_t>::max();

class Patterns {
 public:
  BoundEntry* Add(const std::string& pattern) {
    auto made = std::make_unique<BoundEntry>();
    made->binding.binding_key = pattern;
    index.Add(made.get());
    entries_.push_back(std::move(made));
    return entries_.back().get();
  }

  // Of the patterns that match, sorted.
  std::vector<std::string> Match(const std::string& key) {
    int64_t steps = kAllSteps;
    std::vector<BoundEntry*> matched;
    EXPECT_TRUE(index.Match(key, &steps, &matched));
    std::vector<std::string> patterns;
    for (const BoundEntry* entry : matched) patterns.push_back(entry->binding.binding_key);
    std::sort(patterns.begin(), patterns.end());
    return patterns;
  }

  TopicIndex index;

 private:
  std::vector<std::unique_ptr<BoundEntry>> entries_;
};

TEST(TopicIndexTest, AWordStandsForItself) {
  Patterns patterns;
  patterns.Add("a.b");
  EXPECT_THAT(patterns.Match("a.b"), ElementsAre("a.b"));
  EXPECT_THAT(patterns.Match("a"), IsEmpty());
  EXPECT_THAT(patterns.Match("a.b.c"), IsEmpty());
  EXPECT_THAT(patterns.Match("a.c"), IsEmpty());
  EXPECT_THAT(patterns.Match("ab"), IsEmpty());
}

TEST(TopicIndexTest, AStarStandsForExactlyOneWord) {
  Patterns patterns;
  patterns.Add("a.*.c");
  patterns.Add("*");
  EXPECT_THAT(patterns.Match("a.b.c"), ElementsAre("a.*.c"));
  EXPECT_THAT(patterns.Match("a..c"), ElementsAre("a.*.c"));
  EXPECT_THAT(patterns.Match("a.c"), IsEmpty());
  EXPECT_THAT(patterns.Match("a.b.b.c"), IsEmpty());
  EXPECT_THAT(patterns.Match("a"), ElementsAre("*"));
}

TEST(TopicIndexTest, AHashStandsForAnyNumberOfWordsAndNone) {
  Patterns patterns;
  patterns.Add("a.#");
  patterns.Add("#.z");
  patterns.Add("a.#.z");
  EXPECT_THAT(patterns.Match("a"), ElementsAre("a.#"));
  EXPECT_THAT(patterns.Match("z"), ElementsAre("#.z"));
  EXPECT_THAT(patterns.Match("a.z"), ElementsAre("#.z", "a.#", "a.#.z"));
  EXPECT_THAT(patterns.Match("a.b.c.z"), ElementsAre("#.z", "a.#", "a.#.z"));
  EXPECT_THAT(patterns.Match("b"), IsEmpty());
}

TEST(TopicIndexTest, TheEmptyKeyHasNoWords) {
  Patterns patterns;
  patterns.Add("");
  patterns.Add("#");
  patterns.Add("#.#");
  patterns.Add("*");
  EXPECT_THAT(patterns.Match(""), ElementsAre("", "#", "#.#"));
  EXPECT_THAT(patterns.Match("x"), ElementsAre("#", "#.#", "*"));
  EXPECT_THAT(patterns.Match("."), ElementsAre("#", "#.#"));
}

TEST(TopicIndexTest, WildcardsInsideAWordOrInAKeyAreTextLikeAnyOther) {
  Patterns patterns;
  patterns.Add("a*");
  patterns.Add("x");
  patterns.Add("*");
  EXPECT_THAT(patterns.Match("ab"), ElementsAre("*"));
  EXPECT_THAT(patterns.Match("a*"), ElementsAre("*", "a*"));
  EXPECT_THAT(patterns.Match("*"), ElementsAre("*"));
  EXPECT_THAT(patterns.Match("#"), ElementsAre("*"));
}

TEST(TopicIndexTest, TheSamePatternTwiceIsTwoEntries) {
  Patterns patterns;
  BoundEntry* first = patterns.Add("a.#");
  BoundEntry* second = patterns.Add("a.#");
  BoundEntry* third = patterns.Add("a.#");
  EXPECT_EQ(patterns.Match("a").size(), 3u);
  patterns.index.Remove(first);
  EXPECT_EQ(patterns.Match("a").size(), 2u);
  patterns.index.Remove(third);
  patterns.index.Remove(second);
  EXPECT_THAT(patterns.Match("a"), IsEmpty());
}

TEST(TopicIndexTest, RemovingGivesNodesBackAndLeavesTheRest) {
  Patterns patterns;
  BoundEntry* longer = patterns.Add("a.b.*.#");
  EXPECT_EQ(patterns.index.nodes(), 4u);
  patterns.Add("a.b");
  EXPECT_EQ(patterns.index.nodes(), 4u);
  patterns.index.Remove(longer);
  EXPECT_EQ(patterns.index.nodes(), 2u);
  EXPECT_THAT(patterns.Match("a.b"), ElementsAre("a.b"));
  EXPECT_THAT(patterns.Match("a.b.c"), IsEmpty());
  patterns.Add("c.*");
  EXPECT_THAT(patterns.Match("c.d"), ElementsAre("c.*"));
}

TEST(TopicIndexTest, ManyHashesDoNotTakeExponentialTime) {
  Patterns patterns;
  std::string pattern = "#";
  for (int i = 0; i < 30; ++i) pattern += ".a.#";
  patterns.Add(pattern + ".b");
  std::string key = "a";
  while (key.size() + 2 <= 255) key += ".a";
  int64_t steps = 128 * 64;  // words * nodes
  std::vector<BoundEntry*> matched;
  EXPECT_TRUE(patterns.index.Match(key, &steps, &matched));
  EXPECT_THAT(matched, IsEmpty());
}

TEST(TopicIndexTest, GivesUpWhenItsStepsAreUsed) {
  Patterns patterns;
  patterns.Add("a");
  patterns.Add("a");
  std::vector<BoundEntry*> matched;
  int64_t steps = 3;  // the root, and two entries
  EXPECT_TRUE(patterns.index.Match("a", &steps, &matched));
  EXPECT_EQ(steps, 0);
  steps = 2;
  EXPECT_FALSE(patterns.index.Match("a", &steps, &matched));
}

// ---- against the definition

using WordList = std::vector<std::string>;

WordList Split(const std::string& key) {
  WordList words;
  if (key.empty()) return words;
  size_t begin = 0;
  for (size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1) {
    words.push_back(key.substr(begin, dot - begin));
  }
  words.push_back(key.substr(begin));
  return words;
}

bool NaiveMatch(const WordList& pattern, size_t p, const WordList& key, size_t k) {
  if (p == pattern.size()) return k == key.size();
  if (pattern[p] == "#") {
    return NaiveMatch(pattern, p + 1, key, k) ||
           (k < key.size() && NaiveMatch(pattern, p, key, k + 1));
  }
  return k < key.size() && (pattern[p] == "*" || pattern[p] == key[k]) &&
         NaiveMatch(pattern, p + 1, key, k + 1);
}

TEST(TopicIndexTest, AgreesWithTheDefinitionOnRandomPatterns) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const auto pick = [&](size_t below) { return static_cast<size_t>(random() % below); };
  const WordList pattern_words = {"a", "b", "c", "*", "*", "#", "#", ""};
  const WordList key_words = {"a", "b", "c", "d", "", "*"};
  const auto make = [&](const WordList& from, size_t words_max) {
    std::string key;
    const size_t count = pick(words_max + 1);
    for (size_t i = 0; i < count; ++i) key += (i ? "." : "") + from[pick(from.size())];
    return key;
  };

  for (int round = 0; round < 20; ++round) {
    TopicIndex index;
    std::vector<std::unique_ptr<BoundEntry>> live;
    size_t matches = 0;
    for (int operation = 0; operation < 2000; ++operation) {
      const size_t choice = pick(10);
      if (choice < 4) {
        live.push_back(std::make_unique<BoundEntry>());
        live.back()->binding.binding_key = make(pattern_words, 6);
        index.Add(live.back().get());
      } else if (choice < 7 && !live.empty()) {
        std::swap(live[pick(live.size())], live.back());
        index.Remove(live.back().get());
        live.pop_back();
      } else {
        const std::string key = make(key_words, 7);
        std::vector<const BoundEntry*> expected;
        for (const auto& entry : live) {
          if (NaiveMatch(Split(entry->binding.binding_key), 0, Split(key), 0)) {
            expected.push_back(entry.get());
          }
        }
        int64_t steps = kAllSteps;
        std::vector<BoundEntry*> matched;
        ASSERT_TRUE(index.Match(key, &steps, &matched));
        matches += matched.size();
        ASSERT_THAT(matched, ::testing::UnorderedElementsAreArray(expected)) << "key " << key;
      }
    }
    EXPECT_GT(matches, 0u);
    for (const auto& entry : live) index.Remove(entry.get());
    EXPECT_EQ(index.nodes(), 0u);
  }
}

}  // namespace
}  // namespace sluice::broker
