#include "client/cli/bench/unary_producer.h"

#include <optional>

#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {

struct Producers::UnaryProducer::Call {
  v1::PublishRequest request;
  std::vector<int64_t> due_ns;  // of its messages
  std::optional<grpc::ClientContext> context;
  v1::PublishResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReaderInterface<v1::PublishResponse>> reader;
};

Producers::UnaryProducer::UnaryProducer(Run& run, const ProducersTarget& target, int index)
    : Producer(run, target, index), client_(run.NewClient()) {
  for (int i = 0; i < run.options().in_flight; ++i) {
    calls_.push_back(std::make_unique<Call>());
    calls_.back()->request.set_queue(target.queue);
    idle_.push_back(calls_.back().get());
  }
  taker_ = std::thread([this] { TakeAnswers(); });
}

Producers::UnaryProducer::~UnaryProducer() {
  completions_.Shutdown();
  taker_.join();
}

// Each call ends by its deadline, so this does too.
void Producers::UnaryProducer::Publish(const Phase& phase, Pacer& pacer) {
  Call* call = WaitForIdle();
  while (Fill(phase, pacer, call)) {
    Send(call);
    call = WaitForIdle();
  }
  std::unique_lock lock(mutex_);
  idle_.push_back(call);
  taken_.wait(lock, [this] { return idle_.size() == calls_.size(); });
}

Producers::UnaryProducer::Call* Producers::UnaryProducer::WaitForIdle() {
  std::unique_lock lock(mutex_);
  taken_.wait(lock, [this] { return !idle_.empty(); });
  Call* call = idle_.back();
  idle_.pop_back();
  return call;
}

bool Producers::UnaryProducer::Fill(const Phase& phase, Pacer& pacer, Call* call) {
  const size_t batch = run_.options().batch > 0 ? static_cast<size_t>(run_.options().batch) : 1;
  call->request.clear_messages();
  call->due_ns.clear();
  while (call->due_ns.size() < batch) {
    const std::optional<int64_t> due_ns = pacer.Next();
    if (!due_ns) break;
    call->request.add_messages()->set_body(NextBody(phase, *due_ns));
    call->due_ns.push_back(*due_ns);
  }
  return !call->due_ns.empty();
}

void Producers::UnaryProducer::Send(Call* call) {
  call->reader.reset();  // it lives in what the context holds
  call->context.emplace();
  call->context->set_deadline(std::chrono::system_clock::now() +
                              absl::ToChronoMilliseconds(run_.patience()));
  call->reader =
      client_->queues().AsyncPublish(&*call->context, call->request, &completions_);
  call->reader->Finish(&call->response, &call->status, call);
}

void Producers::UnaryProducer::TakeAnswers() {
  void* tag = nullptr;
  bool ok = false;
  while (completions_.Next(&tag, &ok)) {
    auto* call = static_cast<Call*>(tag);
    if (call->status.ok()) {
      const int64_t now_ns = NowNs();
      for (const int64_t due_ns : call->due_ns) Confirmed(due_ns, now_ns);
    } else {
      run_.Fail(client::FromGrpc(call->status));
    }
    std::lock_guard lock(mutex_);
    idle_.push_back(call);
    taken_.notify_one();
  }
}

}  // namespace sluice::cli::bench
