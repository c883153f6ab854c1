// The exceptions that Caravan throws.  One type a kind of cause, so that a caller can tell bad input from a bug.
//
// A message is one sentence: what, where, expected, found, what to do.  The program prints it after "caravan: " and
// ends with a non-zero exit status; the library never prints and never ends the process.
#pragma once

#include <stdexcept>
#include <string>

namespace caravan {

// The root: catch this to catch everything that Caravan throws on purpose.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// What the user typed or passed is wrong: an option, a token id, a prompt.
class InputError : public Error {
  using Error::Error;
};

// The operating system refused: a missing file, no permission, a full disk.
class FileError : public Error {
  using Error::Error;
};

// A file's content breaks its format: truncated, lying or hostile.
class FormatError : public Error {
  using Error::Error;
};

// A configuration is contradictory or incomplete.
class ConfigError : public Error {
  using Error::Error;
};

// Well-formed, understood, and not something that Caravan does.
class UnsupportedError : public Error {
  using Error::Error;
};

// An op or a view was given shapes or dtypes outside its contract.  User input never reaches this: it is a bug of a
// caller.
class ShapeError : public Error {
  using Error::Error;
};

// A memory segment does not fit.  The message carries the table of segments.
class OutOfMemoryError : public Error {
  using Error::Error;
};

// A device refused or failed, in the words of its driver or library.
class DeviceError : public Error {
  using Error::Error;
};

}  // namespace caravan
