#include "server/model/hash.h"

#include <cstdint>
#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

// The key and the inputs of the reference implementation's test vectors: 00 01 02 ...
KeyedHash::Key ReferenceKey() {
  KeyedHash::Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
  return key;
}
std::string ReferenceInput(size_t bytes) {
  std::string input;
  for (size_t i = 0; i < bytes; ++i) input.push_back(static_cast<char>(i));
  return input;
}

// Stores hold these hashes: they must stay what they are.
TEST(KeyedHashTest, GroupsAreSipHash24) {
  EXPECT_EQ(KeyedHash(ReferenceKey()).Group(ReferenceInput(15)), 0xa129ca6149be45e5);
}

TEST(KeyedHashTest, WideHashesAreSipHash24With128Bits) {
  const Hash128 expected = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                            0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
  EXPECT_EQ(KeyedHash(ReferenceKey()).Wide(""), expected);
}

TEST(KeyedHashTest, AnotherKeyGivesOtherHashes) {
  const KeyedHash other(KeyedHash::NewKey());
  EXPECT_NE(other.Group("orders"), KeyedHash(ReferenceKey()).Group("orders"));
  EXPECT_NE(other.Wide("orders"), KeyedHash(ReferenceKey()).Wide("orders"));
  EXPECT_NE(KeyedHash::NewKey(), KeyedHash::NewKey());
}

}  // namespace
}  // namespace sluice
