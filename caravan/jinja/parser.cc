#include "caravan/jinja/parser.h"

#include <fmt/core.h>

#include <algorithm>
#include <initializer_list>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/jinja/expression_parser.h"

namespace caravan::jinja {

namespace {

Statement statement(Statement::Kind kind, int line) {
  Statement result;
  result.kind = kind;
  result.line = line;
  return result;
}

// The statements of a template, over its expressions.
class StatementParser : private ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  std::shared_ptr<const Program> run(const std::string& source) {
    auto program = std::make_shared<Program>();
    program->source = source;
    program->body = read_body({});
    if (current().kind != Token::Kind::kEnd) {
      fail(current().line, fmt::format("\"{}\" closes nothing", printable(current().text, 60)));
    }
    program->names = std::move(names());
    return program;
  }

 private:
  // Statements up to a tag that begins with one of `ends`; that word is the current token then.
  Body read_body(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Body body;
    while (current().kind != Token::Kind::kEnd) {
      const Token token = take();
      if (token.kind == Token::Kind::kData) {
        body.push_back(statement(Statement::Kind::kText, token.line));
        body.back().text = token.text;
      } else if (token.kind == Token::Kind::kOutputBegin) {
        body.push_back(statement(Statement::Kind::kOutput, token.line));
        body.back().value = read_tuple();
        expect(Token::Kind::kOutputEnd, "}}");
      } else {
        if (std::ranges::any_of(ends, [&](std::string_view end) { return is_word(end); })) {
          return body;
        }
        read_statement(body);
        expect(Token::Kind::kBlockEnd, "%}");
      }
    }
    return body;
  }

  // A body that begins behind the end of this tag and ends with one of `ends`, which is read.
  std::string read_block(Body& body, int line, std::string_view tag, std::initializer_list<std::string_view> ends) {
    skip_operator(":");
    expect(Token::Kind::kBlockEnd, "%}");
    body = read_body(ends);
    if (current().kind == Token::Kind::kEnd) {
      fail(line, fmt::format("the block \"{}\" is not closed", tag));
    }
    return std::string(take().text);
  }

  void read_statement(Body& body) {
    const Token token = current();
    const std::string word = expect_name();
    if (word == "if") {
      body.push_back(read_if(token.line));
    } else if (word == "for") {
      body.push_back(read_for(token.line));
    } else if (word == "set") {
      body.push_back(read_set(token.line));
    } else if (word == "macro") {
      body.push_back(read_macro(token.line));
    } else if (word == "with") {
      body.push_back(read_with(token.line));
    } else if (word == "filter") {
      body.push_back(read_filter_block(token.line));
    } else if (word == "generation") {
      body.push_back(statement(Statement::Kind::kScope, token.line));
      inside([&] { read_block(body.back().body, token.line, "generation", {"endgeneration"}); });
    } else if (word == "break" || word == "continue") {
      if (loops_ == 0) {
        fail(token.line, fmt::format("\"{}\" stands outside of a loop", word));
      }
      body.push_back(statement(word == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue, token.line));
    } else {
      refuse(token, word);
    }
  }

  [[noreturn]] void refuse(const Token& token, const std::string& word) const {
    static constexpr std::string_view kKnown[] = {"block", "extends", "print", "include",
                                                  "from",  "import",  "call",  "autoescape"};
    if (std::ranges::find(kKnown, word) != std::end(kKnown)) {
      unsupported(token.line, fmt::format("the statement \"{}\"", word));
    }
    if (word.starts_with("end") || word == "else" || word == "elif") {
      fail(token.line, fmt::format("\"{}\" closes nothing that is open here", word));
    }
    unsupported(token.line, fmt::format("the unknown statement \"{}\"", printable(word, 60)));
  }

  // Where macros may not stand, and loops are not seen from.
  template <typename Read>
  void inside(const Read& read) {
    ++scopes_;
    const int loops = std::exchange(loops_, 0);
    read();
    loops_ = loops;
    --scopes_;
  }

