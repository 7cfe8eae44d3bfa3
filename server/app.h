// The composition root: builds the server from its parts, and takes it down in order.
#ifndef SLUICE_SERVER_APP_H_
#define SLUICE_SERVER_APP_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/config/settings.h"

namespace sluice {

// A running server. One thread.
class App {
 public:
  // From SIGTERM to the end of the process; orchestrators kill after 30 s by default.
  static constexpr int64_t kStopMsMax = 10'000;
  // After a failed write, sync or read nothing is known any more; a supervisor starts afresh.
  static constexpr int kExitStoreFailed = 70;  // EX_SOFTWARE
  // Stored data is damaged: starting afresh does not help.
  static constexpr int kExitDataDamaged = 65;  // EX_DATAERR

  virtual ~App() = default;

  // Opens the store, starts the engine, applies Settings::definitions and serves. When the store
  // fails later, the process ends at once with kExitStoreFailed, or kExitDataDamaged.
  // FAILED_PRECONDITION: the data is in use, of a later version, or the clock is off; DATA_LOSS:
  // damaged data; UNAVAILABLE: an address cannot be bound. An error about the definitions names their
  // file.
  static absl::StatusOr<std::unique_ptr<App>> Start(const config::Settings& settings,
                                                    std::string_view version);

  // Says NOT_SERVING, finishes what is in flight, ends streams, saves leases, closes the store.
  // Once; the object is of no use afterwards.
  virtual void Stop() = 0;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_APP_H_
