#include "client/cli/server_address.h"

#include <gtest/gtest.h>

namespace sluice::cli {
namespace {

TEST(ServerAddressTest, WhatGrpcCanConnectToIsRight) {
  for (const char* right :
       {"127.0.0.1:7070", "localhost:1", "sluice.example.org:65535", "my_service:7070",
        "[::1]:7070", "[fe80::1%eth0]:7070", "dns:localhost:7070", "dns:///sluice:7070",
        "dns://8.8.8.8/sluice", "ipv4:127.0.0.1:7070", "ipv4:10.0.0.1:1,10.0.0.2:2",
        "ipv6:[::1]:7070", "unix:/run/sluice.sock", "unix:///run/sluice.sock",
        "unix-abstract:sluice"}) {
    EXPECT_TRUE(CheckServerAddress(right).ok()) << right;
  }
}

TEST(ServerAddressTest, WhatIsNoAddressIsNamed) {
  for (const char* wrong :
       {"", " ", ":", "localhost", "localhost:", ":7070", "localhost:0", "localhost:65536",
        "localhost:-1", "localhost:+1", "localhost:http", "localhost:7070 ", "two words:7070",
        "::1:7070", "[::1]", "[]:7070", "[localhost]:7070", "http://localhost:7070",
        "localhost:7070/path", "ipv4:", "ipv4:garbage", "ipv4:127.0.0.1", "ipv4:127.0.0.1:1,",
        "ipv6:::1", "ipv6:[127.0.0.1]:1", "unix:", "unix-abstract:", "dns:", "dns:///"}) {
    const absl::Status status = CheckServerAddress(wrong);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_EQ(status.message().substr(0, std::string(wrong).size() + 2),
              "'" + std::string(wrong) + "'");
  }
}

}  // namespace
}  // namespace sluice::cli
