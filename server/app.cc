#include "server/app.h"

#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "proto/yaml/definitions_yaml.h"
#include "server/api/definitions_codec.h"
#include "server/api/library_logs.h"
#include "server/api/server.h"
#include "server/app_observers.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/engine.h"
#include "server/heap_trimmer.h"
#include "server/http/grpc_health_probe.h"
#include "server/http/http_server.h"
#include "server/metrics/server_metrics.h"
#include "server/model/error.h"
#include "server/storage/local_log.h"
#include "server/storage/pressure.h"
#include "server/storage/rocks_store.h"

namespace sluice {
namespace {

// How the time of a stop is shared out; together below App::kStopMsMax, with room for closing files.
constexpr absl::Duration kDrainMax = absl::Seconds(3);  // what was taken becomes durable
constexpr int64_t kCallsMsMax = 2 * kSecondMs;          // answers reach the clients
constexpr absl::Duration kSaveMax = absl::Seconds(2);   // leases are written
constexpr int64_t kFatalAnswersMsMax = 500;             // the last answers before a fatal exit
// A large document is made of many queues, each a row or two of one batch.
constexpr absl::Duration kApplyMax = absl::Seconds(30);
// A scrape waits this long for the engine; docs/metrics.md names it.
constexpr absl::Duration kInspectMax = absl::Seconds(2);

[[noreturn]] void ExitOnFatal(const absl::Status& status) {
  const bool damaged = ReasonOf(status) == ErrorReason::kDataDamaged;
  Log(LogLevel::kError,
      damaged ? "stored data is damaged; exiting"
              : "the store has failed; exiting, nothing that was confirmed is lost",
      {{"why", std::string(status.message())}});
  FlushLog();
  _exit(damaged ? App::kExitDataDamaged : App::kExitStoreFailed);
}

// Submits a command whose `done` takes nothing and waits for it.
template <typename Command>
bool SubmitAndWait(broker::CommandSink* sink, absl::Duration timeout) {
  const auto done = std::make_shared<absl::Notification>();
  sink->Submit(Command{.done = [done] { done->Notify(); }});
  return done->WaitForNotificationWithTimeout(timeout);
}

// Where this process reaches what listens on `address`.
std::string ReachableAddress(config::Address address, uint16_t port) {
  if (address.host == "0.0.0.0") address.host = "127.0.0.1";
  if (address.host == "::") address.host = "::1";
  address.port = port;
  return address.ToString();
}

api::ServerOptions ApiOptions(const config::Settings& settings, std::string_view version,
                              const std::string& server_id) {
  api::ServerOptions options;
  options.listen = settings.listen.ToString();
  options.polling_threads = config::GrpcThreads(settings, std::thread::hardware_concurrency());
  options.connection_age_ms_max = settings.connection_age_ms_max;
  options.connection_age_grace_ms = settings.connection_age_grace_ms;
  options.body_bytes_max = settings.body_bytes_max;
  options.server_bytes_max = static_cast<int64_t>(settings.in_flight_bytes_max);
  options.version = std::string(version);
  options.server_id = server_id;
  if (settings.insecure) {
    options.warnings.push_back(
        "--insecure: whoever reaches this server can read and delete everything");
  } else {
    options.warnings.push_back(
        "no authentication: every user of this machine can read and delete everything");
  }
  return options;
}

class RunningApp : public App {
 public:
  RunningApp(const config::Settings& settings, std::string_view version)
      : settings_(settings),
        version_(version),
        metrics_(version, Clock::System(), GrpcMethodsForMetrics(), GrpcCodesForMetrics()) {}

  absl::Status Start() {
    if (absl::Status s = StartStore(); !s.ok()) return s;
    if (absl::Status s = StartEngine(); !s.ok()) return s;
    absl::Status started = ApplyDefinitions();
    if (started.ok()) started = StartServers();
    if (!started.ok()) {
      Stop();
      return started;
    }
    LogServing();
    return absl::OkStatus();
  }

  void Stop() override {
    if (server_) {
      server_->BeginDrain();
      WarnUnless(SubmitAndWait<broker::DrainCommand>(engine_.get(), kDrainMax),
                 "not everything was finished before the stop");
      server_->Shutdown(kCallsMsMax);
    }
    http_.reset();
    if (engine_) {
      WarnUnless(SubmitAndWait<broker::StopCommand>(engine_.get(), kSaveMax),
                 "leases could not be saved");
    }
    // The engine first: it must find the log open as long as it appends.
    if (engine_) engine_->EndThreads();
    if (log_) {
      log_->Stop();
      if (absl::Status failure = log_->failure(); !failure.ok()) ExitOnFatal(failure);
    }
    engine_.reset();  // its answers reach into the server
    serving_ = nullptr;
    server_.reset();
    log_.reset();
    pressure_.reset();
    store_.reset();
  }

 private:
  absl::Status StartStore() {
    storage::RocksOptions options;
    options.dir = settings_.data_dir;
    auto store = storage::RocksStore::Open(options);
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    storage::PressureOptions pressure;
    pressure.dir = settings_.data_dir;
    pressure.disk_reserve_bytes = settings_.disk_reserve_bytes;
    pressure_ = std::make_unique<storage::StorePressure>(store_.get(), std::move(pressure));
    log_ = std::make_unique<storage::LocalLog>(store_.get(), &log_metrics_);
    return absl::OkStatus();
  }

