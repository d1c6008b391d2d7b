// moments.cpp - when something is over, in the forms in which providers write it.
#include "core/provider/moments.h"

#include <array>
#include <chrono>

namespace keypool {

namespace {

using std::string_view;

constexpr int64_t kMillis = 1000;
constexpr int64_t kMinutes = 60 * kMicrosPerSecond, kHours = 60 * kMinutes, kDays = 24 * kHours;
constexpr TimeUs kLatestMoment = kLatestTime + kLongestDelay;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Takes a text from the front, and says whether it was there.
bool Take(string_view *text, string_view what) {
  if (!text->starts_with(what)) return false;
  text->remove_prefix(what.size());
  return true;
}

// Takes so many digits from the front, or, in place of the first, blanks.
bool TakeDigits(string_view *text, size_t count, int *number) {
  if (text->size() < count) return false;
  int value = 0;
  for (size_t i = 0; i < count; ++i) {
    char c = (*text)[i];
    if (!IsDigit(c) && !(c == ' ' && value == 0 && i + 1 < count)) return false;
    value = 10 * value + (c == ' ' ? 0 : c - '0');
  }
  text->remove_prefix(count);
  *number = value;
  return true;
}

// Takes a decimal number of units from the front, in microseconds, rounded up.
bool TakeNumber(string_view *text, int64_t unit, TimeUs most, TimeUs *micros) {
  size_t at = 0;
  int64_t whole = 0;
  for (; at < text->size() && IsDigit((*text)[at]); ++at) {
    whole = 10 * whole + ((*text)[at] - '0');
    if (whole > most / unit) return false;
  }
  if (at == 0) return false;
  int64_t sum = whole * unit, share = unit;
  bool rest = false;
  if (at < text->size() && (*text)[at] == '.') {
    for (++at; at < text->size() && IsDigit((*text)[at]); ++at) {
      int64_t digit = (*text)[at] - '0';
      rest = rest || digit * share % 10 != 0;
      sum += digit * share / 10;
      share /= 10;
      rest = rest || (share == 0 && digit != 0);
    }
  }
  text->remove_prefix(at);
  *micros = sum + rest;
  return true;
}

struct Clock {
  int hour, minute, second;
};

// 08:49:37, leap seconds included.
bool TakeClock(string_view *text, Clock *clock) {
  return TakeDigits(text, 2, &clock->hour) && Take(text, ":") && TakeDigits(text, 2, &clock->minute) &&
         Take(text, ":") && TakeDigits(text, 2, &clock->second) && clock->hour < 24 && clock->minute < 60 &&
         clock->second <= 60;
}

bool TakeMonth(string_view *text, int *month) {
  constexpr std::array<string_view, 12> kNames = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  for (size_t i = 0; i < kNames.size(); ++i)
    if (Take(text, kNames[i])) {
      *month = static_cast<int>(i) + 1;
      return true;
    }
  return false;
}

bool MomentOf(int year, int month, int day, const Clock &clock, TimeUs *moment) {
  std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                   std::chrono::day(static_cast<unsigned>(day))};
  if (year < 1970 || !date.ok()) return false;
  int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  TimeUs time = days * kDays + clock.hour * kHours + clock.minute * kMinutes + clock.second * kMicrosPerSecond;
  if (time > kLatestMoment) return false;
  *moment = time;
  return true;
}

int YearOf(TimeUs time) {
  std::chrono::sys_days day{std::chrono::days(time / kDays)};
  return static_cast<int>(std::chrono::year_month_day(day).year());
}

// Of two digits.
int WholeYear(int year, TimeUs now) {
  int century = YearOf(now) / 100 * 100;
  year += century;
  if (year > YearOf(now) + 50) return year - 100;
  return year <= YearOf(now) - 50 ? year + 100 : year;
}

// 06 Nov 1994 08:49:37 GMT, or 06-Nov-94 08:49:37 GMT
bool ReadDayFirst(string_view text, string_view between, size_t year_digits, TimeUs now, TimeUs *moment) {
  int day, month, year;
  Clock clock;
  bool read = TakeDigits(&text, 2, &day) && Take(&text, between) && TakeMonth(&text, &month) && Take(&text, between) &&
              TakeDigits(&text, year_digits, &year) && Take(&text, " ") && TakeClock(&text, &clock) && text == " GMT";
  return read && MomentOf(year_digits == 2 ? WholeYear(year, now) : year, month, day, clock, moment);
}

// Nov  6 08:49:37 1994
bool ReadMonthFirst(string_view text, TimeUs *moment) {
  int day, month, year;
  Clock clock;
  bool read = TakeMonth(&text, &month) && Take(&text, " ") && TakeDigits(&text, 2, &day) && Take(&text, " ") &&
              TakeClock(&text, &clock) && Take(&text, " ") && TakeDigits(&text, 4, &year) && text.empty();
  return read && MomentOf(year, month, day, clock, moment);
}

// What is added to local time: microseconds.
bool ReadOffset(string_view text, TimeUs *offset) {
  if (text == "Z" || text == "z") {
    *offset = 0;
    return true;
  }
  bool east = text.starts_with('+');
  int hours, minutes;
  if (!east && !text.starts_with('-')) return false;
  text.remove_prefix(1);
  if (!TakeDigits(&text, 2, &hours) || !Take(&text, ":") || !TakeDigits(&text, 2, &minutes) || !text.empty())
    return false;
  *offset = (hours * kHours + minutes * kMinutes) * (east ? -1 : 1);
  return true;
}

// Seconds or milliseconds since 1970, by their size.
constexpr int64_t kFirstEpoch = 1000000000, kFirstEpochMillis = 100 * kFirstEpoch;
bool ReadEpoch(string_view text, TimeUs *moment) {
  string_view rest = text;
  TimeUs count, time;
  if (!TakeNumber(&rest, 1, kLatestMoment / kMillis, &count) || !rest.empty() || count < kFirstEpoch) return false;
  if (!TakeNumber(&text, count < kFirstEpochMillis ? kMicrosPerSecond : kMillis, kLatestMoment, &time)) return false;
  *moment = time;
  return true;
}

}  // namespace

