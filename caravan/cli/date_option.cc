#include "caravan/cli/date_option.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::cli {

OptionSpec date_option() {
  return {.name = "--date",
          .value_name = "YYYY-MM-DD",
          .kind = OptionKind::kText,
          .help = "the day that templates which write one take for today",
          .default_note = "the clock's"};
}

std::tm date_of(const ParsedOptions& options) {
  std::tm result{};
  if (!options.has("--date")) {
    const std::time_t now = std::time(nullptr);
    localtime_r(&now, &result);
    return result;
  }
  const std::string text = options.text("--date");
  const auto number = [&](std::size_t begin, std::size_t count) {
    int value = -1;
    const char* const end = text.data() + begin + count;
    return std::from_chars(text.data() + begin, end, value).ptr == end ? value : -1;
  };
  const bool form = text.size() == 10 && text[4] == '-' && text[7] == '-';
  const int year = form ? number(0, 4) : -1;
  const int month = form ? number(5, 2) : -1;
  const int day = form ? number(8, 2) : -1;
  const std::chrono::year_month_day date(std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day)));
  if (year < 0 || month < 0 || day < 0 || !date.ok()) {
    throw InputError(fmt::format("--date: \"{}\" is no day; write it as 2024-07-26", printable(text, 60)));
  }
  const std::chrono::sys_days days(date);
  const std::chrono::sys_days first(date.year() / std::chrono::January / 1);
  result.tm_year = year - 1900;
  result.tm_mon = month - 1;
  result.tm_mday = day;
  result.tm_yday = static_cast<int>((days - first).count());
  result.tm_wday = static_cast<int>(std::chrono::weekday(days).c_encoding());
  return result;
}

}  // namespace caravan::cli
