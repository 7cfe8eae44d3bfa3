// Routing one message, by type of exchange. The argument is how many bindings there are.
#include "server/broker/router.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"

namespace sluice::broker {
namespace {

void Check(bool ok) {
  if (!ok) std::abort();
}

void Make(Router& router, const std::string& name, ExchangeType type) {
  ExchangeChange exchange;
  exchange.name = name;
  exchange.type = type;
  Check(router.CreateExchange(exchange, 1).ok());
}

void Bind(Router& router, Binding binding) {
  Check(router.CreateBinding(std::move(binding), 1).ok());
}

// Routes with one key after the other; reports how many queues a message reached.
void RouteAll(benchmark::State& state, Router& router, const std::vector<std::string>& keys,
              const std::vector<Attributes>& attributes) {
  std::vector<const std::string*> queues;
  size_t next = 0;
  size_t reached = 0;
  for (auto _ : state) {
    Check(router.Route("e", keys[next % keys.size()], attributes[next % attributes.size()],
                       &queues)
              .ok());
    ++next;
    reached += queues.size();
    benchmark::DoNotOptimize(queues.data());
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["queues"] =
      benchmark::Counter(static_cast<double>(reached), benchmark::Counter::kAvgIterations);
}

constexpr int kKeys = 1024;
const char* const kRegions[] = {"eu", "us", "asia", "africa"};
const char* const kEvents[] = {"created", "paid", "shipped", "returned", "lost"};

std::string QueueName(int i) { return absl::StrCat("queue-of-a-service-", i); }

void BM_Direct(benchmark::State& state) {
  Router router;
  Make(router, "e", ExchangeType::kDirect);
  const int bindings = static_cast<int>(state.range(0));
  for (int i = 0; i < bindings; ++i) {
    Bind(router, {"e", QueueName(i), "", absl::StrCat("key-", i), {}, HeaderMatch::kAll});
  }
  std::vector<std::string> keys;
  for (int i = 0; i < kKeys; ++i) keys.push_back(absl::StrCat("key-", i * 7919 % bindings));
  RouteAll(state, router, keys, {{}});
}
BENCHMARK(BM_Direct)->Arg(1)->Arg(10'000)->Arg(100'000);

void BM_Fanout(benchmark::State& state) {
  Router router;
  Make(router, "e", ExchangeType::kFanout);
  for (int i = 0; i < state.range(0); ++i) {
    Bind(router, {"e", QueueName(i), "", "", {}, HeaderMatch::kAll});
  }
  RouteAll(state, router, {""}, {{}});
}
BENCHMARK(BM_Fanout)->Arg(1)->Arg(10)->Arg(1000);

// Keys shop.<region>.<customer>.<event>; most patterns name a customer, some one thing only.
void BM_Topic(benchmark::State& state) {
  Router router;
  Make(router, "e", ExchangeType::kTopic);
  const int bindings = static_cast<int>(state.range(0));
  for (int i = 0; i < bindings; ++i) {
    const std::string customer = absl::StrCat("customer-", i / 4);
    const char* region = kRegions[i % 4];
    const char* event = kEvents[i % 5];
    const std::string patterns[] = {absl::StrCat("shop.", region, ".", customer, ".", event),
                                    absl::StrCat("shop.*.", customer, ".", event),
                                    absl::StrCat("shop.", region, ".", customer, ".#"),
                                    absl::StrCat("#.", customer, ".", event)};
    Bind(router, {"e", QueueName(i), "", patterns[i % 4], {}, HeaderMatch::kAll});
  }
  Bind(router, {"e", "audit", "", "#", {}, HeaderMatch::kAll});
  Bind(router, {"e", "shipping", "", "shop.*.*.shipped", {}, HeaderMatch::kAll});
  std::vector<std::string> keys;
  for (int i = 0; i < kKeys; ++i) {
    keys.push_back(absl::StrCat("shop.", kRegions[i % 4], ".customer-",
                                i * 7919 % (bindings / 4 + 1), ".", kEvents[i % 5]));
  }
  RouteAll(state, router, keys, {{}});
}
BENCHMARK(BM_Topic)->Arg(10)->Arg(10'000)->Arg(99'000);

// Every pattern looks for its word anywhere: what a list of patterns is worst at.
void BM_TopicAnywhere(benchmark::State& state) {
  Router router;
  Make(router, "e", ExchangeType::kTopic);
  const int bindings = static_cast<int>(state.range(0));
  for (int i = 0; i < bindings; ++i) {
    Bind(router, {"e", QueueName(i), "", absl::StrCat("#.w", i, ".#"), {}, HeaderMatch::kAll});
  }
  std::vector<std::string> keys;
  for (int i = 0; i < kKeys; ++i) {
    keys.push_back(absl::StrCat("a.b.w", i * 7919 % bindings, ".c.d.e"));
  }
  RouteAll(state, router, keys, {{}});
}
BENCHMARK(BM_TopicAnywhere)->Arg(10'000);

void BM_Headers(benchmark::State& state) {
  Router router;
  Make(router, "e", ExchangeType::kHeaders);
  const int bindings = static_cast<int>(state.range(0));
  for (int i = 0; i < bindings; ++i) {
    Bind(router, {"e", QueueName(i), "", "",
                  {{"format", "pdf"}, {"customer", absl::StrCat("customer-", i)}},
                  HeaderMatch::kAll});
  }
  std::vector<Attributes> attributes;
  for (int i = 0; i < kKeys; ++i) {
    attributes.push_back({{"customer", absl::StrCat("customer-", i * 7919 % bindings)},
                          {"format", "pdf"},
                          {"trace", "0123456789abcdef"}});
  }
  RouteAll(state, router, {""}, attributes);
}
BENCHMARK(BM_Headers)->Arg(10'000);

}  // namespace
}  // namespace sluice::broker

BENCHMARK_MAIN();
