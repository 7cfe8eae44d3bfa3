#include "server/model/ids.h"

#include <limits>

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(MessageIdTest, KeepsItsForm) {
  // Clients and stores hold ids.
  EXPECT_EQ(FormatMessageId({0, 1, 5, 1}), "AQAAAAAAAQUAAAAAAAAAAQ");
}

TEST(MessageIdTest, SaysWhereTheMessageWasStored) {
  const MessagePosition positions[] = {
      {0, 1, 0, 1},
      {7, 123'456, kDelayedLane, 1ull << 40},
      {std::numeric_limits<ShardId>::max(), std::numeric_limits<QueueId>::max(),
       std::numeric_limits<Lane>::max(), std::numeric_limits<Seq>::max()},
  };
  for (const MessagePosition& position : positions) {
    EXPECT_EQ(ParseMessageId(FormatMessageId(position)), position);
  }
}

TEST(MessageIdTest, RefusesWhatIsNone) {
  const std::string id = FormatMessageId({0, 1, 5, 1});
  EXPECT_FALSE(ParseMessageId(""));
  EXPECT_FALSE(ParseMessageId(id.substr(1)));
  EXPECT_FALSE(ParseMessageId(id + "A"));
  EXPECT_FALSE(ParseMessageId("!" + id.substr(1)));
  // Another version.
  EXPECT_FALSE(ParseMessageId("Ag" + id.substr(2)));
}

TEST(LaneTest, TheHighestPriorityIsTheFirstLane) {
  EXPECT_EQ(LaneOfPriority(kPriorityMax), 0);
  EXPECT_EQ(LaneOfPriority(kPriorityMin), kImmediateLanes - 1);
  for (int priority = kPriorityMin; priority <= kPriorityMax; ++priority) {
    EXPECT_EQ(PriorityOfLane(LaneOfPriority(priority)), priority);
  }
}

}  // namespace
}  // namespace sluice
