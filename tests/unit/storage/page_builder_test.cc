#include "server/storage/page_builder.h"

#include <string>

#include "gtest/gtest.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

constexpr uint64_t kSkipped = 77;

std::string Value(uint64_t group, std::string_view wire = "1234") {
  MessageInfo info;
  info.group_hash = group;
  std::string value;
  EncodeMessageHeader(info, &value);
  return value.append(wire);
}

ReadRange Limits(uint32_t messages_max, uint64_t bytes_max) {
  ReadRange range;
  range.messages_max = messages_max;
  range.bytes_max = bytes_max;
  range.skip_groups = std::make_shared<absl::flat_hash_set<uint64_t>>(
      absl::flat_hash_set<uint64_t>{kSkipped});
  return range;
}

TEST(PageBuilderTest, MessagesOfSkippedGroupsComeWithoutPayloadAndCountNothing) {
  const ReadRange range = Limits(2, 100);
  PageBuilder page(range);
  for (Seq seq = 1; seq <= 5; ++seq) {
    ASSERT_FALSE(page.Full());
    ASSERT_TRUE(page.Add(seq, Value(kSkipped)).ok());
  }
  ASSERT_TRUE(page.Add(6, Value(0)).ok());
  ASSERT_FALSE(page.Full());
  ASSERT_TRUE(page.Add(7, Value(kSkipped + 1)).ok());
  EXPECT_TRUE(page.Full());
  const auto messages = page.Take();
  ASSERT_EQ(messages.size(), 7u);
  EXPECT_FALSE(messages[0].payload);
  EXPECT_EQ(messages[0].seq, 1u);
  EXPECT_EQ(messages[0].info.group_hash, kSkipped);
  EXPECT_EQ(messages[5].payload.view(), "1234");
  EXPECT_EQ(messages[6].payload.view(), "1234");
}

TEST(PageBuilderTest, ThePageEndsWithTheMessageThatReachesTheBytes) {
  const ReadRange range = Limits(10, 5);
  PageBuilder page(range);
  ASSERT_TRUE(page.Add(1, Value(0)).ok());
  EXPECT_FALSE(page.Full());
  ASSERT_TRUE(page.Add(2, Value(0, "5")).ok());
  EXPECT_TRUE(page.Full());
}

TEST(PageBuilderTest, OneMessageComesHoweverFewBytesAreAllowed) {
  const ReadRange range = Limits(10, 0);
  PageBuilder page(range);
  EXPECT_FALSE(page.Full());
  ASSERT_TRUE(page.Add(1, Value(kSkipped)).ok());
  EXPECT_FALSE(page.Full()) << "a skipped message is not that one";
  ASSERT_TRUE(page.Add(2, Value(0)).ok());
  EXPECT_TRUE(page.Full());
}

TEST(PageBuilderTest, SkippedMessagesEndAPageAtTheirOwnLimit) {
  const ReadRange range = Limits(10, 100);
  PageBuilder page(range);
  const std::string value = Value(kSkipped);
  for (uint32_t i = 1; i < kSkippedPerPageMax; ++i) ASSERT_TRUE(page.Add(i, value).ok());
  EXPECT_FALSE(page.Full());
  ASSERT_TRUE(page.Add(kSkippedPerPageMax, value).ok());
  EXPECT_TRUE(page.Full());
}

TEST(PageBuilderTest, AMessageThatCannotBeReadIsDataLoss) {
  const ReadRange range = Limits(10, 100);
  PageBuilder page(range);
  std::string value = Value(0);
  value[0] = 9;
  EXPECT_EQ(page.Add(1, value).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::storage
