// The expressions of a template.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "caravan/jinja/ast.h"
#include "caravan/jinja/lexer.h"

namespace caravan::jinja {

// Reads tokens one after the other.  Each read_... leaves behind what it read, and throws FormatError where the grammar
// wants something else, UnsupportedError for what is outside the subset.
class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, std::string source)
      : tokens_(std::move(tokens)), source_(std::move(source)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_operator(std::string_view sign) const { return is(Token::Kind::kOperator, sign); }
  bool is_word(std::string_view word) const { return is(Token::Kind::kName, word); }
  bool skip_operator(std::string_view sign);
  bool skip_word(std::string_view word);
  void expect_operator(std::string_view sign);
  std::string expect_name();
  Token expect(Token::Kind kind, std::string_view shown);

  ExpressionPtr read_expression(bool conditional = true);
  // One expression, or several with commas between them as a tuple; `until`: a word that ends it.
  ExpressionPtr read_tuple(bool conditional = true, std::string_view until = {});
  // What for and set assign to: names, tuples of them, and (set alone) attributes of namespaces.
  ExpressionPtr read_target(bool attributes, std::string_view until = {});
  // "| name(...) | name(...)" around nothing; without the first bar when `inner`.
  ExpressionPtr read_filters(bool inner);

  int name_number(const std::string& name);  // of a variable, in names()
  std::vector<std::string>& names() { return names_; }

  [[noreturn]] void fail(int line, const std::string& what) const { fail_syntax(source_, line, what); }
  [[noreturn]] void unsupported(int line, const std::string& what) const;

 protected:
  // One level deeper for as long as the object lives: recursion ends before the stack does.
  class Level {
   public:
    explicit Level(ExpressionParser& parser);
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  bool is(Token::Kind kind, std::string_view text) const { return current().kind == kind && current().text == text; }

  ExpressionPtr read_conditional();
  ExpressionPtr read_or();
  ExpressionPtr read_and();
  ExpressionPtr read_not();
  ExpressionPtr read_compare();
  ExpressionPtr read_sum();
  ExpressionPtr read_concat();
  ExpressionPtr read_product();
  ExpressionPtr read_power();
  ExpressionPtr read_unary(bool filters);
  ExpressionPtr read_primary(bool attributes);
  ExpressionPtr read_name(bool attributes);
  ExpressionPtr read_number();
  ExpressionPtr read_string();
  ExpressionPtr read_list();
  ExpressionPtr read_dict();
  ExpressionPtr read_postfix(ExpressionPtr left);
  ExpressionPtr read_filters_and_tests(ExpressionPtr left);
  ExpressionPtr read_attribute(ExpressionPtr left);
  ExpressionPtr read_item(ExpressionPtr left);
  ExpressionPtr read_call(ExpressionPtr left);
  ExpressionPtr read_filter(ExpressionPtr left);
  ExpressionPtr read_test(ExpressionPtr left);
  void read_arguments(Expression& into);
  ExpressionPtr finish(Expression expression) const;
  ExpressionPtr binary(Expression::Kind kind, int line, ExpressionPtr left, ExpressionPtr right,
                       Operator op = Operator::kAdd) const;
  void check_target(const Expression& target) const;
  bool ends_tuple(std::string_view until) const;

  std::vector<Token> tokens_;
  std::string source_;
  std::size_t at_ = 0;
  int level_ = 0;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int> numbers_;  // of names_
};

}  // namespace caravan::jinja
