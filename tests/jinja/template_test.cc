#include "caravan/jinja/template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::jinja {
namespace {

std::string render(const std::string& source, const Json& variables = nullptr, const RenderOptions& options = {}) {
  return Template::parse(source, "chat_template").render(variables, options);
}

template <typename Expected>
std::string refusal(const std::string& source, const Json& variables = nullptr) {
  return test::message_of<Expected>([&] { render(source, variables); });
}

TEST(Template, WhatIsOutsideTheSubsetIsNamedWithItsLine) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{% include 'x' %}", "line 1: the statement \"include\""},
      {"a\nb\n{% import 'x' as y %}", "line 3: the statement \"import\""},
      {"{% from 'x' import y %}", "the statement \"from\""},
      {"{% extends 'x' %}", "the statement \"extends\""},
      {"{% block x %}{% endblock %}", "the statement \"block\""},
      {"{% call f() %}{% endcall %}", "the statement \"call\""},
      {"{% autoescape true %}{% endautoescape %}", "the statement \"autoescape\""},
      {"{% print 1 %}", "the statement \"print\""},
      {"{% do x.append(1) %}", "the unknown statement \"do\""},
      {"\n{{ x | xmlattr }}", "line 2: the filter \"xmlattr\""},
      {"{{ x | map('random') | list }}{{ y }}", "the filter \"random\""},
      {"{{ x is filter }}", "the test \"filter\""},
      {"{% for a in b recursive %}{% endfor %}", "a recursive loop"},
      {"{% for a in b %}{% macro c() %}{% endmacro %}{% endfor %}", "a macro inside a loop"},
      {"{{ f(*a) }}", "an argument after * or **"},
      {"{{ f(**a) }}", "an argument after * or **"},
      {"{{ a[1, 2] }}", "an index of several parts"},
      {"{{ 99999999999999999999 }}", "the whole number 99999999999999999999"},
      {"{{ 9223372036854775807 + 1 }}", "a whole number beyond 64 bits"},
      {"{{ 9 ** 99 }}", "a whole number beyond 64 bits"},
      {"{{ 'x'.encode() }}", "the method encode() of a str"},
      {"{{ 'x'.casefold }}", "the method casefold() of a str"},
      {"{{ lipsum() }}", "\"lipsum\""},
      {"{% set c = cycler(1, 2) %}", "\"cycler\""},
      {"{% macro f() %}{{ varargs }}{% endmacro %}{{ f() }}", "\"varargs\""},
      {"{{ range(3) }}", "the text of a range"},
      {"{{ 'x'.upper }}", "the text of a function"},
      {"{{ '{:>5}'.format(1) }}", "the format field \":>5\""},
      {"{{ ('x'|safe).replace('x', 'y') }}", "replace() of a string marked safe"},
      {"{{ '%c' % 65 }}", "the conversion %c"},
  };
  const Json variables = {{"x", {"a"}}, {"b", Json::array()}};
  for (const auto& [source, says] : kCases) {
    const std::string message = refusal<UnsupportedError>(source, variables);
    EXPECT_TRUE(message.starts_with("chat_template, line ")) << source << ": " << message;
    EXPECT_NE(message.find(says), std::string::npos) << source << ": " << message;
    EXPECT_NE(message.find("outside the part of Jinja"), std::string::npos) << message;
  }
}

TEST(Template, WhatIsNoTemplateIsAFormatErrorWithItsLine) {
  EXPECT_NE(refusal<FormatError>("a\n{% if x %}\nb").find("line 2: not a template: the block \"if\" is not closed"),
            std::string::npos);
  EXPECT_NE(refusal<FormatError>("a\nb {{ x y }}").find("line 2: not a template: expected }}, found \"y\""),
            std::string::npos);
  EXPECT_NE(refusal<FormatError>("{{ 'x\\ud800' }}").find("names no character"), std::string::npos);
  EXPECT_NE(refusal<FormatError>("{{ '\\N{BULLET}' }}").find("by its name"), std::string::npos);
  EXPECT_NE(refusal<FormatError>("a\xFF").find("not UTF-8 at byte 2"), std::string::npos);
  EXPECT_NE(refusal<FormatError>(std::string(300'000, 'x')).find("more than the 262,144"), std::string::npos);
}

TEST(Template, ARefusalOfTheTemplateSaysTheTemplatesWords) {
  EXPECT_EQ(refusal<InputError>("\n{{ raise_exception('roles must ' ~ 'alternate') }}"),
            "chat_template, line 2: the template says: roles must alternate");
  const std::string shown =
      refusal<InputError>("{{ raise_exception(x) }}", {{"x", "a\x1b[2J\n" + std::string(999, 'y')}});
  EXPECT_EQ(shown.find('\x1b'), std::string::npos);
  EXPECT_EQ(shown.find('\n'), std::string::npos);
  EXPECT_LT(shown.size(), 500U);
}

TEST(Template, KnowsTheDateOnlyWhenItIsTold) {
  EXPECT_EQ(render("{{ strftime_now is defined }}"), "False");
  EXPECT_NE(refusal<InputError>("{{ strftime_now('%Y') }}").find("'strftime_now' is undefined"), std::string::npos);
  RenderOptions options;
  options.now.emplace();
  options.now->tm_year = 99;
  options.now->tm_mday = 3;
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}", nullptr, options), "03 Jan 1999");
  EXPECT_EQ(
      test::message_of<UnsupportedError>([&] { render("{{ strftime_now('%9d') }}", nullptr, options); }).find("%9"),
      std::string("chat_template, line 1: the directive ").size());
}

TEST(Template, VariablesAreJsonOfAnyKind) {
  const Json variables = {{"text", "a\n\"b\""}, {"list", {1, 2.5, nullptr, true}}, {"object", {{"x", {{"y", -3}}}}}};
  EXPECT_EQ(render("{{ text }}|{{ list }}|{{ object.x['y'] - 1 }}|{{ object }}", variables),
            "a\n\"b\"|[1, 2.5, None, True]|-4|{'x': {'y': -3}}");
  EXPECT_NE(refusal<InputError>("{{ x }}", Json{{"x", "\xFF"}}).find("not UTF-8"), std::string::npos);
  EXPECT_NE(refusal<UnsupportedError>("{{ x }}", Json{{"x", 18446744073709551615U}}).find("18446744073709551615"),
            std::string::npos);
  EXPECT_NE(refusal<InputError>("{{ x }}", Json::array()).find("must be a JSON object"), std::string::npos);
  EXPECT_EQ(render("fine", Json{{"x", "\xFF"}}), "fine") << "what is not asked for is not looked at";
  // A variable may have a function's name, and hides it.
  EXPECT_EQ(render("{{ range }}", {{"range", 5}}), "5");
}

TEST(Template, OneTemplateIsRenderedByManyThreadsAtOnce) {
  const Template shared = Template::parse(
      "{% set ns = namespace(n=0) %}{% for x in items %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "shared");
  std::vector<std::thread> threads;
  std::vector<std::string> results(4);
  for (std::size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 200; ++round) {
        results[i] = shared.render({{"items", std::vector<std::size_t>(50, i)}});
      }
    });
  }
  for (std::thread& one : threads) {
    one.join();
  }
  EXPECT_EQ(results, (std::vector<std::string>{"0", "50", "100", "150"}));
}

}  // namespace
}  // namespace caravan::jinja
