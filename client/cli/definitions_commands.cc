// `sluice definitions export|apply`
#include <algorithm>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/definitions_diff.h"
#include "client/cli/format.h"
#include "client/cli/output_file.h"
#include "proto/yaml/definitions_yaml.h"

namespace sluice::cli {
namespace {

using Admin = v1::AdminService::StubInterface;

int Export(Context& context, const std::string& path) {
  const auto response =
      context.client().Call(&Admin::ExportDefinitions, v1::ExportDefinitionsRequest());
  if (!response.ok()) return context.Fail(response.status());
  const std::string text = context.json ? absl::StrCat(ToJson(response->definitions(), false), "\n")
                                        : DefinitionsToYaml(response->definitions());
  if (path.empty()) {
    std::cout << text << std::flush;
    return kExitOk;
  }
  auto file = OutputFile::Create(path);
  if (!file.ok()) return context.Fail(file.status());
  // A line ends in what the document ends in already.
  file->AppendLine(text.substr(0, text.size() - 1)).IgnoreError();  // Flush tells
  const absl::Status written = file->Flush();
  return written.ok() ? kExitOk : context.Fail(written);
}

struct ApplyOptions {
  std::string path;
  bool dry_run = false;
  bool prune = false;
};

int Apply(Context& context, const ApplyOptions& options) {
  const auto definitions =
      options.path == "-"
          ? DefinitionsFromYaml(std::string(std::istreambuf_iterator<char>(std::cin), {}))
          : DefinitionsFromYamlFile(options.path);
  if (!definitions.ok()) {
    std::cerr << "sluice: " << definitions.status().message() << "\n";
    return kExitUsage;
  }
  v1::ApplyDefinitionsRequest request;
  *request.mutable_definitions() = *definitions;
  request.set_dry_run(options.dry_run);
  request.set_prune(options.prune);
  const auto response = context.client().Call(&Admin::ApplyDefinitions, request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json) {
    PrintJson(*response);
  } else {
    std::cout << DefinitionsDiff(*response, options.dry_run) << std::flush;
  }
  return kExitOk;
}

}  // namespace

void AddDefinitionsCommands(CLI::App& app, Context& context) {
  CLI::App* definitions =
      app.add_subcommand("definitions", "Queues, exchanges and bindings as one document");
  definitions->require_subcommand(1);

  auto path = std::make_shared<std::string>();
  AddCommand(*definitions, context, "export", "Write all definitions as YAML, or with --json as JSON",
             "  sluice definitions export > definitions.yaml\n",
             [&context, path] { return Export(context, *path); })
      ->add_option("--output,-o", *path, "Write to this file [standard output]");

  auto options = std::make_shared<ApplyOptions>();
  CLI::App* apply = AddCommand(
      *definitions, context, "apply", "Create and change until the server agrees with a document",
      "  sluice definitions apply definitions.yaml --dry-run    # shows the difference\n"
      "  sluice definitions apply definitions.yaml --prune\n",
      [&context, options] { return Apply(context, *options); });
  apply->add_option("file", options->path, "YAML or JSON document; - for standard input")
      ->required();
  apply->add_flag("--dry-run", options->dry_run, "Show what would be done, and do nothing");
  apply->add_flag("--prune", options->prune,
                  "Also delete what the document does not name; queues only if they are empty");
}

}  // namespace sluice::cli
