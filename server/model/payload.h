// The bytes of one message, shared between the engine, the log and the writers of streams.
#ifndef SLUICE_SERVER_MODEL_PAYLOAD_H_
#define SLUICE_SERVER_MODEL_PAYLOAD_H_

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string_view>
#include <utility>

#include "server/base/check.h"

namespace sluice {

// A reference to a counted buffer: one allocation, no copy when it is handed on. The buffer holds
// a serialised sluice.v1.Message. The one who allocated it may write until the Payload is first
// copied; from then on it is immutable and may be read from any thread.
class Payload {
 public:
  Payload() = default;
  Payload(const Payload& other) : rep_(other.rep_) {
    if (rep_) rep_->references.fetch_add(1, std::memory_order_relaxed);
  }
  Payload(Payload&& other) noexcept : rep_(std::exchange(other.rep_, nullptr)) {}
  Payload& operator=(Payload other) noexcept {
    std::swap(rep_, other.rep_);
    return *this;
  }
  ~Payload() { Unref(rep_); }

  static Payload Allocate(uint32_t bytes) {
    void* memory = std::malloc(sizeof(Rep) + bytes);
    SLUICE_CHECK(memory != nullptr);
    Payload payload;
    payload.rep_ = new (memory) Rep{};
    payload.rep_->bytes = bytes;
    return payload;
  }
  static Payload CopyOf(std::string_view bytes) {
    Payload payload = Allocate(static_cast<uint32_t>(bytes.size()));
    bytes.copy(payload.mutable_data(), bytes.size());
    return payload;
  }

  explicit operator bool() const { return rep_ != nullptr; }
  char* mutable_data() { return reinterpret_cast<char*>(rep_ + 1); }
  const char* data() const { return reinterpret_cast<const char*>(rep_ + 1); }
  uint32_t size() const { return rep_ ? rep_->bytes : 0; }
  std::string_view view() const {
    return rep_ ? std::string_view(data(), size()) : std::string_view();
  }

  // Hands one reference to C code, which gives it back with DropRaw (for example as the
  // destructor of a gRPC slice).
  void* ReleaseRaw() { return std::exchange(rep_, nullptr); }
  static void DropRaw(void* raw) { Unref(static_cast<Rep*>(raw)); }

 private:
  struct Rep {
    std::atomic<uint32_t> references{1};
    uint32_t bytes = 0;
  };
  static void Unref(Rep* rep) {
    if (rep && rep->references.fetch_sub(1, std::memory_order_acq_rel) == 1) std::free(rep);
  }
  Rep* rep_ = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_PAYLOAD_H_
