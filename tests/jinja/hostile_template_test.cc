// Templates that mean harm: each ends with one sentence, or harmlessly, within a second of the processor and 64 MiB.
//
// CVE-2024-34359 and CVE-2026-5760 are templates of model files that were run outside of a sandbox and reached Python's
// classes and the shell through a string's attributes; CVE-2025-62426 is a template argument that kept a server busy.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/jinja/template.h"
#include "tests/support/cost.h"

namespace caravan::jinja {
namespace {

using test::Cost;
using test::cost_of;
using test::kSanitized;

std::string repeated(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) {
    result += text;
  }
  return result;
}

// What the template gives, or the sentence it ends with.
std::string outcome(const std::string& source) {
  try {
    RenderOptions options;
    options.now.emplace();
    return "text of " + std::to_string(Template::parse(source, "t").render(nullptr, options).size()) + " bytes";
  } catch (const Error& error) {
    return error.what();
  }
}

// Grows beyond every bound, in time or memory: has to be stopped by a limit.
const std::string kEndless[] = {
    // loops inside each other
    "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) if a in range(100000)|reverse %}{% endfor %}",
    // text that doubles, repeats, is padded
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{{ 'x' * 999999999999 }}",
    "{{ [1] * 999999999999 }}",
    "{{ 'x'.center(99999999999) }}{{ 'x'|center(99999999999) }}",
    "{{ 'x'.zfill(9223372036854775807) }}",
    "{{ [1]|tojson(indent=9999999999) }}",
    "{{ ('a\\n' * 100000)|indent(100000) }}",
    "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "{{ ('x' * 100000)|join('y' * 100000) }}",
    "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
    "{{ strftime_now('%T' * 1000000) }}",
    // values that are kept
    "{% set ns = namespace(l=[]) %}{% for i in range(99) %}{% set ns.l = ns.l + "
    "[range(100000)|map(attribute='x')|list] "
    "%}{% endfor %}",
    "{% for j in range(9) %}{% for i in range(100000) %}{% set x = namespace(a=i, b='xxxxxxxx' ~ i) %}{% endfor %}{% "
    "endfor "
    "%}",
    // work on long text, over and over
    "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% set x = s|length %}{% endfor %}",
    "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% set x = s[999999] %}{% endfor %}",
    "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% set x = s[5:999999] %}{% endfor %}",
    "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% set x = 'y' in s %}{% endfor %}",
    "{% set s = 'x' * 1000000 %}{% set t = 'x' * 1000000 %}{% for i in range(100000) %}{% set x = s == t %}{% endfor "
    "%}",
    "{% set s = range(100000)|list %}{% set t = range(100000)|list %}{% for i in range(999) %}{% set x = s == t %}{% "
    "endfor "
    "%}",
    "{{ ('a' * 1000000).strip('b' * 1000000) }}",
    "{{ range(100000)|unique|list }}",
    "{{ range(100000)|sort|sort|sort|sort|sort|sort|sort|sort|sort|length }}",
    "{% for i in range(99) %}{{ ('a' * 1000000).find('a' * 500000 + 'b') }}{% endfor %}",
    // many variables in one block, many keys in one dict
    [] {
      std::string source = "{% for q in [1] %}";
      for (int i = 0; i < 9000; ++i) {
        source += "{% set v" + std::to_string(i) + " = 1 %}";
      }
      return source + "{% endfor %}";
    }(),
    [] {
      std::string source = "{{ {";
      for (int i = 0; i < 30000; ++i) {
        source += std::to_string(i) + ":1,";
      }
      return source + "} }}";
    }(),
    // recursion
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}{% macro g(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro "
    "%}"
    "{{ f(60) }}",
    "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}",
    // brackets, operators and blocks inside each other
    "{{ " + repeated("(", 50000) + "1" + repeated(")", 50000) + " }}",
    "{{ " + repeated("[", 50000) + repeated("]", 50000) + " }}",
    "{{ " + repeated("not ", 50000) + "1 }}",
    "{{ " + repeated("-", 50000) + "1 }}",
    "{{ " + repeated("1+", 50000) + "1 }}",
    "{{ a" + repeated(".b", 50000) + " }}",
    "{{ a" + repeated("|list", 20000) + " }}",
    "{{ " + repeated("1 if 0 else ", 10000) + "1 }}",
    repeated("{% if 1 %}", 20000),
    repeated("{% with a=1 %}", 10000),
    repeated("{%", 100000),
    repeated("{{", 100000),
    repeated("{#", 100000),
    "{% raw %}" + repeated("{% endra ", 20000),
};

// Strange and finite.
const std::string kHarmless[] = {
    "{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.b = [ns] %}{{ ns == ns }}",
    "{% set ns = namespace(l=0) %}{% for i in [1, 2] %}{% set ns.l = loop %}{% endfor %}{{ ns.l.last }}{{ "
    "ns.l.nextitem }}",
    "{% set ns = namespace(s=0) %}{% for i in range(50000) %}{% set ns.s = namespace(s=ns.s) %}{% endfor %}",
    "{{ 1 ** 9223372036854775807 }}{{ (-1) ** 9223372036854775807 }}",
    "{{ (-9223372036854775807 - 1) % -1 }}",
    "{{ range(0, 9223372036854775807, 9223372036854775806)|list }}",
    "{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}{{ [1, 2][::-9223372036854775807] }}",
    "{{ 'abc'[9223372036854775807] }}{{ [1][-9223372036854775807] }}",
    "{{ 'abc'|truncate(9223372036854775807, leeway=9223372036854775807) }}",
    "{{ " + repeated("1~", 50000) + "1 }}",
    "{% if 0 %}" + repeated("{% elif 0 %}", 15000) + "{% endif %}",
    "{{ [" + repeated("1,", 100000) + "] }}",
    "{{ 1" + repeated(" ", 200000) + "}}",
    repeated(" ", 200000) + "{{- 1 }}",
    repeated("{% macro f() %}{% endmacro %}", 8000),
    repeated("\n", 200000),
};

class HostileTemplates : public testing::Test {
 protected:
  void expect_cheap(const std::string& source, const Cost& cost) const {
    if (!kSanitized) {
      EXPECT_LE(cost.seconds, 1.0) << source.substr(0, 200);
      EXPECT_LE(cost.peak_bytes - idle_.peak_bytes, std::int64_t{64} << 20) << source.substr(0, 200);
    }
    EXPECT_EQ(cost.outcome.find('\n'), std::string::npos);
  }

  const Cost idle_ = cost_of([] { return std::string("idle"); });
};

TEST_F(HostileTemplates, WhatDoesNotEndIsEnded) {
  for (const std::string& source : kEndless) {
    const Cost cost = cost_of([&] { return outcome(source); });
    expect_cheap(source, cost);
    EXPECT_TRUE(cost.outcome.starts_with("t, line 1: ")) << source.substr(0, 200) << ": " << cost.outcome;
  }
}

TEST_F(HostileTemplates, WhatIsStrangeButFiniteIsRendered) {
  for (const std::string& source : kHarmless) {
    const Cost cost = cost_of([&] { return outcome(source); });
    expect_cheap(source, cost);
    EXPECT_TRUE(cost.outcome.starts_with("text of ")) << source.substr(0, 200) << ": " << cost.outcome;
  }
}

TEST(Sandbox, PythonsInsidesAreNotThere) {
  const std::string kWays[] = {
      // CVE-2024-34359's way out of a template in a model file
      "{% for c in ().__class__.__base__.__subclasses__() %}{% if 'warning' in c.__name__ %}{{ "
      "c()._module.__builtins__['__import__']('os').popen('id').read() }}{% endif %}{% endfor %}",
      "{{ ''.__class__.__mro__[1].__subclasses__() }}",
      "{{ ''['__class__']['__mro__'][1] }}",
      "{{ [].append.__globals__['os'] }}",
      "{{ namespace.__init__.__globals__ }}",
      "{{ dict.__class__.__mro__ }}",
      "{{ range.__self__.x }}",
      "{{ raise_exception.__globals__['sys'] }}",
      "{{ self.__init__.__globals__ }}",
      "{{ self._TemplateReference__context.x }}",
      "{% set x = loop.__class__.__mro__ %}",
      "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
      "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
      "{{ lipsum.__globals__['os'].popen('id').read() }}",
      "{{ joiner.__init__.__globals__.os }}",
      "{{ ('%s' % ''.__class__).x.y }}",
      "{{ '{0.__class__.__mro__}'.format('') }}",
      "{{ '{x[__class__]}'.format_map({'x': ''}) }}",
      "{{ ''|attr('__class__') }}",
      "{{ [''] | map(attribute='__class__.__mro__') | list }}",
      "{{ messages.__setitem__(0, 1) }}",
      "{{ messages.clear() }}",
      "{{ messages[0].update({'role': 'system'}) }}",
      "{{ request.application.__globals__ }}",
      "{{ config.items() }}",
      "{% set messages.x = 1 %}",
      "{% include '/etc/passwd' %}",
      "{% import 'os' as os %}",
  };
  const Json variables = {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})}};
  for (const std::string& source : kWays) {
    EXPECT_THROW(Template::parse(source, "t").render(variables), Error) << source;
  }
}

// What a template is given is its caller's; it comes back as it was.
TEST(Sandbox, VariablesOfTheCallerDoNotChange) {
  const Json variables = {{"messages", Json::array({{{"role", "user"}}})}, {"x", 1}};
  const Json before = variables;
  EXPECT_EQ(Template::parse("{% set x = 2 %}{% set messages = [] %}{{ x }}{{ messages }}", "t").render(variables),
            "2[]");
  EXPECT_EQ(variables, before);
}

}  // namespace
}  // namespace caravan::jinja
