#include "server/model/server_fields.h"

#include <string>

#include <gtest/gtest.h>

#include "sluice/v1/message.pb.h"

namespace sluice {
namespace {

// The bytes are written by hand; protobuf has to agree with them.
TEST(ServerFieldsTest, AreIdAndPublishTimeOfAMessage) {
  const MessagePosition position{0, 42, 3, 1'000'000};
  for (const int64_t publish_ms : {int64_t{1}, int64_t{999}, int64_t{1'700'000'000'123},
                                   int64_t{33'000'000'000'000}}) {
    v1::Message message;
    message.set_body("body");
    std::string bytes = message.SerializeAsString();
    const size_t own_bytes = bytes.size();
    bytes.resize(own_bytes + kServerFieldsBytes);
    WriteServerFields(position, publish_ms, bytes.data() + own_bytes);
    v1::Message read;
    ASSERT_TRUE(read.ParseFromString(bytes));
    EXPECT_EQ(read.body(), "body");
    EXPECT_EQ(read.id(), FormatMessageId(position));
    EXPECT_EQ(read.publish_time().seconds(), publish_ms / 1000);
    EXPECT_EQ(read.publish_time().nanos(), publish_ms % 1000 * 1'000'000);
  }
}

}  // namespace
}  // namespace sluice