  Statement read_if(int line) {
    Statement result = statement(Statement::Kind::kIf, line);
    std::string word = "if";
    while (word != "endif") {
      Branch& branch = result.branches.emplace_back();
      if (word == "else") {
        word = read_block(branch.body, line, "if", {"endif"});
      } else {
        branch.condition = read_tuple(/*conditional=*/false);
        word = read_block(branch.body, line, "if", {"elif", "else", "endif"});
      }
    }
    return result;
  }

  Statement read_for(int line) {
    Statement result = statement(Statement::Kind::kFor, line);
    result.target = read_target(/*attributes=*/false, "in");
    if (!skip_word("in")) {
      fail(line, "\"in\" is missing after the names of a loop");
    }
    result.value = read_tuple(/*conditional=*/false, "recursive");
    if (skip_word("if")) {
      result.filter = read_expression();
    }
    if (is_word("recursive")) {
      unsupported(line, "a recursive loop");
    }
    ++scopes_;
    ++loops_;
    const std::string word = read_block(result.body, line, "for", {"endfor", "else"});
    --loops_;
    if (word == "else") {
      read_block(result.otherwise, line, "for", {"endfor"});
    }
    --scopes_;
    return result;
  }

  Statement read_set(int line) {
    Statement result = statement(Statement::Kind::kSet, line);
    result.target = read_target(/*attributes=*/true);
    if (skip_operator("=")) {
      result.value = read_tuple();
      return result;
    }
    result.kind = Statement::Kind::kSetBlock;
    result.value = read_filters(/*inner=*/false);
    inside([&] { read_block(result.body, line, "set", {"endset"}); });
    return result;
  }

  Statement read_macro(int line) {
    if (scopes_ > 0) {
      unsupported(line, "a macro inside a loop, a macro or another block");
    }
    Statement result = statement(Statement::Kind::kMacro, line);
    auto macro = std::make_shared<MacroStatement>();
    macro->text = expect_name();
    result.name = name_number(macro->text);
    expect_operator("(");
    while (!is_operator(")")) {
      if (!macro->parameters.empty()) {
        expect_operator(",");
      }
      MacroStatement::Parameter& parameter = macro->parameters.emplace_back();
      parameter.text = expect_name();
      parameter.name = name_number(parameter.text);
      if (skip_operator("=")) {
        parameter.otherwise = read_expression();
      } else if (macro->parameters.size() > 1 && macro->parameters[macro->parameters.size() - 2].otherwise) {
        fail(line, "a parameter without a default stands behind one with a default");
      }
    }
    expect_operator(")");
    inside([&] { read_block(macro->body, line, "macro", {"endmacro"}); });
    result.macro = std::move(macro);
    return result;
  }

  Statement read_with(int line) {
    Statement result = statement(Statement::Kind::kScope, line);
    while (current().kind != Token::Kind::kBlockEnd) {
      if (!result.assignments.empty()) {
        expect_operator(",");
      }
      ExpressionPtr target = read_target(/*attributes=*/false);
      expect_operator("=");
      result.assignments.emplace_back(std::move(target), read_expression());
    }
    ++scopes_;
    read_block(result.body, line, "with", {"endwith"});
    --scopes_;
    return result;
  }

  Statement read_filter_block(int line) {
    Statement result = statement(Statement::Kind::kFilter, line);
    result.value = read_filters(/*inner=*/true);
    inside([&] { read_block(result.body, line, "filter", {"endfilter"}); });
    return result;
  }

  int scopes_ = 0;  // blocks with variables of their own around this place
  int loops_ = 0;   // loops that break and continue can leave
};

}  // namespace

std::shared_ptr<const Program> parse_program(std::string_view text, const std::string& source) {
  const std::string lines = normalized_lines(text);
  return StatementParser(tokenize(lines, source), source).run(source);
}

}  // namespace caravan::jinja
