// json_reader_test.cpp - JSON comes piece by piece, and what is none ends it.
#include "core/provider/json_reader.h"

#include <gtest/gtest.h>

#include <string>

namespace keypool {
namespace {

using Piece = JsonReader::Piece;

// The pieces as one text: brackets, `name:`, 'text', numbers and words as they are.
std::string Read(std::string_view json) {
  std::string pieces;
  JsonReader reader(json);
  for (Piece piece = reader.Next(); piece != Piece::kEnd; piece = reader.Next()) {
    std::string value(reader.value());
    if (piece == Piece::kOpen) value = "(" + std::to_string(reader.depth());
    if (piece == Piece::kClose) value = std::to_string(reader.depth()) + ")";
    if (piece == Piece::kName) value += ":";
    if (piece == Piece::kText) value = "'" + value + "'";
    pieces += (pieces.empty() ? "" : " ") + value;
  }
  EXPECT_EQ(reader.Next(), Piece::kEnd) << "and so on";
  return pieces;
}

TEST(JsonReader, ReadsValuesOfEveryKind) {
  EXPECT_EQ(Read(R"({"a": "text", "b": -1.5e3, "c": [true, null, {}], "d": {"e": ""}})"),
            "(1 a: 'text' b: -1.5e3 c: (2 true null (3 2) 1) d: (2 e: '' 1) 0)");
  EXPECT_EQ(Read(" \t\r\n[ 1 ,2 , \"x\" ] "), "(1 1 2 'x' 0)");
  EXPECT_EQ(Read("\"alone\""), "'alone'");
  EXPECT_EQ(Read(""), "");
}

TEST(JsonReader, ResolvesEscapes) {
  EXPECT_EQ(Read(R"(["\"\\\/\b\f\n\r\t", "\u0041\u00e9\u20AC", "\ud83d\ude00"])"),
            "(1 '\"\\/\b\f\n\r\t' 'A\?\?' '\?\?' 0)");
  EXPECT_EQ(Read(R"(["\u12", "\uzz", "\x"])"), "(1 '?' '?zz' 'x' 0)");
  EXPECT_EQ(Read("[\"\xff\xc3\"]"), "(1 '\xff\xc3' 0)") << "bytes are as they were";
}

TEST(JsonReader, EndsWhereItIsNone) {
  EXPECT_EQ(Read(R"({"a": 1; "b": 2})"), "(1 a: 1");
  EXPECT_EQ(Read("<html>{}</html>"), "");
  EXPECT_EQ(Read("]1"), "") << "closes nothing";
  EXPECT_EQ(Read(R"({"a": "no end)"), "(1 a: 'no end'");
  EXPECT_EQ(Read("[\"\\"), "(1 '?'") << "an escape that is cut off";
  EXPECT_EQ(Read(std::string_view("[1\0, 2]", 7)), "(1 1");
}

TEST(JsonReader, CutsLongValuesAndDoesNotRecurse) {
  std::string text(100000, 'x');
  EXPECT_EQ(Read("\"" + text + "\"").size(), kMaxJsonValue + 2);
  EXPECT_EQ(Read(std::string(1000000, '[')).substr(0, 5), "(1 (2");
}

}  // namespace
}  // namespace keypool
