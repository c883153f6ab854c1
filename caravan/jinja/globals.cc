// The functions that every template has.
#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/jinja/call.h"
#include "caravan/jinja/filters.h"
#include "caravan/jinja/python.h"

namespace caravan::jinja {

namespace {

constexpr std::string_view kGlobals[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

Value make_range(Engine& engine, const Arguments& arguments) {
  const Bound bound(engine, "range", arguments, {"start", "stop", "step"}, 1);
  const bool one = bound[1] == nullptr;
  const std::int64_t start = one ? 0 : bound.integer(0, 0);
  const std::int64_t stop = one ? bound.integer(0, 0) : bound.integer(1, 0);
  const std::int64_t step = bound.integer(2, 1);
  if (step == 0) {
    engine.fail("range() arg 3 must not be zero");
  }
  constexpr std::size_t kMost = 100'000;  // of jinja2's sandbox
  ListBuilder list(engine);
  for (std::int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (list.items().size() == kMost) {
      engine.fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    list.push(at);
    if (__builtin_add_overflow(at, step, &at)) {
      break;
    }
  }
  return list.finish(List::Flavour::kRange);
}

Value make_dict_of(Engine& engine, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1 || (arguments.positional.size() == 1 && !arguments.positional[0].is_dict())) {
    engine.unsupported("a dict() of anything but one dict and named values");
  }
  if (!arguments.positional.empty()) {
    items = arguments.positional[0].dict()->items;
  }
  for (const auto& [name, value] : arguments.named) {
    items.emplace_back(make_string(engine, name), value);
  }
  return make_dict(engine, std::move(items));
}

[[noreturn]] void raise(Engine& engine, const Arguments& arguments) {
  const Bound bound(engine, "raise_exception", arguments, {"message"}, 1);
  constexpr std::size_t kShown = 400;
  engine.fail(fmt::format("the template says: {}", printable(*as_text(engine, *bound[0]).text(), kShown)));
}

// One directive of strftime in the C locale, or nothing for one that is not known.
std::optional<std::string> directive(char kind, bool plain, const std::tm& time) {
  static constexpr const char* kDays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
  static constexpr const char* kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                            "July",    "August",   "September", "October", "November", "December"};
  const std::string day = kDays[std::clamp(time.tm_wday, 0, 6)];
  const std::string month = kMonths[std::clamp(time.tm_mon, 0, 11)];
  const auto digits = [&](int number, int width = 2) {
    return plain ? std::to_string(number) : fmt::format("{:0{}}", number, width);
  };
  const int hour12 = time.tm_hour % 12 == 0 ? 12 : time.tm_hour % 12;
  switch (kind) {
    case 'a':
      return day.substr(0, 3);
    case 'A':
      return day;
    case 'b':
    case 'h':
      return month.substr(0, 3);
    case 'B':
      return month;
    case 'd':
      return digits(time.tm_mday);
    case 'm':
      return digits(time.tm_mon + 1);
    case 'y':
      return digits((time.tm_year + 1900) % 100);
    case 'Y':
      return std::to_string(time.tm_year + 1900);
    case 'H':
      return digits(time.tm_hour);
    case 'I':
      return digits(hour12);
    case 'M':
      return digits(time.tm_min);
    case 'S':
      return digits(time.tm_sec);
    case 'j':
      return digits(time.tm_yday + 1, 3);
    case 'p':
      return time.tm_hour < 12 ? "AM" : "PM";
    case 'w':
      return std::to_string(time.tm_wday);
    default:
      return std::nullopt;
  }
}

}  // namespace

bool is_global(std::string_view name) {
  return std::ranges::find(kGlobals, name) != std::end(kGlobals);
}

Value call_global(Engine& engine, std::string_view name, const Arguments& arguments) {
  if (name == "range") {
    return make_range(engine, arguments);
  }
  if (name == "dict") {
    return make_dict_of(engine, arguments);
  }
  raise(engine, arguments);
}

Value format_time(Engine& engine, const std::tm& time, const Arguments& arguments) {
  const Bound bound(engine, "strftime_now", arguments, {"format"}, 1);
  if (bound.text(0) == nullptr) {
    engine.fail("strftime_now() takes a string");
  }
  const std::string format = *bound.text(0);
  Builder builder(engine);
  std::size_t at = 0;
  while (at < format.size()) {
    const std::size_t percent = std::min(format.find('%', at), format.size());
    builder.append(std::string_view(format).substr(at, percent - at));
    at = percent + 1;
    if (percent == format.size()) {
      break;
    }
    const bool plain = at < format.size() && format[at] == '-';
    at += plain ? 1 : 0;
    const char kind = at < format.size() ? format[at++] : ' ';
    // %F, %T, %D and %R are shorthands.
    static constexpr std::pair<char, std::string_view> kShort[] = {
        {'F', "%Y-%m-%d"}, {'T', "%H:%M:%S"}, {'D', "%m/%d/%y"}, {'R', "%H:%M"}};
    const auto* shorthand = std::ranges::find(kShort, kind, &std::pair<char, std::string_view>::first);
    const std::optional<std::string> text = directive(kind, plain, time);
    if (kind == '%') {
      builder.append("%");
    } else if (shorthand != std::end(kShort)) {
      const Arguments inner{{make_string(engine, std::string(shorthand->second))}, {}};
      builder.append(*format_time(engine, time, inner).text());
    } else if (text) {
      builder.append(*text);
    } else {
      engine.unsupported(fmt::format("the directive %{} of strftime_now()", printable(std::string(1, kind))));
    }
  }
  return make_string(engine, builder.take());
}

}  // namespace caravan::jinja
