// Publishes each line of an input as one message.
#ifndef SLUICE_CLIENT_CLI_PUBLISH_LINES_H_
#define SLUICE_CLIENT_CLI_PUBLISH_LINES_H_

#include <istream>
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

// The exit code. Lines are bytes without their '\n'; an empty line is an empty body.
int PublishLines(Context& context, const PublishLinesOptions& options, std::istream& input);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_PUBLISH_LINES_H_
