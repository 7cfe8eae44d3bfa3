// Makes a queue, publishes ten messages, consumes and acks them. Needs a server on 127.0.0.1:7070,
// or at the address given as the first argument.
#include <iostream>

#include "client/cpp/client.h"
#include "client/cpp/consumer.h"
#include "client/cpp/publisher.h"

using namespace sluice::client;  // an example may
namespace v1 = sluice::v1;

int main(int argc, char** argv) {
  Client client({.address = argc > 1 ? argv[1] : kDefaultAddress});

  v1::CreateQueueRequest create;
  create.mutable_config()->set_name("hello");
  auto created = client.Call(&v1::AdminService::StubInterface::CreateQueue, create);
  if (!created.ok()) {
    std::cerr << created.status().message() << "\n";
    return 1;
  }

  Publisher publisher(client, {.queue = "hello"});
  for (int i = 0; i < 10; ++i) {
    v1::Message message;
    message.set_body("hello " + std::to_string(i));
    publisher
        .Publish(std::move(message),
                 [i](const PublishOutcome& outcome) {
                   if (!outcome.status.ok()) std::cerr << i << ": " << outcome.status << "\n";
                 })
        .IgnoreError();  // the callback tells
  }
  if (!publisher.Close().ok()) return 1;

  Consumer consumer(client, {.queue = "hello", .idle_timeout = absl::Seconds(1)});
  const absl::Status consumed = consumer.Run([&](const v1::Delivery& delivery) {
    std::cout << delivery.message().body() << "\n";
    consumer.Ack(delivery.receipt());
  });
  return consumed.ok() ? 0 : 1;
}
