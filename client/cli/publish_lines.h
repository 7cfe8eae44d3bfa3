// Publishes each line of standard input as one message.
#ifndef SLUICE_CLIENT_CLI_PUBLISH_LINES_H_
#define SLUICE_CLIENT_CLI_PUBLISH_LINES_H_

#include <string>

#include "client/cli/context.h"
#include "client/cpp/publisher.h"

namespace sluice::cli {

struct PublishLinesOptions {
  client::PublisherOptions publisher;
  v1::Message prototype;       // all but the body
  std::string confirmed_path;  // empty: none
  bool quiet = false;
};

// The exit code. Lines are bytes without their '\n'; an empty line is an empty body. SIGINT and SIGTERM
// end the reading, not the waiting for what was sent; a second one ends the process.
int PublishLines(Context& context, const PublishLinesOptions& options);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_PUBLISH_LINES_H_
