#include "server/model/receipt.h"

#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

const Receipt kReceipt{{1, 2, 3, 4}, 5, 6};

std::string Encode(const ReceiptCodec& codec, const Receipt& receipt) {
  std::string text(kReceiptBytes, '\0');
  codec.Encode(receipt, text.data());
  return text;
}

TEST(ReceiptCodecTest, ReadsBackWhatItWrote) {
  const ReceiptCodec codec(ReceiptCodec::NewKey());
  EXPECT_EQ(codec.Decode(Encode(codec, kReceipt)), kReceipt);
}

TEST(ReceiptCodecTest, TakesNoneOfAnotherKey) {
  const ReceiptCodec ours(ReceiptCodec::NewKey());
  const ReceiptCodec theirs(ReceiptCodec::NewKey());
  EXPECT_FALSE(ours.Decode(Encode(theirs, kReceipt)));
}

TEST(ReceiptCodecTest, NoticesEveryChangeOfACharacter) {
  const ReceiptCodec codec(ReceiptCodec::Key{});
  const std::string text = Encode(codec, kReceipt);
  for (size_t i = 0; i < text.size(); ++i) {
    for (const char other : {'A', 'b', '7', '_', '=', '\0'}) {
      if (text[i] == other) continue;
      std::string garbled = text;
      garbled[i] = other;
      EXPECT_FALSE(codec.Decode(garbled)) << i << " " << other;
    }
  }
}

TEST(ReceiptCodecTest, TakesNoOtherLength) {
  const ReceiptCodec codec(ReceiptCodec::Key{});
  const std::string text = Encode(codec, kReceipt);
  EXPECT_FALSE(codec.Decode(""));
  EXPECT_FALSE(codec.Decode(text.substr(0, text.size() - 1)));
  EXPECT_FALSE(codec.Decode(text + "A"));
}

// A restart with the same store must honour what was handed out before.
TEST(ReceiptCodecTest, KeepsItsForm) {
  const ReceiptCodec codec(ReceiptCodec::Key{});
  EXPECT_EQ(Encode(codec, kReceipt).substr(0, 32), "AQABAAAAAgMAAAAAAAAABAAAAAUAAAAG");
}

}  // namespace
}  // namespace sluice
