#include "client/cli/queue_config_options.h"

#include "client/cli/context.h"
#include "client/cpp/time.h"

namespace sluice::cli {

void AddQueueConfigOptions(CLI::App& app, v1::QueueConfig* config,
                           google::protobuf::FieldMask* mask) {
  const auto duration = [&app, mask](const std::string& name, const std::string& path,
                                     std::function<google::protobuf::Duration*()> field,
                                     const std::string& help) {
    AddDurationFunction(
        app, name,
        [=](absl::Duration value) {
          *field() = client::ToProto(value);
          mask->add_paths(path);
        },
        help);
  };
  duration("--lease", "lease", [=] { return config->mutable_lease(); },
           "How long a consumer may hold a message [30s]");
  duration("--ttl", "ttl", [=] { return config->mutable_ttl(); },
           "Expire messages that wait longer; 0 is never [0]");
  duration("--dedup-window", "dedup_window", [=] { return config->mutable_dedup_window(); },
           "How long a dedup id is remembered");
  duration("--idle-expiry", "idle_expiry", [=] { return config->mutable_idle_expiry(); },
           "Delete the queue when unused for this long; 0 is never [0]");
  duration("--priority-aging", "priority_aging", [=] { return config->mutable_priority_aging(); },
           "Raise waiting messages by one priority per such time; 0 is off [0]");
  duration("--min-backoff", "retry.min_backoff",
           [=] { return config->mutable_retry()->mutable_min_backoff(); },
           "Wait before the second attempt; doubles with each further one [1s]");
  duration("--max-backoff", "retry.max_backoff",
           [=] { return config->mutable_retry()->mutable_max_backoff(); },
           "The longest wait between attempts [5m]");
  app.add_option_function<int>(
      "--max-attempts",
      [=](int attempts) {
        config->mutable_retry()->set_max_attempts(attempts);
        mask->add_paths("retry.max_attempts");
      },
      "Attempts that a message has; 0 is no limit [0]");
  app.add_flag_function(
      "--discard-when-exhausted",
      [=](int64_t times) {  // negative: =false
        config->mutable_retry()->set_discard_when_exhausted(times > 0);
        mask->add_paths("retry.discard_when_exhausted");
      },
      "Drop a message that has used up its attempts, also where there is a dead-letter queue; =false "
      "to take it back");
  app.add_option_function<std::string>(
      "--dead-letter-queue",
      [=](const std::string& name) {
        config->set_dead_letter_queue(name);
        mask->add_paths("dead_letter_queue");
      },
      "Queue for messages that failed too often, were rejected or expired");
  app.add_option_function<int64_t>(
      "--max-length",
      [=](int64_t length) {
        config->set_max_length(length);
        mask->add_paths("max_length");
      },
      "Messages that the queue may hold; 0 is no limit [0]");
  AddBytes(
      app, "--max-bytes",
      [=](int64_t bytes) {
        config->set_max_bytes(bytes);
        mask->add_paths("max_bytes");
      },
      "Bytes of messages that the queue may hold; 0 is no limit [0]");
  app.add_option_function<std::string>(
         "--overflow",
         [=](const std::string& policy) {
           config->set_overflow(policy == "reject" ? v1::OVERFLOW_REJECT : v1::OVERFLOW_DROP_HEAD);
           mask->add_paths("overflow");
         },
         "What to do with a publish to a full queue [reject]")
      ->check(CLI::IsMember({"reject", "drop-head"}));
  const auto rate = [=](auto set) {
    set(config->mutable_delivery_rate());
    // The rate is one field: its burst has no path of its own.
    if (mask->paths().empty() || *mask->paths().rbegin() != "delivery_rate") {
      mask->add_paths("delivery_rate");
    }
  };
  CLI::Option* pace = AddRate(
      app, "--delivery-rate",
      [rate](double per_second) { rate([&](auto* limit) { limit->set_per_second(per_second); }); },
      "Pace of deliveries to all consumers together, for example 100/s or 600/m [no limit]");
  app.add_option_function<int>(
         "--delivery-burst",
         [rate](int burst) { rate([&](auto* limit) { limit->set_burst(burst); }); },
         "Messages that may go at once after a pause [those of one second]")
      ->needs(pace);
  app.add_flag_function(
         "--no-delivery-rate",
         [=](int64_t) {
           config->clear_delivery_rate();
           mask->add_paths("delivery_rate");
         },
         "Deliver as fast as consumers take")
      ->excludes(pace);
  app.add_option_function<bool>(
      "--single-active-consumer",
      [=](bool single) {
        config->set_single_active_consumer(single);
        mask->add_paths("single_active_consumer");
      },
      "Deliver to one consumer at a time (true or false) [false]");
  AddKeyValues(
      app, "--label",
      [=](const std::string& key, const std::string& value) {
        (*config->mutable_labels())[key] = value;
        // Once is enough: the mask names the whole map.
        if (mask->paths().empty() || *mask->paths().rbegin() != "labels") mask->add_paths("labels");
      },
      "A label for people and tools; may be repeated, and replaces all labels on update");
}

}  // namespace sluice::cli
