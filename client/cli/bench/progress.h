// One line on a terminal that says how far a benchmark is.
#ifndef SLUICE_CLIENT_CLI_BENCH_PROGRESS_H_
#define SLUICE_CLIENT_CLI_BENCH_PROGRESS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace sluice::cli::bench {

// Written to stderr by a thread of its own, and only if that is a terminal. Thread-safe.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // What is counted from now on; the counters start again.
  void Begin(const std::string& work);
  void Confirmed(int64_t messages) { confirmed_.fetch_add(messages, std::memory_order_relaxed); }
  void Acked(int64_t messages) { acked_.fetch_add(messages, std::memory_order_relaxed); }
  int64_t confirmed() const { return confirmed_.load(std::memory_order_relaxed); }
  int64_t acked() const { return acked_.load(std::memory_order_relaxed); }

  // Nothing is shown after it.
  void End();

 private:
  void Show();

  std::atomic<int64_t> confirmed_{0};
  std::atomic<int64_t> acked_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::string work_;
  int64_t begun_ns_ = 0;
  bool ended_ = false;

  std::thread thread_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_PROGRESS_H_
