#include "server/config/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "server/base/strings.h"
#include "yaml-cpp/yaml.h"

namespace sluice::config {
namespace {

using Setter = std::function<absl::Status(const std::string& value, Settings* settings)>;

struct Setting {
  std::string flag;  // "http-listen"; SLUICE_HTTP_LISTEN; http_listen in the file
  bool is_switch = false;
  std::string value_name;
  std::string help;
  Setter set;

  std::string key() const { return absl::StrReplaceAll(flag, {{"-", "_"}}); }
  std::string variable() const { return absl::StrCat("SLUICE_", absl::AsciiStrToUpper(key())); }
};

absl::Status Problem(std::string_view problem) { return absl::InvalidArgumentError(ToAbsl(problem)); }

Setter ToAddress(Address Settings::*field) {
  return [field](const std::string& value, Settings* settings) {
    absl::StatusOr<Address> address = ParseAddress(value);
    if (address.ok()) settings->*field = *std::move(address);
    return address.status();
  };
}

Setter ToBool(bool Settings::*field) {
  return [field](const std::string& value, Settings* settings) {
    if (!absl::SimpleAtob(value, &(settings->*field))) {
      return Problem(absl::StrCat("'", value, "' is neither true nor false"));
    }
    return absl::OkStatus();
  };
}

std::string BytesText(uint64_t bytes) {
  if (bytes % kMiB == 0) return absl::StrCat(bytes / kMiB, "MiB");
  if (bytes % kKiB == 0) return absl::StrCat(bytes / kKiB, "KiB");
  return absl::StrCat(bytes);
}

// A number of bytes, or of KiB, MiB, GiB.
template <typename T>
Setter ToBytes(T Settings::*field, uint64_t min, uint64_t max) {
  return [=](const std::string& value, Settings* settings) {
    absl::string_view number = value;
    uint64_t unit = 1;
    if (absl::ConsumeSuffix(&number, "KiB")) unit = kKiB;
    else if (absl::ConsumeSuffix(&number, "MiB")) unit = kMiB;
    else if (absl::ConsumeSuffix(&number, "GiB")) unit = 1024 * kMiB;
    uint64_t count = 0;
    if (!absl::SimpleAtoi(number, &count)) {
      return Problem(absl::StrCat("'", value, "' is not a size; write bytes, or 64KiB, 8MiB, 1GiB"));
    }
    if (count < (min + unit - 1) / unit || count > max / unit) {
      return Problem(
          absl::StrCat("'", value, "' is outside ", BytesText(min), " to ", BytesText(max)));
    }
    settings->*field = static_cast<T>(count * unit);
    return absl::OkStatus();
  };
}

// A time between the bounds.
Setter ToDuration(int64_t Settings::*field_ms, int64_t min_ms, int64_t max_ms) {
  return [=](const std::string& value, Settings* settings) {
    absl::Duration duration;
    if (!absl::ParseDuration(value, &duration)) {
      return Problem(absl::StrCat("'", value, "' is not a time; write 90s, 30m or 1h"));
    }
    const int64_t ms = absl::ToInt64Milliseconds(duration);
    if (ms < min_ms || ms > max_ms) {
      return Problem(absl::StrCat("'", value, "' is not between ",
                                  absl::FormatDuration(absl::Milliseconds(min_ms)), " and ",
                                  absl::FormatDuration(absl::Milliseconds(max_ms))));
    }
    settings->*field_ms = ms;
    return absl::OkStatus();
  };
}

// 0 for none, or a time between the bounds.
Setter ToOptionalDuration(int64_t Settings::*field_ms, int64_t min_ms, int64_t max_ms) {
  const Setter bounded = ToDuration(field_ms, min_ms, max_ms);
  return [=](const std::string& value, Settings* settings) {
    absl::Duration duration;
    if (absl::ParseDuration(value, &duration) && duration == absl::ZeroDuration()) {
      settings->*field_ms = 0;
      return absl::OkStatus();
    }
    return bounded(value, settings);
  };
}

// Every setting. The help says the default, the unit and what more or less of it costs.
std::vector<Setting> AllSettings() {
  const Settings defaults;
  std::vector<Setting> all;
  all.push_back({"listen", false, "HOST:PORT",
                 "gRPC address [" + defaults.listen.ToString() + "]",
                 ToAddress(&Settings::listen)});
  all.push_back({"http-listen", false, "HOST:PORT",
                 "address of /metrics, /healthz and /readyz [" + defaults.http_listen.ToString() +
                     "]",
                 ToAddress(&Settings::http_listen)});
  all.push_back({"data-dir", false, "DIR",
                 "where queues and messages are kept; made if missing; one server at a time [" +
                     defaults.data_dir + "]",
                 [](const std::string& value, Settings* settings) {
                   settings->data_dir = value;
                   return absl::OkStatus();
                 }});
  all.push_back({"definitions", false, "FILE",
                 "YAML file of queues, exchanges and bindings to create or change at start, as "
                 "`sluice definitions export` writes it; what it does not name stays, and a start "
                 "that cannot apply it is refused [none]",
                 [](const std::string& value, Settings* settings) {
                   settings->definitions = value;
                   return absl::OkStatus();
                 }});
  all.push_back({"insecure", true, "",
                 "listen beyond loopback without TLS and authentication: whoever reaches the port "
                 "can read and delete everything [false]",
                 ToBool(&Settings::insecure)});
  all.push_back({"accept-clock", true, "",
                 "start although the machine's clock is over 30 days away from the time in the "
                 "store; delayed and expiring messages follow the new clock [false]",
                 ToBool(&Settings::accept_clock)});
  all.push_back({"body-bytes-max", false, "SIZE",
                 absl::StrCat("largest message body accepted; larger ones cost memory and hold up "
                              "small ones [",
                              BytesText(defaults.body_bytes_max), "; up to ",
                              BytesText(kBodyBytesMaxCeiling), "]"),
                 ToBytes(&Settings::body_bytes_max, kBodyBytesMaxMin, kBodyBytesMaxCeiling)});
  all.push_back({"window-bytes-max", false, "SIZE",
                 absl::StrCat("bodies of waiting messages kept in memory over all queues; more "
                              "saves disk reads when bursts are consumed at once [",
                              BytesText(defaults.window_bytes_max), "]"),
                 ToBytes(&Settings::window_bytes_max, kWindowBytesMin, kWindowBytesCeiling)});
  all.push_back({"in-flight-bytes-max", false, "SIZE",
                 absl::StrCat("requests read and not yet answered, over all clients; at the limit "
                              "reading waits; less bounds memory, more helps many publishers [",
                              BytesText(defaults.in_flight_bytes_max), "]"),
                 ToBytes(&Settings::in_flight_bytes_max, kInFlightBytesMin, kInFlightBytesCeiling)});
  all.push_back({"disk-reserve", false, "SIZE",
                 "publishes are refused while less than this is free on the disk of --data-dir, so "
                 "that acks can still be written; at least what the store may have to write then, "
                 "which is 1GiB, and less on a disk below 8GiB [that]",
                 ToBytes(&Settings::disk_reserve_bytes, kDiskReserveMin, kDiskReserveCeiling)});
  all.push_back({"connection-age-max", false, "TIME",
                 "clients are asked to connect again after this long, so that they spread over "
                 "servers behind a balancer; shorter spreads sooner, 0 never [1h]",
                 ToOptionalDuration(&Settings::connection_age_ms_max, kConnectionAgeMsMin,
                                    kConnectionAgeMsMax)});
  all.push_back({"connection-age-grace", false, "TIME",
                 "how long calls may go on once their connection has reached its age; streams are "
                 "ended a little before that and clients open them again: shorter moves them "
                 "sooner [1h]",
                 ToDuration(&Settings::connection_age_grace_ms, kConnectionGraceMsMin,
                            kConnectionAgeMsMax)});
  all.push_back({"grpc-threads", false, "N",
                 absl::StrCat("threads that serve connections, 1 to ", kGrpcThreadsMax,
                              "; more serve more clients at once where cores are free "
                              "[a quarter of the cores]"),
                 [](const std::string& value, Settings* settings) {
                   int32_t threads = 0;
                   if (!absl::SimpleAtoi(value, &threads) || threads < 1 ||
                       threads > kGrpcThreadsMax) {
                     return Problem(absl::StrCat("'", value, "' is not a number from 1 to ",
                                                 kGrpcThreadsMax));
                   }
                   settings->grpc_threads = threads;
                   return absl::OkStatus();
                 }});
  all.push_back({"log-level", false, "LEVEL", "debug, info, warning or error [info]",
                 [](const std::string& value, Settings* settings) {
                   const std::optional<LogLevel> level = ParseLogLevel(value);
                   if (level) settings->log_level = *level;
                   return level ? absl::OkStatus()
                                : Problem(absl::StrCat(
                                      "'", value, "' is none of debug, info, warning, error"));
                 }});
  all.push_back({"log-format", false, "FORMAT",
                 "text (key=value, for people) or json (for log collectors) [text]",
                 [](const std::string& value, Settings* settings) {
                   const std::optional<LogFormat> format = ParseLogFormat(value);
                   if (format) settings->log_format = *format;
                   return format ? absl::OkStatus()
                                 : Problem(absl::StrCat("'", value, "' is neither text nor json"));
                 }});
  all.push_back({"shards", false, "N", "engine threads; only 1 is built [1]",
                 [](const std::string& value, Settings* settings) {
                   return absl::SimpleAtoi(value, &settings->shards)
                              ? absl::OkStatus()
                              : Problem(absl::StrCat("'", value, "' is not a number"));
                 }});
  all.push_back({"auto-create-queues", true, "",
                 "make unknown queues on first use, for development; not built yet [false]",
                 ToBool(&Settings::auto_create_queues)});
  return all;
}

absl::Status Apply(const Setting& setting, std::string_view source, const std::string& value,
                   Settings* settings) {
  const absl::Status status = setting.set(value, settings);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(setting.flag, ": ", status.message(), " (set by ",
                                                  ToAbsl(source), ")"));
}

absl::Status ApplyFile(const std::string& path, const std::vector<Setting>& all,
                       Settings* settings) {
  const auto refuse = [&](const std::string& problem) {
    return absl::InvalidArgumentError(absl::StrCat("config: ", path, ": ", problem));
  };
  // A stream opens a directory happily and throws at the first read.
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
    return refuse("is a directory; name a file");
  }
  YAML::Node file;
  try {
    file = YAML::LoadFile(path);
  } catch (const std::exception& error) {  // of yaml-cpp, or of the stream it reads from
    return refuse(error.what());
  }
  if (file.IsNull()) return absl::OkStatus();
  if (!file.IsMap()) return refuse("is not a map of settings, like `listen: 127.0.0.1:7070`");
  for (const auto& entry : file) {
    if (!entry.first.IsScalar()) return refuse("has a setting whose name is not a word");
    const std::string& key = entry.first.Scalar();
    const Setting* setting = nullptr;
    for (const Setting& candidate : all) {
      if (candidate.key() == key) setting = &candidate;
    }
    if (setting == nullptr) return refuse(absl::StrCat("no setting is called '", key, "'"));
    if (!entry.second.IsScalar()) return refuse(absl::StrCat(key, " is not a single value"));
    const absl::Status status = Apply(*setting, path, entry.second.Scalar(), settings);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

constexpr char kFooter[] =
    "Each setting can also come from the environment (--http-listen is SLUICE_HTTP_LISTEN) or\n"
    "from the file of --config (http_listen: 127.0.0.1:7071). Flags are stronger than the\n"
    "environment, which is stronger than the file. Sizes: 4096, 64KiB, 8MiB, 1GiB. Times: 90s,\n"
    "30m, 1h. Stop with Ctrl-C or SIGTERM.\n"
    "\n"
    "Exit codes: 0 stopped as asked, or nothing to do; 1 cannot start (the log says why); 64 wrong\n"
    "settings; 65 stored data is damaged, which starting again does not mend; 70 a write, sync or\n"
    "read failed: start again; 75 the stop took too long or was asked for twice: nothing that was\n"
    "answered is lost, but leases count as cut short.\n";

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const Environment& environment,
                                             std::string_view version) {
  const std::vector<Setting> all = AllSettings();
  CLI::App app("sluiced: a durable message queue that speaks gRPC.", "sluiced");
  app.footer(kFooter);
  app.set_version_flag("--version", "sluiced " + std::string(version));
  std::string config_path;
  app.add_option("--config", config_path, "YAML file of settings [none]")->type_name("FILE");
  std::map<std::string, std::string> given;
  for (const Setting& setting : all) {
    const auto keep = [&given, flag = setting.flag](const std::string& value) {
      given[flag] = value;
    };
    if (setting.is_switch) {
      app.add_flag_function(
          "--" + setting.flag,
          [keep](int64_t count) { keep(count > 0 ? "true" : "false"); }, setting.help);
    } else {
      app.add_option_function<std::string>("--" + setting.flag, keep, setting.help)
          ->type_name(setting.value_name);
    }
  }

  CommandLine result;
  try {
    // CLI11 takes them last first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    result.text = app.help();
    return result;
  } catch (const CLI::CallForVersion&) {
    result.text = absl::StrCat("sluiced ", ToAbsl(version), "\n");
    return result;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), " (see sluiced --help)"));
  }

  if (config_path.empty()) config_path = environment("SLUICE_CONFIG").value_or("");
  if (!config_path.empty()) {
    if (absl::Status s = ApplyFile(config_path, all, &result.settings); !s.ok()) return s;
  }
  for (const Setting& setting : all) {
    const std::optional<std::string> value = environment(setting.variable());
    if (!value) continue;
    absl::Status s = Apply(setting, setting.variable(), *value, &result.settings);
    if (!s.ok()) return s;
  }
  for (const Setting& setting : all) {
    const auto value = given.find(setting.flag);
    if (value == given.end()) continue;
    absl::Status s = Apply(setting, "--" + setting.flag, value->second, &result.settings);
    if (!s.ok()) return s;
  }
  if (absl::Status s = Validate(result.settings); !s.ok()) return s;
  return result;
}

}  // namespace sluice::config