  absl::Status StartEngine() {
    broker::EngineOptions options;
    options.accept_clock = settings_.accept_clock;
    options.window_bytes_max = settings_.window_bytes_max;
    options.appended_bytes_max = store_->sizes().appended_bytes_max;
    options.pressure = pressure_.get();
    auto engine = broker::Engine::Start(options, Clock::System(), store_.get(), log_.get(),
                                        &engine_metrics_,
                                        [this](const absl::Status& why) { OnFatal(why); });
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    return absl::OkStatus();
  }

  // On the engine's thread, which has answered whoever waited and will answer nobody else: the
  // answers need a moment to get out.
  [[noreturn]] void OnFatal(const absl::Status& why) {
    if (api::Server* const server = serving_) {
      server->BeginDrain();
      server->Shutdown(kFatalAnswersMsMax);
    }
    ExitOnFatal(why);
  }

  // Before anyone can connect, so that clients find what they were promised.
  absl::Status ApplyDefinitions() {
    if (settings_.definitions.empty()) return absl::OkStatus();
    const auto refuse = [this](const absl::Status& why) {
      return absl::Status(why.code(), absl::StrCat("cannot apply the definitions in ",
                                                   settings_.definitions, ": ", why.message()));
    };
    const auto document = DefinitionsFromYamlFile(settings_.definitions);
    if (!document.ok()) return refuse(document.status());
    auto definitions = api::ToDefinitions(*document);
    if (!definitions.ok()) return refuse(definitions.status());

    using Result = absl::StatusOr<std::vector<broker::DefinitionChange>>;
    struct Answer {
      Result result;
      absl::Notification done;
    };
    const auto answer = std::make_shared<Answer>();
    broker::ApplyDefinitionsCommand command;
    command.definitions = *std::move(definitions);
    command.done = [answer](Result result) {
      answer->result = std::move(result);
      answer->done.Notify();
    };
    engine_->Submit(std::move(command));
    if (!answer->done.WaitForNotificationWithTimeout(kApplyMax)) {
      return refuse(absl::DeadlineExceededError("the store did not answer in time"));
    }
    if (!answer->result.ok()) return refuse(answer->result.status());
    for (const broker::DefinitionChange& change : *answer->result) {
      if (change.action == broker::DefinitionChange::Action::kNone) continue;
      Log(LogLevel::kInfo, "definitions applied",
          {{"resource", change.resource},
           {"action", change.action == broker::DefinitionChange::Action::kCreate ? "created"
                                                                                 : "changed"}});
    }
    return absl::OkStatus();
  }

  absl::Status StartServers() {
    auto server =
        api::Server::Start(ApiOptions(settings_, version_, engine_->server_id()), engine_.get(),
                           engine_->receipts(), engine_->hash(), Clock::System(), &rpc_metrics_);
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    serving_ = server_.get();

    const std::string probe_address =
        ReachableAddress(settings_.listen, static_cast<uint16_t>(server_->port()));
    auto http = http::HttpServer::Start(
        settings_.http_listen.ToString(),
        {.metrics = [this] { return RenderMetrics(); },
         .ready = [probe_address] { return http::ProbeGrpcHealth(probe_address); }});
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
    return absl::OkStatus();
  }

  // One page at a time: a scrape costs the engine a turn.
  std::string RenderMetrics() {
    absl::MutexLock lock(&render_mutex_);
    metrics::StoreFigures store = FiguresOf(store_->Stats());
    store.pressure = static_cast<uint64_t>(pressure_->Read());
    return metrics_.Render(InspectShard(engine_.get(), kInspectMax), store);
  }

  void LogServing() {
    config::Address grpc = settings_.listen;
    grpc.port = static_cast<uint16_t>(server_->port());
    config::Address http = settings_.http_listen;
    http.port = http_->port();
    Log(LogLevel::kInfo, "serving",
        {{"grpc", grpc.ToString()},
         {"http", http.ToString()},
         {"data_dir", settings_.data_dir},
         {"version", version_},
         {"boot", engine_->boot()},
         {"stop", "Ctrl-C"}});
    if (settings_.insecure) {
      Log(LogLevel::kWarning, "insecure: no TLS, no authentication");
    }
  }

  static void WarnUnless(bool in_time, std::string_view event) {
    if (!in_time) Log(LogLevel::kWarning, event);
  }

  const config::Settings settings_;
  const std::string version_;
  metrics::ServerMetrics metrics_;
  EngineMetrics engine_metrics_{&metrics_};
  LogMetrics log_metrics_{&metrics_};
  RpcMetrics rpc_metrics_{&metrics_};
  HeapTrimmer heap_trimmer_;

  // In order of use: each needs those above it.
  std::unique_ptr<storage::RocksStore> store_;
  std::unique_ptr<storage::StorePressure> pressure_;
  std::unique_ptr<storage::LocalLog> log_;
  std::unique_ptr<broker::Engine> engine_;
  std::unique_ptr<api::Server> server_;
  std::atomic<api::Server*> serving_{nullptr};  // for OnFatal
  absl::Mutex render_mutex_;
  std::unique_ptr<http::HttpServer> http_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<App>> App::Start(const config::Settings& settings,
                                                std::string_view version) {
  api::RouteLibraryLogs();
  auto app = std::make_unique<RunningApp>(settings, version);
  if (absl::Status s = app->Start(); !s.ok()) return s;
  return app;
}

}  // namespace sluice
