// answer_table_test.cpp - answers that providers give, as test/answers lists them, are of the class that it says.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "core/provider/error_rules.h"

namespace keypool {
namespace {

constexpr TimeUs kNow = TimeUs{1795708800} * kMicrosPerSecond;  // 2026-11-26 16:00:00, as the table has it

std::vector<std::string> Split(const std::string &line) {
  std::vector<std::string> fields(1);
  for (char c : line) {
    if (c == '\t')
      fields.emplace_back();
    else
      fields.back().push_back(c);
  }
  return fields;
}

TEST(AnswerTable, IsOfTheClassesAndTimesThatItSays) {
  std::ifstream file(ANSWERS);
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  int answers = 0;
  for (int number = 2; std::getline(file, line); ++number, ++answers) {
    std::vector<std::string> field = Split(line);
    ASSERT_EQ(field.size(), 8u) << number;
    int status = field[1].empty() ? 0 : std::stoi(field[1]);
    Answer answer = ReadAnswer({field[2], field[3], field[4], status >= 200 && status < 300}, kNow);
    Classified classified = Classify(nullptr, 0, status, answer, kNow);
    EXPECT_EQ(AnswerClassName(classified.answer_class), field[5]) << number << ": " << line;
    if (classified.answer_class == AnswerClass::kOk) continue;
    double wait = answer.retry_at == 0 ? -1 : std::max<double>(static_cast<double>(answer.retry_at - kNow), 0) / 1e6;
    EXPECT_NEAR(wait, field[6].empty() ? -1 : std::stod(field[6]), 1e-6) << number << ": " << line;
  }
  EXPECT_GE(answers, 150);
}

}  // namespace
}  // namespace keypool
