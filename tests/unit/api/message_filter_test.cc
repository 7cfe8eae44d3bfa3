#include "server/api/message_filter.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;

broker::ListedMessage Listed(const v1::Message& message = {}) {
  broker::ListedMessage listed;
  listed.payload = Payload::CopyOf(message.SerializeAsString());
  listed.publish_ms = kNowMs;
  return listed;
}

broker::ListedMessage DiedIn(const std::string& queue, DeathReason reason) {
  auto listed = Listed();
  Deaths deaths;
  AddDeath({"earlier", DeathReason::kExpired, 1, 0, 0, 0, ""}, deaths);
  AddDeath({queue, reason, 1, 0, 0, 0, ""}, deaths);
  listed.deaths = std::make_shared<const Deaths>(std::move(deaths));
  return listed;
}

MessageFilter Parse(const v1::MessageFilter& filter) {
  auto parsed = MessageFilter::Parse("filter", filter);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return *parsed;
}

std::string RefusedField(const v1::MessageFilter& filter) {
  const auto parsed = MessageFilter::Parse("filter", filter);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return FieldOf(parsed.status());
}

TEST(MessageFilterTest, NothingSetSelectsAll) {
  v1::MessageFilter filter;
  EXPECT_TRUE(Parse(filter).empty());
  EXPECT_TRUE(Parse(filter).Matches(Listed(), kNowMs));
  filter.mutable_min_age();  // every message is that old
  EXPECT_TRUE(Parse(filter).empty());
}

TEST(MessageFilterTest, EachFieldAloneMakesItNotEmpty) {
  const auto set = [](auto change) {
    v1::MessageFilter filter;
    change(filter);
    return !Parse(filter).empty();
  };
  EXPECT_TRUE(set([](auto& f) { f.add_ids(FormatMessageId({0, 1, 2, 3})); }));
  EXPECT_TRUE(set([](auto& f) { f.add_states(v1::MESSAGE_STATE_READY); }));
  EXPECT_TRUE(set([](auto& f) { f.add_groups(""); }));
  EXPECT_TRUE(set([](auto& f) { (*f.mutable_attributes())[""] = ""; }));
  EXPECT_TRUE(set([](auto& f) { f.mutable_min_age()->set_nanos(1); }));
  EXPECT_TRUE(set([](auto& f) { f.mutable_max_age(); }));
  EXPECT_TRUE(set([](auto& f) { f.add_death_reasons(v1::DEATH_REASON_EXPIRED); }));
  EXPECT_TRUE(set([](auto& f) { f.set_death_queue("q"); }));
}

TEST(MessageFilterTest, IdsKeepTheirOrderAndComeOnce) {
  v1::MessageFilter filter;
  for (const Seq seq : {3, 1, 3, 2}) filter.add_ids(FormatMessageId({0, 1, 2, seq}));
  const auto ids = Parse(filter).ids();
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids[0].seq, 3u);
  EXPECT_EQ(ids[1].seq, 1u);
  EXPECT_EQ(ids[2].seq, 2u);
}

TEST(MessageFilterTest, OneOfTheStates) {
  v1::MessageFilter filter;
  filter.add_states(v1::MESSAGE_STATE_LEASED);
  filter.add_states(v1::MESSAGE_STATE_BLOCKED);
  auto message = Listed();
  for (const auto& [state, expected] :
       {std::pair(MessageState::kReady, false), std::pair(MessageState::kLeased, true),
        std::pair(MessageState::kDelayed, false), std::pair(MessageState::kBlocked, true)}) {
    message.state = state;
    EXPECT_EQ(Parse(filter).Matches(message, kNowMs), expected) << static_cast<int>(state);
  }
}

TEST(MessageFilterTest, OneOfTheGroups) {
  v1::MessageFilter filter;
  filter.add_groups("a");
  filter.add_groups("b");
  v1::Message message;
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));
  message.set_group("b");
  message.set_body(std::string(100'000, 'x'));
  message.set_priority(7);
  EXPECT_TRUE(Parse(filter).Matches(Listed(message), kNowMs));
  message.set_group("bb");
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));
}

TEST(MessageFilterTest, TheEmptyGroupStandsForMessagesWithoutOne) {
  v1::MessageFilter filter;
  filter.add_groups("");
  v1::Message message;
  EXPECT_TRUE(Parse(filter).Matches(Listed(message), kNowMs));
  message.set_group("a");
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));
}

