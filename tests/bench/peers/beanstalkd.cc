// beanstalkd: its text protocol, commands sent ahead of their answers.
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/bench/peers/line_socket.h"
#include "tests/bench/peers/peer.h"

namespace sluice::peers {
namespace {

// Reserves sent together. They do not block (timeout 0), or the deletes behind them would wait.
constexpr int kReservesAhead = 100;

class BeanstalkdProducer : public Producer {
 public:
  BeanstalkdProducer(const Settings& settings, const std::string& tube)
      : window_(settings.window), socket_(settings.host, settings.port) {
    socket_.Write(absl::StrCat("use ", tube, "\r\n"));
    socket_.Flush();
    socket_.ReadLine();
  }

  void Send(absl::string_view body) override {
    if (in_flight_ >= window_) {
      socket_.Flush();
      TakeOne();
    }
    while (socket_.HasLine()) TakeOne();
    // put PRIORITY DELAY TIME-TO-RUN BYTES
    socket_.Write(absl::StrCat("put 1024 0 60 ", body.size(), "\r\n", body, "\r\n"));
    ++in_flight_;
  }
  void Idle(int64_t until_ns) override {
    socket_.Flush();
    if (socket_.WaitLine(until_ns)) TakeOne();
  }
  void Finish() override {
    socket_.Flush();
    while (in_flight_ > 0) TakeOne();
  }

 private:
  void TakeOne() {
    const absl::string_view line = socket_.ReadLine();
    if (!absl::StartsWith(line, "INSERTED")) Die(absl::StrCat("put: ", line));
    --in_flight_;
  }

  const int64_t window_;
  LineSocket socket_;
  int64_t in_flight_ = 0;
};

class BeanstalkdConsumer : public Consumer {
 public:
  BeanstalkdConsumer(const Settings& settings, const std::string& tube)
      : socket_(settings.host, settings.port) {
    socket_.Write(absl::StrCat("watch ", tube, "\r\n"));
    socket_.Flush();
    socket_.ReadLine();
  }

  void Take(int64_t, const Handler& handler) override {
    for (int i = 0; i < reserves_; ++i) socket_.Write("reserve-with-timeout 0\r\n");
    int taken = Reserve(handler);
    if (taken == 0) {
      // Nothing there: wait for one, and go on one by one while there is no crowd.
      socket_.Write("reserve-with-timeout 1\r\n");
      reserves_ = 1;
      taken = Reserve(handler);
    } else if (taken == reserves_) {
      reserves_ = std::min(2 * reserves_, kReservesAhead);
    }
    for (; taken > 0; --taken) {
      const absl::string_view line = socket_.ReadLine();
      if (line != "DELETED") Die(absl::StrCat("delete: ", line));
    }
  }
  void Finish() override {}

 private:
  // Reads the answers to what was sent, and sends a delete for each job.
  int Reserve(const Handler& handler) {
    socket_.Flush();
    int taken = 0;
    for (int i = 0; i < reserves_; ++i) {
      const std::string line(socket_.ReadLine());
      if (line == "TIMED_OUT") continue;
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      size_t bytes = 0;
      if (words.size() != 3 || words[0] != "RESERVED" || !absl::SimpleAtoi(words[2], &bytes)) {
        Die(absl::StrCat("reserve: ", line));
      }
      handler(socket_.ReadBytes(bytes + 2).substr(0, bytes), false);
      socket_.Write(absl::StrCat("delete ", words[1], "\r\n"));
      ++taken;
    }
    socket_.Flush();
    return taken;
  }

  LineSocket socket_;
  int reserves_ = 1;
};

class Beanstalkd : public Peer {
 public:
  explicit Beanstalkd(const Settings& settings) : settings_(settings) {}
  void MakeQueue(const std::string&) override {}  // a tube is made by using it
  std::unique_ptr<Producer> NewProducer(const std::string& queue) override {
    return std::make_unique<BeanstalkdProducer>(settings_, queue);
  }
  std::unique_ptr<Consumer> NewConsumer(const std::string& queue) override {
    return std::make_unique<BeanstalkdConsumer>(settings_, queue);
  }

 private:
  const Settings settings_;
};

}  // namespace

std::unique_ptr<Peer> NewBeanstalkd(const Settings& settings) {
  return std::make_unique<Beanstalkd>(settings);
}

}  // namespace sluice::peers
