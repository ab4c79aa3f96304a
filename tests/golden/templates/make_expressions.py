"""Renders many small templates with Jinja2 as transformers sets it up: expressions.json.

The templates are the lines of expressions.txt, each inside {{ }}, and TEMPLATES below.

Needs jinja2 3.1.6 and nothing else. Run it from anywhere: python3 make_expressions.py
Left out on purpose (see src/server/chat/README.md): what the README calls unsupported, addresses in reprs,
integers beyond 64 bits, and Markup (escape and safe give plain strings here).
"""
import datetime
import json
import os

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 2, 3, 4, 5, 6)

VARIABLES = {
    "s": "Hello, World", "e": "", "u": "Ünïcødé 你好 👋", "ws": "  a b \t\n c  ", "lines": "one\ntwo\r\nthree\n",
    "html": "<b class=\"x\">A & 'B'</b>", "n": 7, "z": 0, "neg": -3, "f": 2.5, "big": 1234567.891, "t": True, "fa": False,
    "no": None, "xs": [3, 1, 2], "strs": ["b", "A", "c", "a"], "empty": [], "nested": [[1, 2], [3, [4, 5]]],
    "d": {"b": 2, "a": 1, "C": 3}, "dd": {"k": {"x": [10, 20, {"y": "deep"}]}, "items": "shadow", "get": 5},
    "people": [{"name": "Ann", "age": 30, "city": "Rome"}, {"name": "bob", "age": 25, "city": "Oslo"},
               {"name": "Cy", "age": 30, "city": "rome"}, {"name": "Di", "age": 41}],
    "ed": {},
}

