#include "client/cpp/status.h"

#include <gtest/gtest.h>

#include "tests/unit/client/fake_server.h"

namespace sluice::client {
namespace {

TEST(StatusTest, KeepsTheReasonOfARefusal) {
  const absl::Status status =
      FromGrpc(Refusal(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND", "no queue 'a'"));
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(status.message(), "no queue 'a'");
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_QUEUE_NOT_FOUND);
  EXPECT_FALSE(MaybeHappened(status));
}

TEST(StatusTest, AnItemTellsHowLongToWait) {
  v1::ItemStatus item;
  item.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  item.set_reason(v1::ERROR_REASON_QUEUE_FULL);
  item.mutable_retry_after()->set_seconds(2);
  const absl::Status status = FromItem(item);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_QUEUE_FULL);
  EXPECT_EQ(RetryAfterOf(status), absl::Seconds(2));
}

TEST(StatusTest, ADrainingServerDidNotDoIt) {
  EXPECT_TRUE(MaybeHappened(absl::UnavailableError("Socket closed")));
  EXPECT_FALSE(
      MaybeHappened(FromGrpc(Refusal(grpc::StatusCode::UNAVAILABLE, "DRAINING", "shutting down"))));
}

TEST(StatusTest, AnAgedStreamDidNotDoWhatItLeftUnanswered) {
  EXPECT_FALSE(
      MaybeHappened(FromGrpc(Refusal(grpc::StatusCode::UNAVAILABLE, "STREAM_AGED", "open anew"))));
}

TEST(StatusTest, OnlySluicesOwnWordMakesARefusal) {
  // How gRPC ends calls when its memory is short, after they were handed over.
  for (const auto code :
       {grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL,
        grpc::StatusCode::UNIMPLEMENTED, grpc::StatusCode::UNAUTHENTICATED,
        grpc::StatusCode::PERMISSION_DENIED, grpc::StatusCode::FAILED_PRECONDITION}) {
    EXPECT_TRUE(MaybeHappened(FromGrpc(grpc::Status(code, "RST_STREAM")))) << code;
  }
  EXPECT_FALSE(
      MaybeHappened(FromGrpc(Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", "full"))));
  // Of a later server, whose reasons this client does not know.
  EXPECT_FALSE(
      MaybeHappened(FromGrpc(Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_HOT", "wait"))));
  EXPECT_FALSE(MaybeHappened(FromGrpc(grpc::Status::OK)));
  EXPECT_FALSE(MaybeHappened(absl::NotFoundError("a local file")));
}

TEST(StatusTest, BrokenStreamsAreOpenedAgainAndRefusedOnesAreNot) {
  for (const auto code : {grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL,
                          grpc::StatusCode::UNKNOWN, grpc::StatusCode::UNAVAILABLE}) {
    EXPECT_TRUE(ReopenHelps(FromGrpc(grpc::Status(code, "RST_STREAM")))) << code;
  }
  for (const auto code : {grpc::StatusCode::UNIMPLEMENTED, grpc::StatusCode::PERMISSION_DENIED}) {
    EXPECT_FALSE(ReopenHelps(FromGrpc(grpc::Status(code, "no")))) << code;
  }
  EXPECT_TRUE(ReopenHelps(FromGrpc(Refusal(grpc::StatusCode::UNAVAILABLE, "DRAINING", "bye"))));
  EXPECT_FALSE(
      ReopenHelps(FromGrpc(Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", "full"))));
  EXPECT_FALSE(ReopenHelps(FromGrpc(grpc::Status::OK)));
}

TEST(StatusTest, KnowsThatNobodyListens) {
  Client client({.address = "127.0.0.1:1"});
  const auto answer = client.Call(&v1::AdminService::StubInterface::GetServerInfo,
                                  v1::GetServerInfoRequest());
  EXPECT_TRUE(NotConnected(answer.status())) << answer.status();
  EXPECT_FALSE(MaybeHappened(answer.status()));
  EXPECT_TRUE(IsNotSent(NotSent(answer.status())));
  EXPECT_FALSE(MaybeHappened(NotSent(answer.status())));
}

}  // namespace
}  // namespace sluice::client
