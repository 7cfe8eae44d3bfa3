// Decides whether a history is one that the promises allow.
//
// Sets: A publish attempts, E publish-ok, F publish-refused, D delivered, K settled-ok.
//   loss          after the drain every message of E was delivered and settled by someone
//   phantom       D is within A, no message of F is in D, bodies are intact, one message id per body
//   resurrection  nothing is granted again after its ack (or discard) was answered OK
//   lease         no message is granted while an earlier lease on it lives
//   attempt       delivery counts never repeat within one run of the server, attempts follow
//                 failures, a redelivery after a crash is counted or flagged
//   receipt       a receipt is not accepted after a later grant of an unsettled message
//   order         first deliveries come in commit order to the only consumer of a queue
//   depth         reported depth lies between what must and what can be there
#ifndef SLUICE_TESTS_CRASH_CHECKER_H_
#define SLUICE_TESTS_CRASH_CHECKER_H_

#include <string>
#include <vector>

#include "tests/crash/history.h"

namespace sluice::crash {

struct Violation {
  std::string rule;  // the first word of a line above
  std::string what;
};

struct Verdict {
  enum class Kind { kPass, kFail, kUnknown };
  Kind kind = Kind::kUnknown;
  std::vector<Violation> violations;  // at most kViolationsMax; kFail if there is one
  std::string why_unknown;            // nothing published, no kill, no drain, nothing redelivered
  std::string summary;                // figures, for the log

  static constexpr size_t kViolationsMax = 50;
};

Verdict Check(const History& history);

}  // namespace sluice::crash

#endif  // SLUICE_TESTS_CRASH_CHECKER_H_
