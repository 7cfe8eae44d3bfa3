#include "server/api/page_token.h"

#include <gtest/gtest.h>

#include "server/model/error.h"

namespace sluice::api {
namespace {

const ReceiptCodec::Key kKey = {1, 2, 3};

TEST(PageTokenTest, ContinuesTheSameListingAlsoAfterARestart) {
  const std::string name(255, 'q');
  const std::string token = PageTokenCodec(ReceiptCodec(kKey)).Encode("ListQueues/a*", name);
  const auto last = PageTokenCodec(ReceiptCodec(kKey)).Decode("ListQueues/a*", token);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(*last, name);
}

TEST(PageTokenTest, EmptyIsTheStart) {
  EXPECT_EQ(*PageTokenCodec(ReceiptCodec(kKey)).Decode("ListQueues/", ""), "");
}

TEST(PageTokenTest, RefusesOtherListingsOtherStoresAndEveryChange) {
  const PageTokenCodec codec{ReceiptCodec(kKey)};
  const std::string token = codec.Encode("ListQueues/a*", "apple");
  EXPECT_EQ(ReasonOf(codec.Decode("ListQueues/b*", token).status()),
            ErrorReason::kPageTokenInvalid);
  EXPECT_FALSE(PageTokenCodec(ReceiptCodec({9})).Decode("ListQueues/a*", token).ok());
  for (size_t i = 0; i < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto last = codec.Decode("ListQueues/a*", changed);
    // Bits that base64 does not use may differ; the name may not.
    if (last.ok()) {
      EXPECT_EQ(*last, "apple") << i;
    }
    EXPECT_FALSE(codec.Decode("ListQueues/a*", token.substr(0, i)).ok() && i > 0);
  }
  EXPECT_FALSE(codec.Decode("ListQueues/a*", std::string(100'000, 'A')).ok());
}

}  // namespace
}  // namespace sluice::api