TEST(MessageFilterTest, AllOfTheAttributes) {
  v1::MessageFilter filter;
  (*filter.mutable_attributes())["shop"] = "north";
  (*filter.mutable_attributes())["empty"] = "";
  v1::Message message;
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));
  (*message.mutable_attributes())["shop"] = "north";
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));  // must be there to be empty
  (*message.mutable_attributes())["empty"] = "";
  (*message.mutable_attributes())["other"] = "x";
  EXPECT_TRUE(Parse(filter).Matches(Listed(message), kNowMs));
  (*message.mutable_attributes())["shop"] = "south";
  EXPECT_FALSE(Parse(filter).Matches(Listed(message), kNowMs));
}

TEST(MessageFilterTest, OfAnAttributeThatCameTwiceTheLaterCounts) {
  v1::Message first, second;
  (*first.mutable_attributes())["k"] = "1";
  (*second.mutable_attributes())["k"] = "2";
  auto message = Listed();
  message.payload = Payload::CopyOf(first.SerializeAsString() + second.SerializeAsString());
  v1::MessageFilter filter;
  (*filter.mutable_attributes())["k"] = "2";
  EXPECT_TRUE(Parse(filter).Matches(message, kNowMs));
  (*filter.mutable_attributes())["k"] = "1";
  EXPECT_FALSE(Parse(filter).Matches(message, kNowMs));
}

TEST(MessageFilterTest, AgesAreInclusiveAtBothEnds) {
  v1::MessageFilter filter;
  filter.mutable_min_age()->set_seconds(1);
  filter.mutable_max_age()->set_seconds(2);
  const auto matches = [&](int64_t age_ms) {
    return Parse(filter).Matches(Listed(), kNowMs + age_ms);
  };
  EXPECT_FALSE(matches(999));
  EXPECT_TRUE(matches(1000));
  EXPECT_TRUE(matches(2000));
  EXPECT_FALSE(matches(2001));
}

TEST(MessageFilterTest, AMessageFromTheFutureIsNew) {
  v1::MessageFilter filter;
  filter.mutable_max_age();
  EXPECT_TRUE(Parse(filter).Matches(Listed(), kNowMs - 5000));
  EXPECT_FALSE(Parse(filter).Matches(Listed(), kNowMs + 1));
}

TEST(MessageFilterTest, OnlyTheLastDeathCounts) {
  v1::MessageFilter filter;
  filter.add_death_reasons(v1::DEATH_REASON_REJECTED);
  filter.add_death_reasons(v1::DEATH_REASON_ATTEMPTS);
  EXPECT_FALSE(Parse(filter).Matches(Listed(), kNowMs));
  EXPECT_TRUE(Parse(filter).Matches(DiedIn("orders", DeathReason::kAttempts), kNowMs));
  EXPECT_FALSE(Parse(filter).Matches(DiedIn("orders", DeathReason::kOverflow), kNowMs));
  filter.set_death_queue("orders");
  EXPECT_TRUE(Parse(filter).Matches(DiedIn("orders", DeathReason::kAttempts), kNowMs));
  EXPECT_FALSE(Parse(filter).Matches(DiedIn("mail", DeathReason::kAttempts), kNowMs));
  filter.clear_death_reasons();
  filter.set_death_queue("earlier");
  EXPECT_FALSE(Parse(filter).Matches(DiedIn("orders", DeathReason::kAttempts), kNowMs));
}

