#include "proto/yaml/definitions_yaml.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "yaml-cpp/yaml.h"

namespace sluice {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// ---- reading

absl::Status At(const YAML::Mark& mark, const std::string& problem) {
  if (mark.is_null()) return absl::InvalidArgumentError(problem);
  return absl::InvalidArgumentError(absl::StrCat("line ", mark.line + 1, ": ", problem));
}

void AppendJsonString(const std::string& text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", c);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

// Writes YAML as JSON. Scalars become strings: protobuf's JSON takes those for every type.
class JsonWriter {
 public:
  absl::Status Write(const YAML::Node& node, int depth) {
    if (depth > kDefinitionsDepthMax) return At(node.Mark(), "nested too deep");
    if (++nodes_ > kDefinitionsNodesMax) return At(node.Mark(), "the document is too large");
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: json_ += "null"; return absl::OkStatus();
      case YAML::NodeType::Scalar: AppendJsonString(node.Scalar(), &json_); return absl::OkStatus();
      case YAML::NodeType::Sequence: return WriteSequence(node, depth);
      case YAML::NodeType::Map: return WriteMap(node, depth);
    }
    return At(node.Mark(), "neither a value, a list nor a map");
  }
  const std::string& json() const { return json_; }

 private:
  absl::Status WriteSequence(const YAML::Node& node, int depth) {
    json_ += "[";
    bool first = true;
    for (const YAML::Node& entry : node) {
      if (!first) json_ += ",";
      first = false;
      if (absl::Status status = Write(entry, depth + 1); !status.ok()) return status;
    }
    json_ += "]";
    return absl::OkStatus();
  }

  absl::Status WriteMap(const YAML::Node& node, int depth) {
    json_ += "{";
    std::set<std::string> keys;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return At(entry.first.Mark(), "a key is not a word");
      const std::string& key = entry.first.Scalar();
      if (!keys.insert(key).second) {
        return At(entry.first.Mark(), absl::StrCat("'", key, "' is there twice"));
      }
      if (keys.size() > 1) json_ += ",";
      AppendJsonString(key, &json_);
      json_ += ":";
      if (absl::Status status = Write(entry.second, depth + 1); !status.ok()) return status;
    }
    json_ += "}";
    return absl::OkStatus();
  }

  std::string json_;
  int nodes_ = 0;
};

// ---- writing

// Whether every reader of YAML takes it for text without quotes: "30s", "orders.eu", not "1.10",
// "on" or "~".
bool IsPlain(const std::string& text) {
  static const auto* const words = new std::set<std::string>{
      "true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  if (text.empty() || words->contains(absl::AsciiStrToLower(text))) return false;
  const auto safe = [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-' || c == '/';
  };
  return absl::ascii_isalpha(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(), safe);
}

void EmitText(const std::string& text, YAML::Emitter& out) {
  if (IsPlain(text)) {
    out << text;
  } else {
    out << YAML::DoubleQuoted << text;
  }
}

void EmitMessage(const Message& message, YAML::Emitter& out);

void EmitMap(const Message& message, const FieldDescriptor* field, YAML::Emitter& out) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<std::pair<std::string, std::string>> entries;
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, field, i);
    const auto text = [&](int number) {
      return entry.GetReflection()->GetString(entry, entry.GetDescriptor()->FindFieldByNumber(number));
    };
    entries.emplace_back(text(1), text(2));
  }
  std::sort(entries.begin(), entries.end());
  out << YAML::BeginMap;
  for (const auto& [key, value] : entries) {
    out << YAML::Key;
    EmitText(key, out);
    out << YAML::Value;
    EmitText(value, out);
  }
  out << YAML::EndMap;
}

void EmitSingle(const Message& message, const FieldDescriptor* field, YAML::Emitter& out) {
  const Reflection& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL: out << reflection.GetBool(message, field); return;
    case FieldDescriptor::CPPTYPE_INT32: out << reflection.GetInt32(message, field); return;
    case FieldDescriptor::CPPTYPE_INT64: out << reflection.GetInt64(message, field); return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      out << absl::StrCat(reflection.GetDouble(message, field));
      return;
    case FieldDescriptor::CPPTYPE_ENUM: out << reflection.GetEnum(message, field)->name(); return;
    case FieldDescriptor::CPPTYPE_STRING: EmitText(reflection.GetString(message, field), out); return;
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& value = reflection.GetMessage(message, field);
      if (const auto* duration = dynamic_cast<const google::protobuf::Duration*>(&value)) {
        out << google::protobuf::util::TimeUtil::ToString(*duration);
      } else {
        EmitMessage(value, out);
      }
      return;
    }
    // Definitions hold no others.
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
    case FieldDescriptor::CPPTYPE_FLOAT: break;
  }
  out << YAML::Null;
}

void EmitMessage(const Message& message, YAML::Emitter& out) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);  // those that are set
  out << YAML::BeginMap;
  for (const FieldDescriptor* field : fields) {
    out << YAML::Key << field->json_name() << YAML::Value;
    if (field->is_map()) {
      EmitMap(message, field, out);
    } else if (field->is_repeated()) {
      out << YAML::BeginSeq;
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        EmitMessage(reflection.GetRepeatedMessage(message, field, i), out);
      }
      out << YAML::EndSeq;
    } else {
      EmitSingle(message, field, out);
    }
  }
  out << YAML::EndMap;
}

}  // namespace

absl::StatusOr<v1::Definitions> DefinitionsFromYaml(std::string_view yaml) {
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(std::string(yaml));
  } catch (const YAML::Exception& error) {
    return At(error.mark, error.msg);
  }
  v1::Definitions definitions;
  if (documents.empty() || (documents.size() == 1 && documents[0].IsNull())) return definitions;
  if (documents.size() > 1) return absl::InvalidArgumentError("holds more than one document");
  if (!documents[0].IsMap()) {
    return At(documents[0].Mark(), "is not a map with queues, exchanges and bindings");
  }
  JsonWriter writer;
  if (absl::Status status = writer.Write(documents[0], 0); !status.ok()) return status;
  const auto parsed = google::protobuf::util::JsonStringToMessage(writer.json(), &definitions);
  if (!parsed.ok()) return absl::InvalidArgumentError(parsed.message().ToString());
  return definitions;
}

absl::StatusOr<v1::Definitions> DefinitionsFromYamlFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string yaml((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path));
  }
  auto definitions = DefinitionsFromYaml(yaml);
  if (!definitions.ok()) {
    return absl::Status(definitions.status().code(),
                        absl::StrCat(path, ": ", definitions.status().message()));
  }
  return definitions;
}

std::string DefinitionsToYaml(const v1::Definitions& definitions) {
  YAML::Emitter out;
  EmitMessage(definitions, out);
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace sluice
