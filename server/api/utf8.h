#ifndef SLUICE_SERVER_API_UTF8_H_
#define SLUICE_SERVER_API_UTF8_H_

#include <string_view>

namespace sluice::api {

// True for well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing
// above U+10FFFF. What proto3 demands of strings.
bool IsUtf8(std::string_view text);

// The longest prefix of well-formed `text` that has at most `bytes_max` bytes and cuts no character.
std::string_view Utf8Prefix(std::string_view text, size_t bytes_max);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_UTF8_H_