// For each subset of the fields: a message that agrees with all is selected, and one that disagrees
// with a single field of the subset is not.
TEST(MessageFilterTest, AllFieldsThatAreSetMustAgree) {
  constexpr int kFields = 7;
  const auto set_field = [](int field, v1::MessageFilter& filter) {
    switch (field) {
      case 0: filter.add_states(v1::MESSAGE_STATE_DELAYED); break;
      case 1: filter.add_groups("g"); break;
      case 2: (*filter.mutable_attributes())["k"] = "v"; break;
      case 3: filter.mutable_min_age()->set_seconds(10); break;
      case 4: filter.mutable_max_age()->set_seconds(20); break;
      case 5: filter.add_death_reasons(v1::DEATH_REASON_REJECTED); break;
      case 6: filter.set_death_queue("orders"); break;
    }
  };
  const auto message_against = [](int field) {
    v1::Message bytes;
    bytes.set_group(field == 1 ? "other" : "g");
    (*bytes.mutable_attributes())["k"] = field == 2 ? "other" : "v";
    auto message = DiedIn(field == 6 ? "mail" : "orders",
                          field == 5 ? DeathReason::kExpired : DeathReason::kRejected);
    message.payload = Payload::CopyOf(bytes.SerializeAsString());
    message.state = field == 0 ? MessageState::kReady : MessageState::kDelayed;
    const int64_t age_ms = field == 3 ? 5'000 : field == 4 ? 25'000 : 15'000;
    message.publish_ms = kNowMs - age_ms;
    return message;
  };
  for (int subset = 0; subset < 1 << kFields; ++subset) {
    v1::MessageFilter filter;
    for (int field = 0; field < kFields; ++field) {
      if (subset >> field & 1) set_field(field, filter);
    }
    const MessageFilter parsed = Parse(filter);
    EXPECT_TRUE(parsed.Matches(message_against(-1), kNowMs)) << subset;
    for (int field = 0; field < kFields; ++field) {
      EXPECT_EQ(parsed.Matches(message_against(field), kNowMs), (subset >> field & 1) == 0)
          << subset << " against " << field;
    }
  }
}

TEST(MessageFilterTest, DamagedBytesMatchNothingAboutThem) {
  v1::Message message;
  message.set_group("g");
  auto listed = Listed();
  const std::string bytes = message.SerializeAsString();
  listed.payload = Payload::CopyOf(bytes.substr(0, bytes.size() - 1));
  v1::MessageFilter filter;
  filter.add_groups("g");
  EXPECT_FALSE(Parse(filter).Matches(listed, kNowMs));
}

TEST(MessageFilterTest, RefusesWhatItCannotMean) {
  v1::MessageFilter filter;
  filter.add_ids(FormatMessageId({0, 1, 2, 3}));
  filter.add_ids("garbled");
  EXPECT_EQ(RefusedField(filter), "filter.ids[1]");
  filter.clear_ids();
  filter.add_states(v1::MESSAGE_STATE_UNSPECIFIED);
  EXPECT_EQ(RefusedField(filter), "filter.states[0]");
  filter.set_states(0, static_cast<v1::MessageState>(99));
  EXPECT_EQ(RefusedField(filter), "filter.states[0]");
  filter.clear_states();
  filter.add_death_reasons(static_cast<v1::DeathReason>(99));
  EXPECT_EQ(RefusedField(filter), "filter.death_reasons[0]");
  filter.clear_death_reasons();
  filter.set_death_queue("no such name!");
  EXPECT_EQ(RefusedField(filter), "filter.death_queue");
  filter.clear_death_queue();
  filter.mutable_min_age()->set_seconds(-1);
  EXPECT_EQ(RefusedField(filter), "filter.min_age");
  filter.mutable_min_age()->set_seconds(2);
  filter.mutable_max_age()->set_seconds(1);
  EXPECT_EQ(RefusedField(filter), "filter.max_age");
  filter.mutable_max_age()->set_seconds(2);
  Parse(filter);
}

TEST(MessageFilterTest, ListsAreBounded) {
  v1::MessageFilter ids, groups, attributes;
  for (int i = 0; i < MessageFilter::kEntriesMax; ++i) {
    ids.add_ids(FormatMessageId({0, 1, 2, static_cast<Seq>(i)}));
    groups.add_groups("g");
  }
  for (int i = 0; i < kAttributesMax; ++i) {
    (*attributes.mutable_attributes())[absl::StrCat(i)] = "";
  }
  EXPECT_EQ(Parse(ids).ids().size(), static_cast<size_t>(MessageFilter::kEntriesMax));
  Parse(groups);
  Parse(attributes);
  ids.add_ids(ids.ids(0));
  groups.add_groups("g");
  (*attributes.mutable_attributes())["one more"] = "";
  EXPECT_EQ(RefusedField(ids), "filter.ids");
  EXPECT_EQ(RefusedField(groups), "filter.groups");
  EXPECT_EQ(RefusedField(attributes), "filter.attributes");
}

}  // namespace
}  // namespace sluice::api
