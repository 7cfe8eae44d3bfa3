#include "server/api/error_mapping.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

TEST(ErrorMappingTest, EveryReasonCarriesItsCodeAndName) {
  for (int number = 1; v1::ErrorReason_IsValid(number); ++number) {
    const auto reason = static_cast<ErrorReason>(number);
    const grpc::Status status = ToGrpcStatus(MakeError(reason, "what happened"));
    EXPECT_EQ(static_cast<int>(status.error_code()), static_cast<int>(CodeOf(reason)));
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNKNOWN);
    const auto details = DetailsOf(status);
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(details.details(0).UnpackTo(&info));
    EXPECT_EQ(info.domain(), "sluice");
    EXPECT_EQ("ERROR_REASON_" + info.reason(),
              v1::ErrorReason_Name(static_cast<v1::ErrorReason>(number)));
    v1::ItemStatus item;
    ToItemStatus(MakeError(reason, "what happened"), &item);
    EXPECT_EQ(item.reason(), number);
    EXPECT_EQ(item.code(), static_cast<int>(CodeOf(reason)));
    EXPECT_EQ(item.message(), "what happened");
  }
}

TEST(ErrorMappingTest, FieldAndWaitingTimeBecomeDetails) {
  const auto status =
      WithRetryAfter(MakeFieldError("messages[3].body", "too large"), /*retry_after_ms=*/1'250);
  const auto details = DetailsOf(ToGrpcStatus(status));
  ASSERT_EQ(details.details_size(), 3);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations(0).field(), "messages[3].body");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(2).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 250'000'000);
  v1::ItemStatus item;
  ToItemStatus(status, &item);
  EXPECT_EQ(item.retry_after().nanos(), 250'000'000);
}

TEST(ErrorMappingTest, NotBuiltFieldsAreUnimplementedWithReasonInvalidField) {
  const grpc::Status status = ToGrpcStatus(MakeNotBuiltError("messages[0].ttl"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(DetailsOf(status).details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "INVALID_FIELD");
}

TEST(ErrorMappingTest, LongTextsAreCutBetweenCharactersAndFitTheLimit) {
  std::string text;
  for (int i = 0; i < 5'000; ++i) text += "\xc3\xa4";
  const grpc::Status status = ToGrpcStatus(MakeFieldError(text, text));
  EXPECT_LE(status.error_details().size(), kErrorDetailsBytesMax);
  EXPECT_EQ(status.error_message().size() % 2, 0u);
}

TEST(ErrorMappingTest, OkStaysOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(ErrorMappingTest, AStatusWithoutReasonIsStillKnownAsOurs) {
  const auto details = DetailsOf(ToGrpcStatus(absl::UnimplementedError("not built")));
  google::rpc::ErrorInfo info;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "sluice");
  EXPECT_EQ(info.reason(), "UNSPECIFIED");
}

}  // namespace
}  // namespace sluice::api
