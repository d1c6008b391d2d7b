// moments_test.cpp - when something is over, in every form.
#include "core/provider/moments.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <string>

namespace keypool {
namespace {

constexpr TimeUs kNow = TimeUs{1795708800} * kMicrosPerSecond;  // 2026-11-26 16:00:00
constexpr TimeUs kNone = -1;

template <typename Read>
TimeUs With(Read read) {
  TimeUs result = kNone;
  bool good = read(&result);
  EXPECT_EQ(good, result != kNone);
  return result;
}

TimeUs Number(std::string_view text) {
  return With([&](TimeUs *out) { return ReadNumber(text, kMicrosPerSecond, out); });
}
TimeUs Duration(std::string_view text) {
  return With([&](TimeUs *out) { return ReadDuration(text, out); });
}
TimeUs HttpDate(std::string_view text) {
  return With([&](TimeUs *out) { return ReadHttpDate(text, kNow, out); });
}
TimeUs Timestamp(std::string_view text) {
  return With([&](TimeUs *out) { return ReadTimestamp(text, out); });
}
TimeUs Moment(std::string_view text) {
  return With([&](TimeUs *out) { return ReadMoment(text, kNow, out); });
}

TEST(ReadNumber, TakesWholeAndBrokenOnesAndRoundsUp) {
  EXPECT_EQ(Number("20"), 20000000);
  EXPECT_EQ(Number("0"), 0);
  EXPECT_EQ(Number("0.5"), 500000);
  EXPECT_EQ(Number("1."), 1000000);
  EXPECT_EQ(Number("0.0000001"), 1);
  EXPECT_EQ(Number("0.0000010"), 1);
  EXPECT_EQ(Number("0.9999999"), 1000000);
  EXPECT_EQ(Number("34.074824224"), 34074825);
  for (auto text : {"", "-1", "+1", ".5", "1e3", "1 ", "1s", "nan", "0x10", "99999999999999999999", "1.2.3"})
    EXPECT_EQ(Number(text), kNone) << text;
}

TEST(ReadDuration, TakesWhatGoWrites) {
  EXPECT_EQ(Duration("6m0s"), 360000000);
  EXPECT_EQ(Duration("1.5s"), 1500000);
  EXPECT_EQ(Duration("120ms"), 120000);
  EXPECT_EQ(Duration("1h2m3.5s"), 3723500000);
  EXPECT_EQ(Duration("2d"), 2 * 86400 * kMicrosPerSecond);
  EXPECT_EQ(Duration("1us"), 1);
  EXPECT_EQ(Duration("1µs"), 1);
  EXPECT_EQ(Duration("1500ns"), 2);
  EXPECT_EQ(Duration("0s"), 0);
  EXPECT_EQ(Duration("34.074824224s"), 34074825);
  for (auto text : {"", "s", "6", "6m0", "-1s", "1y", "1 s", "1s ", "..s", "99999999999d"})
    EXPECT_EQ(Duration(text), kNone) << text;
}

TEST(ReadHttpDate, TakesTheThreeForms) {
  constexpr TimeUs kExample = TimeUs{784111777} * kMicrosPerSecond;  // RFC 9110's
  EXPECT_EQ(HttpDate("Sun, 06 Nov 1994 08:49:37 GMT"), kExample);
  EXPECT_EQ(HttpDate("Sunday, 06-Nov-94 08:49:37 GMT"), kExample);
  EXPECT_EQ(HttpDate("Sun Nov  6 08:49:37 1994"), kExample);
  EXPECT_EQ(HttpDate("Thursday, 26-Nov-26 16:00:00 GMT"), kNow);
  EXPECT_EQ(HttpDate("Thursday, 01-Jan-76 00:00:00 GMT"), TimeUs{3345062400} * kMicrosPerSecond) << "2076";
  EXPECT_EQ(HttpDate("Saturday, 01-Jan-77 00:00:00 GMT"), TimeUs{220924800} * kMicrosPerSecond) << "1977";
  for (auto text : {"", "Sun", "Sun, ", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 CET",
                    "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Now 1994 08:49:37 GMT",
                    "Sun, 06 Nov 1094 08:49:37 GMT", "Sun Nov  6 08:49:37 1994 ", "06 Nov 1994 08:49:37 GMT"})
    EXPECT_EQ(HttpDate(text), kNone) << text;
}

TEST(ReadHttpDate, AgreesWithTheCLibrary) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    auto time = static_cast<time_t>(random() % 4102444800);
    tm parts;
    gmtime_r(&time, &parts);
    char text[64];
    for (auto form : {"%a, %d %b %Y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"}) {
      strftime(text, sizeof(text), form, &parts);
      ASSERT_EQ(HttpDate(text), time * kMicrosPerSecond) << text;
    }
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
    ASSERT_EQ(Timestamp(text), time * kMicrosPerSecond) << text;
  }
}

TEST(ReadTimestamp, TakesFractionsAndOffsets) {
  EXPECT_EQ(Timestamp("2026-11-26T16:00:00Z"), kNow);
  EXPECT_EQ(Timestamp("2026-11-26t16:00:00z"), kNow);
  EXPECT_EQ(Timestamp("2026-11-26 16:00:00Z"), kNow);
  EXPECT_EQ(Timestamp("2026-11-26T17:00:00+01:00"), kNow);
  EXPECT_EQ(Timestamp("2026-11-26T10:30:00-05:30"), kNow);
  EXPECT_EQ(Timestamp("2026-11-26T16:00:00.5Z"), kNow + 500000);
  EXPECT_EQ(Timestamp("2026-11-26T16:00:00.123456789Z"), kNow + 123457);
  EXPECT_EQ(Timestamp("2026-11-26T16:00:00.00000000000000000000000001Z"), kNow);
  for (auto text :
       {"", "2026-11-26", "2026-11-26T16:00:00", "2026-11-26T16:00:00.Z", "2026-13-26T16:00:00Z",
        "2026-11-26T16:00:00+1", "2026-11-26T16:00:00.5", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00+01:00"})
    EXPECT_EQ(Timestamp(text), kNone) << text;
}

TEST(ReadMoment, TellsTheFormsApart) {
  EXPECT_EQ(Moment("20"), kNow + 20000000);
  EXPECT_EQ(Moment("0.25"), kNow + 250000);
  EXPECT_EQ(Moment("1795708860"), kNow + 60000000);
  EXPECT_EQ(Moment("1795708860.5"), kNow + 60500000);
  EXPECT_EQ(Moment("1795708860000"), kNow + 60000000);
  EXPECT_EQ(Moment("6m0s"), kNow + 360000000);
  EXPECT_EQ(Moment("2026-11-26T16:01:00Z"), kNow + 60000000);
  EXPECT_EQ(Moment("Thu, 26 Nov 2026 16:01:00 GMT"), kNow + 60000000);
  EXPECT_EQ(Moment("Sun, 06 Nov 1994 08:49:37 GMT"), TimeUs{784111777} * kMicrosPerSecond) << "it is over";
  EXPECT_EQ(Moment("400000000"), kNone) << "in more than ten years";
  for (auto text : {"", "soon", "-5", "null", "[object Object]"}) EXPECT_EQ(Moment(text), kNone) << text;
}

}  // namespace
}  // namespace keypool