bool ReadNumber(string_view text, int64_t unit, TimeUs *delay) noexcept {
  TimeUs read;
  if (!TakeNumber(&text, unit, kLongestDelay, &read) || !text.empty()) return false;
  *delay = read;
  return true;
}

bool ReadDuration(string_view text, TimeUs *delay) noexcept {
  struct Unit {
    string_view name;
    int64_t micros;
  };
  constexpr std::array<Unit, 8> kUnits = {{{"ns", 0},
                                           {"us", 1},
                                           {"µs", 1},
                                           {"ms", kMillis},
                                           {"s", kMicrosPerSecond},
                                           {"m", kMinutes},
                                           {"h", kHours},
                                           {"d", kDays}}};
  TimeUs sum = 0;
  if (text.empty()) return false;
  while (!text.empty()) {
    size_t digits = text.find_first_not_of("0123456789.");
    if (digits == text.npos || digits == 0) return false;
    string_view number = text.substr(0, digits);
    text.remove_prefix(digits);
    const Unit *unit = nullptr;
    for (const Unit &each : kUnits)
      if (unit == nullptr && Take(&text, each.name)) unit = &each;
    TimeUs part;
    if (unit == nullptr || !ReadNumber(number, unit->micros == 0 ? 1 : unit->micros, &part)) return false;
    sum += unit->micros == 0 ? (part + 999) / 1000 : part;
    if (sum > kLongestDelay) return false;
  }
  *delay = sum;
  return true;
}

bool ReadHttpDate(string_view text, TimeUs now, TimeUs *moment) noexcept {
  size_t name = text.find_first_of(", ");
  if (name == text.npos || name < 3) return false;
  if (text[name] == ' ') return ReadMonthFirst(text.substr(name + 1), moment);
  if (text.substr(name, 2) != ", ") return false;
  text.remove_prefix(name + 2);
  return ReadDayFirst(text, " ", 4, now, moment) || ReadDayFirst(text, "-", 2, now, moment);
}

bool ReadTimestamp(string_view text, TimeUs *moment) noexcept {
  int year, month, day;
  Clock clock;
  bool read = TakeDigits(&text, 4, &year) && Take(&text, "-") && TakeDigits(&text, 2, &month) && Take(&text, "-") &&
              TakeDigits(&text, 2, &day) && (Take(&text, "T") || Take(&text, "t") || Take(&text, " ")) &&
              TakeClock(&text, &clock);
  TimeUs time, fraction = 0, offset;
  if (!read || !MomentOf(year, month, day, clock, &time)) return false;
  if (text.starts_with('.')) {
    size_t end = text.find_first_not_of("0123456789", 1);
    if (end == text.npos || end == 1) return false;
    char digits[16] = "0.";
    size_t count = end - 1 < 12 ? end - 1 : 12;
    for (size_t i = 0; i < count; ++i) digits[2 + i] = text[1 + i];
    if (!ReadNumber({digits, 2 + count}, kMicrosPerSecond, &fraction)) return false;
    text.remove_prefix(end);
  }
  if (!ReadOffset(text, &offset) || time + fraction + offset < 0) return false;
  *moment = time + fraction + offset;
  return true;
}

bool ReadMoment(string_view text, TimeUs now, TimeUs *moment) noexcept {
  static_assert(kLongestDelay < kFirstEpoch * kMicrosPerSecond);
  TimeUs delay;
  if (ReadNumber(text, kMicrosPerSecond, &delay) || ReadDuration(text, &delay)) {
    *moment = now + delay;
    return true;
  }
  return ReadEpoch(text, moment) || ReadTimestamp(text, moment) || ReadHttpDate(text, now, moment);
}

}  // namespace keypool