# Whole templates.
TEMPLATES = [
    "plain", "", "\n", "a\n", "a\n\n", "\n\na", "a\r\nb\rc", "{", "{ {", "}}", "%}", "{}", "{{ '{{' }}", "{{ '}}' }}", "{{'%}'}}",
    "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {'a': {}}}}", "{{{'a': 1}}}",
    "{# c #}x", "x{# c #}\ny", "{#- c -#} x", "a {#- c #} b", "{# {{ x }} #}y", "{# unclosed", "{{ unclosed", "{% if", "{% if x", "{% if 1 %}a",
    "  {% if 1 %}\n  a\n  {% endif %}\n  b", "a {% if 1 %} b {% endif %} c", "  {%+ if 1 %}\n  a\n  {%+ endif %}\n  b",
    "a\n  {%- if 1 -%}\n  b\n  {%- endif -%}\n  c", "a {%- if 1 %} b {%- endif %} c", "{% if 1 +%}\na{% endif %}\n\nb", "{{ 1 }}\n{{ 2 }}\n\n{{ 3 }}",
    "a  {{- 1 -}}  b", "a\n\n{{- 1 }}\n\nb", "  {{ 1 }}  \n", "{{ 1 -}}\n\n  b", "x {%- set a = 1 -%} y", "\t {% set a = 1 %} z", "a{% set b = 1 %}\n{% set c = 2 %}\n\nd",
    "  {# c #}\n  x", "a  {# c #}  b", "\n  {% if 1 %}\n\n  x\n\n  {% endif %}\n\n",
    "{{+ 1 }}", "{{ 1 +}}", "{{- 1 }}", "a {{+ 1 }}", "{{\n1\n}}", "{%\nif 1\n%}x{%\nendif\n%}",
    "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}", "{% raw -%}  {{ x }}  {%- endraw %} y", "  {% raw %}\n  a\n  {% endraw %}\n  b", "{% raw %}a", "{%- raw %} a {% endraw -%} b",
    "{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "{% if x %}a{% endif %}", "{% if x.y %}a{% endif %}", "{% if %}a{% endif %}",
    "{% if 1 %}a{% else %}b{% elif 1 %}c{% endif %}", "{% endif %}", "{% else %}", "{% if 1 %}{% endfor %}", "{% foo %}", "{% %}", "{{ }}", "{% if 1, 2 %}a{% endif %}",
    "{% if 1 %}{% set a = 5 %}{% endif %}{{ a }}", "{% if 0 %}{% set a = 5 %}{% endif %}{{ a is defined }}",
    "{% set a = 1 %}{{ a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set a, b = [1, 2, 3] %}", "{% set (a, b) = 'xy' %}{{ a }}{{ b }}",
    "{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}", "{% set a = 1, 2 %}{{ a }}", "{% set a = 1 %}{% set a = a + 1 %}{{ a }}", "{% set n = n + 1 %}{{ n }}",
    "{% set a %}x{{ n }}y{% endset %}{{ a }}|{{ a | length }}", "{% set a | upper %}x{{ n }}y{% endset %}{{ a }}", "{% set a | upper | replace('X', 'z') %}x{% endset %}{{ a }}",
    "{% set true = 1 %}", "{% set 1 = 1 %}", "{% set a.b = 1 %}", "{% set a['b'] = 1 %}", "{% set a += 1 %}", "{% set a %}", "{% set loop = 1 %}{{ loop }}",
    "{% set ns = namespace(x=1) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}{{ ns.b }}",
    "{% set d.x = 1 %}", "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{{ ns.a }}{{ ns['a'] }}", "{% set ns = namespace(a=1, b='x') %}{{ ns }}",
    "{% set ns = namespace(a=1) %}{% set m = ns %}{% set m.a = 2 %}{{ ns.a }}", "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a ~ ns.b }}", "{% set ns = namespace() %}{% set ns.a %}x{% endset %}{{ ns.a }}",
    "{% set a = 1 %}{% for i in [1, 2] %}{% set a = a + 1 %}{{ a }}{% endfor %}{{ a }}", "{% for i in [1] %}{% set q = 1 %}{% endfor %}{{ q is defined }}",
    "{% for x in xs %}{{ x }}{% endfor %}", "{% for x in xs %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for x in empty %}a{% else %}none{% endfor %}", "{% for x in xs %}a{% else %}none{% endfor %}", "{% for x in missing %}a{% else %}none{% endfor %}", "{% for x in no %}a{% endfor %}", "{% for x in 5 %}a{% endfor %}",
    "{% for c in 'hé' %}[{{ c }}]{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }} {% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in xs %}{{ loop.previtem is defined }}{% endfor %}", "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in xs %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}", "{% for x in xs %}{{ loop.nope }}|{% endfor %}", "{% for x in xs %}{{ loop }} {% endfor %}", "{{ loop }}", "{{ loop is defined }}", "{{ loop.index }}",
    "{% for x in xs if x > 1 %}{{ loop.index }}:{{ x }} {% endfor %}", "{% for x in xs if x > 5 %}{{ x }}{% else %}none{% endfor %}", "{% for x in xs if loop.index %}{% endfor %}", "{% for x in xs if x is odd and x > 1 %}{{ x }}{{ loop.length }}{% endfor %}",
    "{% for x in xs %}{% for y in xs %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}", "{% for x in xs %}{% set o = loop %}{% for y in 'ab' %}{{ o.index }}{{ y }}{% endfor %}{% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in xs %}{% break %}{% else %}e{% endfor %}", "{% break %}", "{% if 1 %}{% continue %}{% endif %}",
    "{% for x in xs %}{% for y in xs %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}", "{% for x in xs recursive %}{{ x }}{% endfor %}",
    "{% for x in nested recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}", "{% for x in xs %}{{ loop([1]) }}{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in xs | sort %}{{ x }}{% endfor %}", "{% for x in xs if 1 else [] %}{{ x }}{% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in (xs if n else []) %}{{ x }}{% endfor %}",
    "{% for x in xs | map('string') %}{{ loop.length }}{{ x }}{% endfor %}", "{% for x in xs %}{{ x }}{% endfor %}{{ x is defined }}", "{% for n in xs %}{{ n }}{% endfor %}{{ n }}", "{% for x in xs %}\n  {{ x }}\n{% endfor %}\nend",
    "{% for x in xs %}", "{% for x xs %}{% endfor %}", "{% for in xs %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for x.y in xs %}{% endfor %}", "{% for loop in xs %}{{ loop }}{% endfor %}",
    "{% for g in people | groupby('age') %}{{ g.grouper }}:{{ g.list | map(attribute='name') | join(',') }};{% endfor %}", "{% for age, ps in people | groupby('age') %}{{ age }}:{{ ps | length }};{% endfor %}",
    "{% for row in [1, 2, 3] | batch(2, '-') %}{{ row | join }};{% endfor %}", "{% set it = xs | map('string') %}{{ it | list }}{{ it | list }}", "{% set it = [1, 2, 3] | select %}{{ it | first }}{{ it | list }}",
    "{% macro m() %}x{% endmacro %}{{ m() }}{{ m() }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(1) }}{{ m(a=2) }}{{ m() }}", "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a, b=n) %}{{ b }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(q=2) }}", "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(none) }}", "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, a=3) }}", "{% macro m(a) %}{{ varargs | join('-') }}{% endmacro %}{{ m(1, 2, 3) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}body{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}+{{ b }}{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}body{% endcall %}", "{% macro m(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call m('a') %}{% call m('b') %}x{% endcall %}{% endcall %}", "{% call s() %}{% endcall %}", "{% call 1 %}{% endcall %}",
    "{% macro f(i) %}{{ i }}{% if i > 0 %}{{ f(i - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro m() %}{{ n }}{% set n = 9 %}{% endmacro %}{{ m() }}{{ n }}", "{% set q = 1 %}{% macro m() %}{{ q }}{% endmacro %}{% set q = 2 %}{{ m() }}",
    "{% for i in xs %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m(a, b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}", "{% macro m() %} a {% endmacro %}[{{ m() | trim }}]{{ m() | length }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ xs | map('string') | map('upper') | join }}{{ m(*[1]) }}{{ m(**{'x': 2}) }}", "{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1, *[2, 3]) }}{{ m(1, c=3, **{'b': 2}) }}", "{% macro m %}{% endmacro %}", "{% macro 1() %}{% endmacro %}", "{% macro m() %}",
    "{% macro m() %}{% for x in xs %}{{ x }}{% endfor %}{% endmacro %}{{ m() }}", "{% for x in xs %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% macro m() %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}", "{{ m }}{% macro m() %}{% endmacro %}", "{% macro m() %}{% endmacro %}{{ m is callable }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{% set x = m('q') %}{{ x ~ '!' }}{{ x is string }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a is defined }}", "{% with a = n, n = 1 %}{{ a }}{{ n }}{% endwith %}{{ n }}", "{% with a = 1, b = a %}{{ b is defined }}{% endwith %}", "{% with a, b = 1, 2 %}{% endwith %}", "{% with (a, b) = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('a', 'b') | upper %}aXa{% endfilter %}", "{% filter nope %}a{% endfilter %}", "{% filter trim %}  {% if 1 %} x {% endif %} {% endfilter %}|", "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set _ = c.reset() %}{{ c.next() }}", "{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}", "{% set j = joiner() %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}",
    "{% set _ = xs.append(1) %}", "{{ xs }}{% set ys = xs + [4] %}{{ ys }}{{ xs }}", "{% set x = d.items() | list %}{{ x[0][1] }}", "{% set f = s.upper %}{{ f() }}", "{% set r = range %}{{ r(2) | list }}",
    "{{ raise_exception('a ' ~ n) }}", "{% if n > 5 %}{{ raise_exception('n is ' + n|string) }}{% endif %}", "{% if false %}{{ 1 / 0 }}{% endif %}ok", "{% if false %}{{ 1 | nope }}{% endif %}ok", "{{ 'a' if true else 1 / 0 }}", "{{ none.x is defined }}", "{{ x.y is defined }}",
    "{% generation %}a{{ n }}{% endgeneration %}", "{% for x in xs %}{% generation %}{{ x }}{% endgeneration %}{% endfor %}", "{% generation %}", "{% endgeneration %}",
    "{% do xs.append(1) %}", "{{ self }}" if False else "{{ _('a') }}", "{% trans %}a{% endtrans %}", "{{ 1 }}{% if 1 %}{{ 2 }}{% endif %}{{ 3 }}\n",
    "{%- for m in people %}\n    {%- if m.city is defined and m.city | lower == 'rome' %}\n        {{- '<|' ~ m.name ~ '|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n{{- 'end' }}",
    "{% set first = people[0] %}{% set rest = people[1:] %}{{ first.name }}{{ rest | length }}{{ rest[0]['name'] }}", "{{ people[0]['na' ~ 'me'] }}{{ people[-1].city }}{{ people[-1].get('city', '-') }}", "{% set k = 'age' %}{{ people[0][k] }}{{ people | map(attribute=k) | max }}",
    "{{ '<think>' in s }}{{ s.split('</think>')[-1].lstrip('\\n') }}", "{{ 'a</think>\\n\\nb'.split('</think>')[0].rstrip('\\n').split('<think>')[-1] }}", "{{ (people | selectattr('age', 'gt', 28) | list)[-1].name }}", "{{ (people | map(attribute='name') | list).index('Cy') }}",
    "{% for m in people[::-1] %}{% set i = (people | length - 1) - loop.index0 %}{{ i }}{{ m.name }} {% endfor %}", "{% set ns = namespace(found=false) %}{% for m in people %}{% if m.age == 25 and not ns.found %}{% set ns.found = loop.index0 %}{% endif %}{% endfor %}{{ ns.found }}",
    "{{ (1, 2) }}{{ [(1,)] }}{{ {'a': (1, 2)} }}", "{{ 1 if true }}{{ 2 if false }}|", "{{ 'x' if missing else 'y' }}", "{{ d.items() | map('join', '=') | join('&') }}", "{{ d | items | map('first') | sort | join }}", "{{ {'a': [1, 2]}.a | last }}", "{{ {} | length }}{{ not {} }}{{ {} is mapping }}",
    "{{ 1 }}}}", "{{ '\\\\' }}{{ \"\\\"\" }}", "{{ 'a\nb' }}", "{{ \"tab\\there\" }}", "{# a #}{# b #}\n\nc", "{{-1}}{{- 1}}", "{{ 1-1 }}{{ 1 -1 }}", "{{ n-1 }}", "{{ xs|length-1 }}", "{{ xs|length - 1 }}", "{{not 1}}", "{{ (not 1)|string }}",
    "{% if not n %}a{% elif n is divisibleby 7 %}b{% endif %}", "{% if 'a' in d and d['a'] == 1 or false %}y{% endif %}", "{% if (n > 5) and (n < 10) %}y{% endif %}", "{%if n%}y{%endif%}", "{% if n %}y{% endif n %}", "{% if n %}y{% endif %}{% endif %}", "{% for i in xs %}y{% endfor i %}", "{% set a = %}", "{% set = 1 %}", "{% set %}",
    "{{ {'a':1,'b':2}|dictsort|first|first }}", "{{ u[:2] ~ u[-1:] }}", "{{ u | list | length }}", "{{ [u] }}", "{{ {'你': '好'} }}", "{{ 'ab' | map('upper') | list }}", "{{ [[1, 2], [3]] | map('length') | list }}", "{{ [1, 2] | map('float') | map('string') | join(' ') }}", "{{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }}", "{{ [{'a': 1}, {}] | map(attribute='a') | list }}", "{{ [{'a': 1}, {}] | selectattr('a', 'undefined') | list }}",
    "{{ (d.keys() | list)[0] }}{{ d.keys() | first }}{{ 'a' in d.keys() }}{{ d.values() | sum }}{{ d.values() | max }}", "{{ d.items() | length }}{{ d.items() | first }}", "{{ d.keys()[0] }}", "{{ d == dict(d) }}", "{{ d.keys() == d.keys() }}", "{{ 1.5 is number and 1.5 is not integer }}",
    "{{ xs is sameas xs }}{{ [1] is sameas [1] }}", "{{ none is sameas none }}{{ no is sameas none }}", "{{ [none, missing] | length }}", "{{ [missing] | first is undefined }}", "{{ [missing | default(1)] }}", "{{ missing is not defined and missing is not none }}",
    "{{ s|replace('o','0')|replace('l','1') }}", "{{ 'abc'|replace('b','')|upper }}", "{{ ('a,b' ~ ',c').split(',') | length }}", "{{ 'a=%s' % n ~ '!' }}", "{{ 'a' < 'b' < 'c' }}{{ 1 < 2 == true }}", "{{ 10 - 2 - 3 }}{{ 2 * 3 % 4 }}{{ 8 / 2 / 2 }}{{ 2 + 3 ~ 4 + 5 }}",
    "{% for x in xs %}{% continue %}{% else %}e{% endfor %}", "{% for x in xs %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% else %}e{% endfor %}", "{% for x in xs %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in xs %}{% set loop = 1 %}{% endfor %}", "{% for x in xs %}{% macro m() %}{% set loop = 1 %}{% endmacro %}{% endfor %}", "{% for x, loop in [[1, 2]] %}{% endfor %}", "{% macro m(loop) %}{{ loop }}{% endmacro %}{{ m(1) }}", "{% with loop = 1 %}{{ loop }}{% endwith %}", "{% for x in [1] %}{% with loop = 5 %}{{ loop }}{% endwith %}{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{% else %}{{ loop.index }}{% endfor %}", "{% for x in [] %}{% else %}{{ loop is defined }}{% endfor %}", "{% for y in [1] %}{% for x in [] %}{% else %}{{ loop.index }}{% endfor %}{% endfor %}", "{% for y in [1, 2] %}{% for x in xs if x > loop.index %}{% endfor %}{% endfor %}",
    "{% set x = 1 %}{% for x in xs if x > 1 %}{{ x }}{% endfor %}{{ x }}", "{% for x in xs %}{% if loop.index == 2 %}{% set found = x %}{% endif %}{% endfor %}{{ found is defined }}", "{% if 1 %}{% for x in xs %}{% if x == 1 %}{{ x }}{% break %}{% endif %}{% endfor %}{% endif %}",
    "{% for x in xs %}{% set b %}{{ x }}{% endset %}{{ b }}{% endfor %}", "{% for x in xs %}{% with y = x %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}",
    "{% macro m(a, b='x', *c) %}{% endmacro %}", "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2) }}{{ m() }}", "{% macro m(caller) %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m(caller=none) %}{{ caller is none }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ kwargs.a }}{{ kwargs | length }}{% endmacro %}{{ m(a=1, b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a=[]) %}{{ a }}{% endmacro %}{{ m() }}{{ m([1]) }}", "{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}{{ inner is defined }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m() -%}\n  x\n{%- endmacro %}[{{ m() }}]",
    "{% macro m(a) %}{% if a %}{{ m(a[1:]) }}{{ a[0] }}{% endif %}{% endmacro %}{{ m('abc') }}", "{% macro m(x, y) %}{{ x }}-{{ y }}{% endmacro %}{{ m(y=1, x=2) }}{{ m(1, y=2) }}", "{% call(x) xs() %}{% endcall %}", "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call(a=5) m() %}{{ a }}{% endcall %}",
    "{% macro m() %}{% set q = 5 %}{% endmacro %}{{ m() }}{{ q is defined }}", "{% if 1 %}{% macro m() %}x{% endmacro %}{% endif %}{{ m() }}", "{% for i in [1] %}{% macro m() %}x{% endmacro %}{% endfor %}{{ m is defined }}", "{% set m = 5 %}{% macro m() %}x{% endmacro %}{{ m() }}", "{% macro range() %}mine{% endmacro %}{{ range() }}", "{% set range = 5 %}{{ range }}",
    "{% set ns = namespace(n=0) %}{% macro inc() %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endmacro %}{{ inc() }}{{ inc() }}{{ ns.n }}", "{% set ns = namespace(a=1) %}{% set ns['a'] = 2 %}", "{% set ns = namespace(a=namespace(b=1)) %}{% set ns.a.b = 2 %}", "{% set ns = namespace(a=namespace(b=1)) %}{{ ns.a.b }}", "{% set ns = {'a': 1} %}{% set ns.a = 2 %}",
    "{% set x = 1 %}{% if x %}{% set x = 2 %}{% endif %}{{ x }}", "{% set x = 1 %}{% with %}{% set x = 2 %}{% endwith %}{{ x }}", "{% set x = 1 %}{% filter upper %}{% set x = 2 %}{% endfilter %}{{ x }}", "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "{% set x = y = 1 %}", "{% set x, y = y, x %}{{ x is defined }}",
    "{% set x | default('q') %}{% endset %}[{{ x }}]", "{% set x | nope %}{% endset %}", "{% set x = 'a' | upper %}{{ x }}", "{% set x = 1 if n else 2 %}{{ x }}", "{% set x = n > 5 and 'big' or 'small' %}{{ x }}", "{% set a.b, c = 1, 2 %}", "{% set (a) = 1 %}{{ a }}", "{% set a, = [1] %}{{ a }}", "{% set [a, b] = [1, 2] %}",
    "a{% raw %}  \n{% endraw %}\n b", "{% raw %}{% raw %}{% endraw %}", "{%raw%}x{%endraw%}", "{%- raw -%} x {%- endraw -%} y", "{% raw %}\n{{ a }}\n{% endraw %}\n", "x\n  {%- raw %}\n a{% endraw %}", "{% endraw %}", "{# {% raw %} #}x", "{{ '{% raw %}' }}", "{{ \"#}\" }}", "{# a }} %} #}x", "{#-#}x", "{#+ a +#}\nx", "  {#+ a #}x", "a {#- b #}\n c",
    "a\n\t{%- if 1 %}\n\tb{% endif %}", "{%- if 1 -%}   \n x \n {%- endif -%}  \n y", "{% if 1 -%}\n\n\n x{% endif %}", " {{- 1 }} {{ 2 -}} ", "{{ 1 }}\n", "{{ 1 }}\n\n", "{% if 1 %}\n{% endif %}\n", "  {% if 1 %}{% endif %}  \n x", "x  {% if 1 %}\n  y {% endif %}\n z", "{% if 1 %}\r\nx{% endif %}\r\n", "\u3000{% if 1 %}x{% endif %}", "\u00a0{%- if 1 %}x{% endif %}", "a\u2003{{- 1 }}", "\x0b {% if 1 %}x{% endif %}", "a\x0c\n{% if 1 %}x{% endif %}",
    "{{ {\n'a':\n1\n} }}", "{{ 'a'\n~\n'b' }}", "{{ n\t+\t1 }}", "{{n}}{{n}}", "{{n+1}}", "{{n-1}}", "{{n*-1}}", "{{-n}}", "{{-n-}}", "{{'a'-}}", "{{n -}} x", "{{- n -}}", "{%-if n-%}x{%-endif-%}", "{{ n }}}", "{{{ n }}}", "{ {{ n }} }", "{{ '}}' ~ '{{' }}", "{{ \"a'b\" ~ 'c\"d' }}", "{{ 'a\\'b' }}", "{{ '\\x41\\u00e9\\n|' }}", "{{ '\\' }}", "{{ 'a'b' }}",
    "{% if true %}a{% endif %}{% if false %}b{% endif %}{% if none %}c{% endif %}{% if '' %}d{% endif %}{% if ' ' %}e{% endif %}{% if [] %}f{% endif %}{% if [0] %}g{% endif %}{% if 0.0 %}h{% endif %}{% if {} %}i{% endif %}", "{% if n == 7 %}{% if z %}a{% else %}b{% endif %}{% else %}c{% endif %}", "{% if n %}a{% else if %}b{% endif %}", "{% elif 1 %}", "{% if n %}a{% elif %}b{% endif %}", "{% if n %}a{% else x %}b{% endif %}", "{% if n = 7 %}a{% endif %}", "{% if n }}a{% endif %}", "{{ n %}", "{% if n %}{{ endif }}", "{%  %}x", "{% if n %}a{%endif%}{%if z%}b{%else%}c{%endif%}", "{% IF n %}{% ENDIF %}",
    "{% with a = 1 %}{% with b = a + 1 %}{{ a }}{{ b }}{% endwith %}{% endwith %}", "{% with a = 1 %}{% set a = 2 %}{{ a }}{% endwith %}{{ a is defined }}", "{% with a %}{% endwith %}", "{% with n = 1 %}{{ n }}{% endwith %}{{ n }}", "{% with a = 1, %}{{ a }}{% endwith %}", "{% filter upper | lower %}Ab{% endfilter %}", "{% filter %}a{% endfilter %}", "{% filter join('-') %}abc{% endfilter %}", "{% filter tojson %}a\"b{% endfilter %}", "{% filter default('x') %}{% endfilter %}|",
    "{% generation %}{% if 1 %}a{% endif %}{% endgeneration %}b", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% for x in xs %}{% generation %}{% if x == 1 %}{{ x }}{% endif %}{% endgeneration %}{% endfor %}", "{% generation x %}{% endgeneration %}",
    "{{ people | map(attribute='name') | map('lower') | select('in', ['ann', 'di']) | list }}", "{{ people | selectattr('city', 'defined') | selectattr('city', 'in', ['Oslo']) | map(attribute='name') | first }}", "{{ people | rejectattr('city', 'undefined') | list | length }}", "{{ people | selectattr('name', 'string') | list | length }}", "{{ people | map('length') | list }}", "{{ people | map('tojson') | join('\\n') }}", "{{ people | map(attribute='city', default='?') | unique | sort | join(',') }}", "{{ people | sum(attribute='age') / people | length }}", "{{ people | groupby('age') | map('list') | map('length') | list }}", "{% for p in people | sort(attribute='age,name', reverse=true) %}{{ p.name }} {% endfor %}", "{{ people[0] | tojson }}", "{{ people[0] }}", "{{ people[0].items() | list }}", "{% for k, v in people[0] | items %}{{ k }}:{{ v }} {% endfor %}", "{% for p in people %}{{ p.city | default('-', true) }} {% endfor %}", "{% for p in people if p.city is defined %}{{ loop.index }}{{ p.city }} {% endfor %}",
    "{% set m = people | last %}{{ m.name }}{{ m['age'] }}{{ m.get('x') }}{{ m.get('x', 1) }}", "{{ people | map(attribute='name') | join(', ') | replace('Ann', 'A') | upper }}", "{% set sep = joiner(', ') %}{% for p in people %}{{ sep() }}{{ p.name }}{% endfor %}", "{{ people | length }}{{ people[1:3] | map(attribute='name') | list }}{{ people[::2] | length }}{{ (people + [1]) | length }}", "{% if people[0]['city'] == 'Rome' and people | length > 3 %}y{% endif %}", "{{ 'Ann' in people | map(attribute='name') }}", "{{ 'Ann' in (people | map(attribute='name') | list) }}",
]


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    """As transformers.utils.chat_template_utils builds it."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def main():
    assert jinja2.__version__ == "3.1.6", jinja2.__version__
    env = environment()
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "expressions.txt"), encoding="utf-8") as f:
        lines = f.read().strip().split("\n")
    sources = ["{{ " + line + " }}" for line in lines] + TEMPLATES
    sources = list(dict.fromkeys(sources))
    rows = []
    for source in sources:
        try:
            text = env.from_string(source).render(**json.loads(json.dumps(VARIABLES)))
            rows.append({"template": source, "text": text})
        except Exception as e:  # every failure of the template, of whatever type
            rows.append({"template": source, "error": f"{type(e).__name__}: {e}"})
    addresses = [r for r in rows if " at 0x" in r.get("text", "")]
    assert not addresses, addresses
    with open(os.path.join(here, "expressions.json"), "w", encoding="utf-8") as f:
        f.write('{"now": "' + NOW.isoformat() + '",\n"variables": ' + json.dumps(VARIABLES) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")
    print(len(rows), "cases,", sum("error" in r for r in rows), "of them errors")


if __name__ == "__main__":
    main()
