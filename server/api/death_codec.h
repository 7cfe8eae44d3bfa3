// Deaths for the wire.
#ifndef SLUICE_SERVER_API_DEATH_CODEC_H_
#define SLUICE_SERVER_API_DEATH_CODEC_H_

#include <google/protobuf/repeated_ptr_field.h>

#include "server/model/death.h"
#include "sluice/v1/message.pb.h"

namespace sluice::api {

void ToProto(const Deaths& deaths, google::protobuf::RepeatedPtrField<v1::Death>* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_DEATH_CODEC_H_
