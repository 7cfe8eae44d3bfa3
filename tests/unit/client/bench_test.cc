// What a benchmark computes, without a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "client/cli/bench/body.h"
#include "client/cli/bench/histogram.h"
#include "client/cli/bench/ledger.h"
#include "client/cli/bench/report.h"
#include "client/cli/bench/schedule.h"

namespace sluice::cli::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kNanosPerMicro = 1000;
constexpr double kBucket = 1.005;
constexpr uint64_t kRun = 7;

TEST(LatencyHistogramTest, PercentilesAreNeverTooLowAndAtMostOneBucketTooHigh) {
  std::mt19937_64 random(20261127);
  std::lognormal_distribution<double> latency(5, 2);
  std::vector<double> all_us;
  LatencyHistogram histogram;
  for (int i = 0; i < 100'000; ++i) {
    const auto ns = static_cast<int64_t>((latency(random) + 1) * kNanosPerMicro);
    all_us.push_back(static_cast<double>(ns) / kNanosPerMicro);
    histogram.Record(ns);
  }
  std::sort(all_us.begin(), all_us.end());
  const LatencySummary summary = histogram.Summary();
  const auto expect = [&](double part, double got) {
    const double exact = all_us[static_cast<size_t>(std::ceil(part * all_us.size())) - 1];
    EXPECT_GE(got, exact * 0.999999) << part;
    EXPECT_LE(got, exact * kBucket * 1.000001) << part;
  };
  expect(0.5, summary.p50);
  expect(0.9, summary.p90);
  expect(0.99, summary.p99);
  expect(0.999, summary.p999);
  EXPECT_EQ(summary.count, 100'000);
  EXPECT_EQ(summary.max, all_us.back());
}

TEST(LatencyHistogramTest, MergingIsAsIfOneHadSeenAll) {
  LatencyHistogram one;
  LatencyHistogram other;
  for (int i = 1; i <= 99; ++i) one.Record(100 * kNanosPerMicro);
  other.Record(5000 * kNanosPerMicro);
  one.Merge(other);
  const LatencySummary summary = one.Summary();
  EXPECT_EQ(summary.count, 100);
  EXPECT_NEAR(summary.p99, 100, 1);
  EXPECT_EQ(summary.p999, 5000);
  EXPECT_EQ(summary.max, 5000);
  EXPECT_NEAR(summary.mean, 149, 0.1);
  one.Clear();
  EXPECT_EQ(one.Summary().count, 0);
  EXPECT_EQ(one.Summary().p99, 0);
}

TEST(LatencyHistogramTest, WhatLiesOutsideOfTheRangeStillCounts) {
  LatencyHistogram histogram;
  histogram.Record(-5);
  histogram.Record(10);
  EXPECT_LE(histogram.Summary().p99, 1);
  const int64_t two_hours_ns = int64_t{7200} * 1'000'000'000;
  histogram.Record(two_hours_ns);
  EXPECT_EQ(histogram.Summary().count, 3);
  EXPECT_EQ(histogram.Summary().p999, 7.2e9);
}

TEST(RateScheduleTest, ProducersTogetherKeepAnEvenPace) {
  constexpr int kProducers = 3;
  std::vector<int64_t> due;
  for (int producer = 0; producer < kProducers; ++producer) {
    const RateSchedule schedule(2000, kProducers, producer);
    for (int n = 0; n < 1000; ++n) due.push_back(schedule.DueNs(n));
  }
  std::sort(due.begin(), due.end());
  for (size_t i = 0; i < due.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(due[i]), static_cast<double>(i) * 500'000, 2);
  }
}

TEST(RateScheduleTest, DoesNotDriftInLongRuns) {
  const RateSchedule schedule(3, 1, 0);
  constexpr int64_t kYear = int64_t{365} * 86'400;
  EXPECT_EQ(schedule.DueNs(3 * kYear), kYear * 1'000'000'000);
}

TEST(ShareTest, AllPartsTogetherAreTheTotal) {
  for (const int64_t total : {0, 1, 7, 1000}) {
    int64_t sum = 0;
    for (int part = 0; part < 7; ++part) sum += ShareOf(total, 7, part);
    EXPECT_EQ(sum, total);
  }
  EXPECT_EQ(ShareOf(1, 2, 0), 1);
  EXPECT_EQ(ShareOf(1, 2, 1), 0);
}

TEST(BodyTest, CarriesItsStampAndHasItsSize) {
  for (const size_t size : {kStampBytes, size_t{100}, size_t{20} << 20}) {
    BodyMaker maker(std::make_shared<RandomBytes>(size), size, 1);
    const std::string body = maker.Make(
        {.run = kRun, .phase = 2, .producer = 1, .sequence = 99, .due_ns = 123});
    ASSERT_EQ(body.size(), size);
    const auto stamp = ReadStamp(body);
    ASSERT_TRUE(stamp.has_value());
    EXPECT_EQ(stamp->run, kRun);
    EXPECT_EQ(stamp->phase, 2);
    EXPECT_EQ(stamp->producer, 1);
    EXPECT_EQ(stamp->sequence, 99);
    EXPECT_EQ(stamp->due_ns, 123);
  }
  EXPECT_FALSE(ReadStamp("short").has_value());
}

TEST(BodyTest, NoTwoOfAProducerShareTheirBytes) {
  constexpr size_t kSize = 1000;
  BodyMaker maker(std::make_shared<RandomBytes>(kSize), kSize, 0);
  std::set<std::string> seen;
  // Over several laps through the random bytes.
  for (int i = 0; i < 50'000; ++i) {
    EXPECT_TRUE(seen.insert(maker.Make({}).substr(kStampBytes, 16)).second) << i;
  }
}

v1::Delivery DeliveryOf(const Stamp& stamp, int delivery_count = 1) {
  BodyMaker maker(std::make_shared<RandomBytes>(kStampBytes), kStampBytes, 0);
  v1::Delivery delivery;
  delivery.mutable_message()->set_body(maker.Make(stamp));
  delivery.set_delivery_count(delivery_count);
  return delivery;
}

TEST(LedgerTest, TellsRedeliveriesDuplicatesAndForeignMessagesApart) {
  Ledger ledger(kRun, 2);
  EXPECT_TRUE(ledger.Deliver(DeliveryOf({.run = kRun, .producer = 1, .sequence = 5})));
  EXPECT_TRUE(ledger.Deliver(DeliveryOf({.run = kRun, .producer = 0, .sequence = 5})));
  EXPECT_TRUE(ledger.Deliver(DeliveryOf({.run = kRun, .producer = 1, .sequence = 5}, 2)));
  EXPECT_TRUE(ledger.Deliver(DeliveryOf({.run = kRun, .producer = 1, .sequence = 5}, 1)));
  EXPECT_FALSE(ledger.Deliver(DeliveryOf({.run = kRun + 1, .producer = 1, .sequence = 6})));
  EXPECT_FALSE(ledger.Deliver(DeliveryOf({.run = kRun, .producer = 2, .sequence = 6})));
  const Consumed figures = ledger.figures();
  EXPECT_EQ(figures.consumed, 2);
  EXPECT_EQ(figures.redelivered, 1);
  EXPECT_EQ(figures.duplicates, 1);
  EXPECT_EQ(figures.foreign, 2);
}

TEST(LedgerTest, AnAckCountsOnce) {
  Ledger ledger(kRun, 1);
  ledger.Ack(0, 3);
  ledger.Ack(0, 3);
  ledger.Ack(0, 3'000'000);
  EXPECT_EQ(ledger.acked(), 2);
  EXPECT_GT(ledger.last_ack_ns(), 0);
}

TEST(LedgerTest, ThreadsThatNoteTheSameCountItOnce) {
  AtomicBits bits;
  std::atomic<int64_t> set = 0;
  const auto set_all = [&] {
    for (uint64_t i = 0; i < 3'000'000; i += 7) set += bits.Set(i) ? 1 : 0;
  };
  std::thread other(set_all);
  set_all();
  other.join();
  EXPECT_EQ(set, (3'000'000 + 6) / 7);
  EXPECT_FALSE(bits.Set(AtomicBits::kBitsMax));
}

Report SomeReport() {
  Report report;
  report.bench = "flow";
  report.settings = "settings";
  report.size = 1024;
  report.producers = 2;
  report.consumers = 3;
  report.rows = {{.work = "flow",
                  .messages = 2'000'000,
                  .seconds = 4,
                  .latency_of = "publish to delivery",
                  .latency = {.count = 2'000'000,
                              .mean = 900,
                              .p50 = 812.5,
                              .p90 = 2000,
                              .p99 = 12'345.678,
                              .p999 = 150'000,
                              .max = 200'000}},
                 {.work = "flow, publish", .messages = 10, .seconds = 0}};
  report.ratios = {{"deep_to_empty", 0.876}};
  report.checked = {.published = 2'000'000, .consumed = 2'000'000, .acked = 2'000'000};
  report.complete = true;
  return report;
}

TEST(ReportTest, TextSaysRatesLatenciesAndWhatWasChecked) {
  const std::string text = ToText(SomeReport());
  EXPECT_THAT(text, HasSubstr("500,000"));
  EXPECT_THAT(text, HasSubstr("488.3"));  // MiB/s
  EXPECT_THAT(text, HasSubstr("0.812"));
  EXPECT_THAT(text, HasSubstr("12.35"));
  EXPECT_THAT(text, HasSubstr("150 "));
  EXPECT_THAT(text, HasSubstr("deep_to_empty: 0.88"));
  EXPECT_THAT(text, HasSubstr("2,000,000 confirmed, 2,000,000 consumed, 2,000,000 acked; 0 lost"));
  EXPECT_THAT(text, Not(HasSubstr("redelivered")));
  EXPECT_THAT(text, Not(HasSubstr("inf")));
}

TEST(ReportTest, JsonHasTheFirstRowAtTheTop) {
  const std::string json = ToJson(SomeReport());
  EXPECT_THAT(json, testing::StartsWith("{\"bench\":\"flow\",\"size\":1024,\"producers\":2,"
                                        "\"consumers\":3,\"messages\":2000000,\"seconds\":4.000,"
                                        "\"messages_per_second\":500000.000,"));
  EXPECT_THAT(json, HasSubstr("\"latency_us\":{\"p50\":812.500,\"p90\":2000.000,\"p99\":12345.678,"
                              "\"p999\":150000.000,\"max\":200000.000,\"mean\":900.000,"
                              "\"count\":2000000}"));
  EXPECT_THAT(json, HasSubstr("\"ratios\":{\"deep_to_empty\":0.876}"));
  EXPECT_THAT(json, HasSubstr("\"lost\":0"));
  EXPECT_THAT(json, HasSubstr("\"complete\":true"));
}

TEST(ReportTest, IsSoundOnlyIfNothingIsLostTwiceOrForeign) {
  EXPECT_TRUE(SomeReport().sound());
  Report lost = SomeReport();
  --lost.checked.consumed;
  --lost.checked.acked;
  EXPECT_EQ(lost.lost(), 1);
  EXPECT_FALSE(lost.sound());
  lost.left_over = 1;
  EXPECT_TRUE(lost.sound());
  Report duplicated = SomeReport();
  duplicated.checked.duplicates = 1;
  EXPECT_FALSE(duplicated.sound());
  Report unacked = SomeReport();
  --unacked.checked.acked;
  EXPECT_FALSE(unacked.sound());
  Report redelivered = SomeReport();
  redelivered.checked.redelivered = 3;
  EXPECT_TRUE(redelivered.sound());
  EXPECT_THAT(ToText(redelivered), HasSubstr("3 redelivered"));
  Report cut = SomeReport();
  cut.complete = false;
  EXPECT_THAT(ToText(cut), HasSubstr("not checked"));
}

}  // namespace
}  // namespace sluice::cli::bench
