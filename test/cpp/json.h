// A small JSON reader for test data; no surrogate pairs.
#pragma once
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
  enum Kind { kNull, kBool, kNumber, kText, kArray, kObject };
  Kind kind = kNull;
  double number = 0;  // 0 or 1 for booleans
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> fields;
  const Json& at(const std::string& name) const { return fields.at(name); }
};

class JsonParser {
 public:
  explicit JsonParser(const std::string& source) : source_(source) {}

  Json value() {
    Json json;
    const char c = peek();
    if (c == '{') {
      json.kind = Json::kObject;
      list('}', [&] {
        std::string name = string();
        expect(':');
        json.fields.emplace(std::move(name), value());
      });
    } else if (c == '[') {
      json.kind = Json::kArray;
      list(']', [&] { json.items.push_back(value()); });
    } else if (c == '"') {
      json.kind = Json::kText;
      json.text = string();
    } else if (c == 't' || c == 'f') {
      json.kind = Json::kBool;
      json.number = c == 't';
      at_ += c == 't' ? 4 : 5;
    } else if (c == 'n') {
      at_ += 4;
    } else {
      char* end = nullptr;
      json.kind = Json::kNumber;
      json.number = std::strtod(source_.c_str() + at_, &end);
      if (end == source_.c_str() + at_) throw std::runtime_error("JSON: unexpected character");
      at_ = static_cast<size_t>(end - source_.c_str());
    }
    return json;
  }

 private:
  char peek() {
    at_ = source_.find_first_not_of(" \t\r\n", at_);
    if (at_ == std::string::npos) throw std::runtime_error("JSON: unexpected end");
    return source_[at_];
  }
  void expect(char c) {
    if (peek() != c) throw std::runtime_error(std::string("JSON: expected ") + c);
    ++at_;
  }
  template <class Item>
  void list(char close, const Item& item) {
    ++at_;
    for (bool first = true; peek() != close; first = false) {
      if (!first) expect(',');
      item();
    }
    ++at_;
  }
  std::string string() {
    expect('"');
    std::string text;
    while (source_.at(at_) != '"') {
      char c = source_[at_++];
      if (c == '\\') {
        c = source_.at(at_++);
        if (c == 'n') c = '\n';
        if (c == 't') c = '\t';
        if (c == 'u') {
          c = static_cast<char>(std::strtol(source_.substr(at_, 4).c_str(), nullptr, 16));
          at_ += 4;
        }
      }
      text += c;
    }
    ++at_;
    return text;
  }

  const std::string& source_;
  size_t at_ = 0;
};

inline Json parse_json(const std::string& source) { return JsonParser(source).value(); }
