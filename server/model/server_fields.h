// The fields of sluice.v1.Message that the server sets (id = 13, publish_time = 14), written in
// wire format behind the bytes of the publisher. Their length is fixed, so that whoever reads a
// publish can allocate the whole payload before the engine chooses id and time.
#ifndef SLUICE_SERVER_MODEL_SERVER_FIELDS_H_
#define SLUICE_SERVER_MODEL_SERVER_FIELDS_H_

#include <cstddef>
#include <cstdint>

#include "server/model/ids.h"

namespace sluice {

// id: tag, length, 22 characters. publish_time: tag, length, then seconds and nanos each as tag
// and a varint padded to 5 bytes (legal in protobuf; 35 bits hold the seconds until the year 3058).
inline constexpr size_t kServerFieldsBytes = (2 + kMessageIdBytes) + (2 + 2 * (1 + 5));

void WriteServerFields(const MessagePosition& position, int64_t publish_ms,
                       char out[kServerFieldsBytes]);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_SERVER_FIELDS_H_
