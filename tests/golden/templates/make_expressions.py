"""Renders many small templates with Jinja2 as transformers sets it up: expressions.json.

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

# Each line is the inside of {{ }}.
EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
2 ** 3 ** 2
-2 ** 2
- 2
+n
--n
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
7.5 % -2
1 / 2
4 / 2
0.1 + 0.2
1e3
1e16
1e22
1.5e-7
1E5
123456789012345.0
1234567890123456.0
12345678901234567.0
0.0001
0.00001
1_000
0x1f
0b101
0o17
2 ** -1
2 ** 0.5
9 ** 0.5
0 ** 0
2 ** 62
10 ** 18
-0.0
0.0 * -1
5 - 2.5
3 * 'ab'
'ab' * 3
'ab' * 0
'ab' * -1
[1, 2] * 2
(1, 2) * 2
[1] + [2]
(1,) + (2, 3)
'a' + 'b'
'a' 'b' "c"
'a' ~ 1 ~ none ~ true ~ 2.0
1 ~ 2
[1] ~ {'a': 1}
'a' + 1
1 + 'a'
[1] + (2,)
[1] + 'a'
1 + none
none + 1
true + true
true * 3
1 / 0
1 // 0
1 % 0
1.0 // 0
1.0 % 0
0 ** -1
{} + {}
'a' - 'b'
1 == 1.0
1 == true
0 == false
'1' == 1
none == none
none == false
[1, 2] == [1, 2]
[1, 2] == (1, 2)
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
{'a': 1} == {'a': 2}
1 != 2
'a' < 'b'
'a' < 'B'
'Z' < 'a'
'é' > 'z'
[1, 2] < [1, 3]
[1, 2] < [1, 2, 0]
(1, 'a') < (1, 'b')
1 < 'a'
none < 1
[1] < ['a']
{} < {}
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2 != 1
1 in [1, 2]
1.0 in [1, 2]
'a' in 'cat'
'' in 'cat'
'x' not in 'cat'
1 in 'cat'
'a' in {'a': 1}
1 in {'a': 1}
'k' in dd
[1] in [[1]]
1 in 5
1 in none
not 1 in [2]
not true
not ''
not not 'x'
true and false
1 and 2
0 and 2
0 or 'x'
'' or none or []
1 or x.y.z
0 and x.y.z
'a' if true else 'b'
'a' if false else 'b'
'a' if false
('a' if false) is undefined
1 if 0 else 2 if 0 else 3
missing
missing ~ 'x'
missing.x
missing['x']
missing + 1
1 + missing
missing == missing
missing == none
missing is defined
missing is undefined
missing is none
missing or 'x'
missing | default('x')
missing | length
missing | list
missing | upper
missing | join(',')
missing | first
missing | int
missing | string
missing | trim
missing | tojson
missing | abs
missing | sum
missing | sort
missing | items | list
missing is iterable
missing is string
missing is sequence
missing is mapping
missing is number
missing in [1]
1 in missing
missing < 1
not missing
missing()
missing.upper()
-missing
[missing]
{'a': missing}
'%s' % missing
'{}'.format(missing)
d.missing
d.missing.x
d['missing']
d.missing is defined
d.missing.x is defined
d.a
d['a']
d.C
d.items() | list
d.keys() | list
d.values() | list
d.items()
d.keys()
d.get('a')
d.get('q')
d.get('q', 9)
d.get('q') is none
d.get([1])
d.get()
d | length
d | list
d | join('-')
d | first
d | string
d.copy()
d.pop('a')
d.update({'x': 1})
d.clear()
d | dictsort
d | dictsort(true)
d | dictsort(by='value')
d | dictsort(reverse=true)
d | dictsort(false, 'value', true)
d | dictsort(by='other')
xs | dictsort
d | items | list
xs | items | list
dd.items is callable
dd.items()
dd['items']
dd.get is callable
dd.get('k')
dd.k.x[2].y
dd.k.x[2]['y']
dd.k.x.1
dd.k.x.2.y
dd.k.x[-1]
dd.k.x[9]
dd.k.x['a']
dd[1]
xs[0]
xs[-1]
xs[3]
xs[3] is defined
xs[true]
xs['0']
xs[1.0]
xs[none]
xs.0
n[0]
no[0]
no.x
n.x
s[0]
s[-1]
s[99]
s.0
u[1]
u[8]
u[-1]
s[1:4]
s[:3]
s[-3:]
s[:-3]
s[::2]
s[::-1]
s[10:2:-2]
s[5:2]
s[-100:100]
s[3:3]
s[::0]
s['a':]
s[none:2]
u[8:10]
u[::-1]
xs[1:]
xs[:-1]
xs[::-1]
xs[0:3:2]
xs[-2:]
xs[5:]
(1, 2, 3)[1:]
(1, 2, 3)[::-1]
range(10)[2:5] | list
range(10)[3]
range(10)[-1]
d[1:2]
n[1:2]
missing[1:2]
nested[1][1][0]
[]
[1, 'a', none, true, 1.5, [], {}, ()]
[1, 2,]
()
(1,)
(1, 2)
1, 2
{}
{'a': 1, 'b': [1, {'c': none}]}
{1: 'a', none: 'b', true: 'c', (1, 2): 'd'}
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b'}
{[1]: 2}
{'a': 1,}
{1: 2}[1]
{1: 2}['1']
{(1, 2): 3}[1, 2]
['it\'s', "say \"x\"", 'a\'b"c', 'back\\slash', 'tab\tnl\n', '\x00\x7f\u200b\u00e9']
'\u4f60\x41\101\n|'
'a\qb'
"it's"
s | upper
s | lower
u | upper
'ß' | upper
'ŉ' | capitalize
'ǆ' | title
s.upper()
s.title()
"they're bill's" | title
"they're bill's".title()
'foo-bar (baz) [qux]' | title
'hELLO wORLD' | capitalize
'hELLO'.capitalize()
'aBc'.swapcase()
'Straße'.casefold()
ws | trim
ws.strip()
ws.lstrip()
ws.rstrip()
'xxaxx' | trim('x')
'xyaxy'.strip('yx')
'xxa'.lstrip('x')
'axx'.rstrip('x')
'\u00a0\u3000a\u2003'.strip()
'a'.strip(none)
'a'.strip(1)
s.split()
s.split(',')
s.split(', ')
s.split('l')
s.split('l', 1)
s.split('l', maxsplit=2)
s.split(none, 1)
s.split('')
s.split('zz')
''.split()
''.split(',')
ws.split()
ws.split(none, 1)
'a  b  c'.split(' ')
'a b c d'.rsplit(' ', 1)
'a b c d'.rsplit(none, 2)
'a,b,c'.rsplit(',', maxsplit=1)
' a b '.rsplit(none, 1)
'aaa'.split('aa')
'aaa'.rsplit('aa')
lines.splitlines()
lines.splitlines(true)
'a\x0bb\x0cc\x1cd\u2028e'.splitlines()
''.splitlines()
'\n\n'.splitlines()
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.rpartition('-')
'abc'.partition('')
s.replace('l', 'L')
s.replace('l', 'L', 2)
s.replace('', '-')
'abc'.replace('', '-', 2)
s.replace('o', '')
s | replace('l', 'L')
s | replace('l', 'L', 1)
n | replace(7, 8)
'aaa'.replace('aa', 'b')
s.find('o')
s.find('o', 5)
s.find('zz')
s.find('')
s.rfind('o')
s.rfind('o', 0, 5)
s.index('W')
s.index('zz')
s.count('l')
s.count('')
s.count('l', 4)
u.find('你')
u.count('')
s.startswith('Hell')
s.startswith(('x', 'H'))
s.startswith('W', 7)
s.endswith('ld')
s.endswith(('ld', 'x'))
s.startswith(1)
s.startswith(['H'])
'-'.join(['a', 'b'])
'-'.join('abc')
'-'.join([])
'-'.join([1, 2])
'-'.join(d)
'ab'.center(7)
'ab'.center(7, '*')
'abc'.center(6, '*')
'ab'.ljust(5) ~ '|'
'ab'.rjust(5, '.')
'ab'.rjust(5, '..')
'42'.zfill(5)
'-42'.zfill(5)
'+4'.zfill(1)
'a\tb'.expandtabs()
'a\tb'.expandtabs(4)
'123'.isdigit()
'²'.isdigit()
'²'.isdecimal()
'½'.isnumeric()
''.isdigit()
'abc'.isalpha()
'ab1'.isalnum()
' \n'.isspace()
''.isspace()
'AB1'.isupper()
'ab1'.islower()
'1'.isupper()
'Ab Cd'.istitle()
'Ab cd'.istitle()
'a\n'.isprintable()
''.isprintable()
'é'.isascii()
'a_1'.isidentifier()
'1a'.isidentifier()
'test.py'.removesuffix('.py')
'test.py'.removeprefix('test')
'test.py'.removeprefix('x')
s.nope
s.nope()
s.upper.x
s.__class__
s.__len__()
s['__class__']
s | attr('__class__')
s | attr('upper') is callable
xs.append(4)
xs.pop()
xs.index(1)
xs.index(9)
xs.count(1)
xs.copy()
xs.nope
(1, 2, 1).count(1)
(1, 2).index(2)
xs | length
xs | count
s | length
u | length
n | length
no | length
range(3) | length
xs | first
xs | last
empty | first
empty | last
s | first
s | last
e | first
n | first
d | last
xs | sort
xs | sort(reverse=true)
xs | sort(true)
strs | sort
strs | sort(case_sensitive=true)
strs | sort(reverse=true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age', reverse=true) | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='name') | map(attribute='name') | join(' ')
people | sort(attribute='city') | map(attribute='name') | join(' ')
['b', 1] | sort
[none, 1] | sort
[[2, 1], [1, 5], [1]] | sort
'hello' | sort
d | sort
[3.5, 1, true] | sort
xs | reverse | list
s | reverse
xs | reverse | first
n | reverse
xs | join
xs | join(', ')
xs | join(d='-')
[1, none, 'a', 2.0] | join('|')
people | join(', ', attribute='name')
s | join('.')
n | join
xs | sum
[1.5, 2] | sum
empty | sum
xs | sum(start=10)
people | sum(attribute='age')
people | sum('age', 1)
strs | sum
[[1], [2]] | sum(start=[])
xs | min
xs | max
strs | min
strs | max
strs | min(case_sensitive=true)
people | max(attribute='age')
empty | max
empty | max is defined
[1, 'a'] | max
[1, 2, 1, 3, 2] | unique | list
['a', 'A', 'b'] | unique | list
['a', 'A', 'b'] | unique(true) | list
people | unique(attribute='age') | map(attribute='name') | list
[[1], [1]] | unique | list
xs | list
s[:3] | list
n | list
xs | map('string') | list
strs | map('upper') | join
xs | map('nope') | list
xs | map() | list
people | map(attribute='city') | list
people | map(attribute='city', default='none') | list
people | map(attribute='age') | sum
people | map(attribute='name.0') | list
nested | map(attribute=0) | list
nested | map('first') | list
['a', 'b'] | map('replace', 'a', 'x') | list
[1.25, 2.75] | map('round', 1) | list
[1, none, 2] | map('default', 0) | list
[1, none] | map('default', 0, true) | list
[0, 1, 2, '', 'a', none] | select | list
[0, 1, 2, '', 'a', none] | reject | list
[1, 2, 3, 4] | select('odd') | list
[1, 2, 3, 4] | reject('odd') | list
[1, 2, 3, 4] | select('gt', 2) | list
[1, 2, 3, 4] | select('divisibleby', 2) | list
[1, 2, 3, 4] | select('in', [1, 4]) | list
['a', 1, none] | select('string') | list
xs | select('nope') | list
people | selectattr('city') | map(attribute='name') | list
people | selectattr('city', 'defined') | map(attribute='name') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('age', '>', 25) | map(attribute='name') | list
people | rejectattr('age', 'eq', 30) | map(attribute='name') | list
people | rejectattr('city') | map(attribute='name') | list
people | selectattr('nope', 'defined') | list
people | selectattr() | list
people | groupby('age') | length
people | groupby('age') | map(attribute='grouper') | list
people | groupby('city', default='?') | map('first') | list
people | groupby('city', default='') | map(attribute=0) | list
people | groupby('city', case_sensitive=true, default='z') | map('first') | list
(people | groupby('age'))[0].list | length
people | groupby('age') | first | first
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, 0) | list
[1, 2, 3, 4, 5] | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1, 2] | slice(3) | list
neg | abs
-2.5 | abs
(-2.5) | abs
'a' | abs
2.567 | round
2.567 | round(2)
2.5 | round
3.5 | round
0.5 | round
-2.5 | round
2.1 | round(0, 'ceil')
2.9 | round(method='floor')
1234 | round(-2)
7 | round
'a' | round
2.5 | round(1, 'x')
'42' | int
'42.9' | int
' 42 ' | int
'abc' | int
'abc' | int(default=-1)
'0x1f' | int(base=16)
'ff' | int(0, 16)
'1_000' | int
'1e3' | int
2.9 | int
-2.9 | int
none | int
true | int
[] | int
'' | int
'٣' | int
'1.5' | float
'abc' | float
'abc' | float(1.5)
'inf' | float
'nan' | float
'-inf' | float
'1e400' | float
' 1.5 ' | float
'1_0.5' | float
'.5' | float
'5.' | float
3 | float
none | float
n | string
2.0 | string
none | string
true | string
[1, 'a'] | string
xs | string | length
no | default('x')
no | default('x', true)
e | default('x')
e | default('x', boolean=true)
e | d('x', true)
missing | default
missing.x | default('y')
d.q | default('dq')
d.q.r | default('dq')
html | escape
html | e
html | forceescape
html | striptags
'<p>a  <!-- <i> -->b</p>\n c <' | striptags
html | safe
'a b&c/ü?=' | urlencode
{'a b': 1, 'c/d': 'é&'} | urlencode
[('x', 1), ('y', none)] | urlencode
'a\nb\n\nc' | indent
'a\nb' | indent(2)
'a\nb' | indent(2, true)
'a\n\nb' | indent(2, blank=true)
'a\nb' | indent('> ')
'a\nb\n' | indent
'' | indent(first=true)
'hello big wide world' | truncate(12)
'hello big wide world' | truncate(12, true)
'hello big wide world' | truncate(12, end='!', leeway=0)
'hello big wide world' | truncate(18)
'hello' | truncate(3)
'hello big wide world' | truncate(2)
'helloworldlong' | truncate(6, leeway=0)
'a b_c d-e' | wordcount
u | wordcount
'' | wordcount
'ab' | center(6) ~ '|'
1 | filesizeformat
100 | filesizeformat
1000 | filesizeformat
1234567 | filesizeformat
1234567 | filesizeformat(true)
'2048' | filesizeformat(binary=true)
'%s and %s' | format('a', 1)
'%(a)s' | format(a=1)
'%s' | format
'%s %s' | format(1)
'%s' % 'a'
'%s' % 1
'%s %s' % ('a', none)
'%s' % [1]
'%s' % (1, 2)
'%d' % 3.9
'%d' % '3'
'%d' % true
'%5d|%-5d|%05d|%+d' % (1, 2, 3, 4)
'%.2f|%8.3f|%-8.1f|%e|%g|%G' % (1.005, 2.5, 3.25, 12345.678, 0.0001, 1e20)
'%x %X %o %#x %#o' % (255, 255, 8, 255, 8)
'% d' % 5
'%05.1f' % -2.25
'%-05d|' % 5
'%s%%' % 50
'%%'
'%%' % ()
'%r %r' % ('a', 1)
'%(a)s %(b)05.1f' % {'a': 'x', 'b': 2.25}
'%(q)s' % {'a': 1}
'%q' % 1
'%' % 1
'%5s|%-5s|%.2s' % ('ab', 'ab', 'abcd')
'%c' % 'x'
'%c' % 65
'%i' % 5
'abc' % ()
'abc' % 1
'abc' % {}
'%*d' % (5, 1)
'{} {}'.format(1, 'a')
'{0} {1} {0}'.format('a', 'b')
'{a} {b}'.format(a=1, b=2)
'{a[x]} {b[0]}'.format(a={'x': 1}, b=[2])
'{0.upper}'.format('a') | length > 5
'{0.__class__}'.format('a')
'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')
'{:*^7}'.format('ab')
'{:5}|{:5}|'.format('a', 1)
'{:05d}|{:5d}|{:+d}|{: d}'.format(1, 2, 3, 4)
'{:.2f}|{:8.3f}|{:e}|{:g}|{:%}'.format(1.005, 2.5, 12345.678, 0.0001, 0.25)
'{:.1%}'.format(0.256)
'{:,}'.format(1234567)
'{:,.2f}'.format(1234567.891)
'{:_}'.format(1234567)
'{:x} {:X} {:o} {:b} {:#x} {:#b}'.format(255, 255, 8, 5, 255, 5)
'{:c}'.format(65)
'{:d}'.format('a')
'{:d}'.format(1.5)
'{:s}'.format('a')
'{:s}'.format(1)
'{:.3}'.format('abcdef')
'{:.3}'.format(2.0)
'{:.3}'.format(1234.5)
'{:10.3}|'.format(3.14159)
'{:=+6d}'.format(5)
'{:05}'.format(-3)
'{:05}'.format('ab')
'{:<05}'.format(3)
'{!r}'.format('a')
'{!s:>4}'.format(1)
'{!r:>6}'.format('a')
'{{}}'.format()
'{{{}}}'.format(1)
'{'.format()
'}'.format()
'{}'.format()
'{} {0}'.format(1)
'{1}'.format(1)
'{a}'.format()
'{:{}}'.format('a', 5)
'{:{w}}|'.format('a', w=4)
'{}'.format(none)
'{}'.format([1, 'a'])
'{:5}'.format(none)
'{:5}'.format([1])
'{}'.format(true)
'{:d}'.format(true)
'{:5}|'.format(true)
'{}'.format(1.0)
'{:.0f}'.format(2.5)
'{:g}'.format(1e10)
'{:g}'.format(100000.0)
'{:n}'.format(1234)
'{a}'.format_map({'a': 1})
xs | tojson
d | tojson
html | tojson
u | tojson
u | tojson(ensure_ascii=true)
'\n\t\r\x08\x0c\x01\x7f\u2028"\\/' | tojson
'\x7f😀' | tojson(ensure_ascii=true)
[1, 1.0, 1e20, 1e-7, true, none, 'a', [], {}] | tojson
d | tojson(indent=2)
dd | tojson(indent=4)
[] | tojson(indent=2)
[[], {}] | tojson(indent=2)
d | tojson(sort_keys=true)
d | tojson(indent=0)
d | tojson(indent='--')
d | tojson(separators=(',', ':'))
d | tojson(indent=1, separators=(',', ': '))
{1: 'a', none: 1, true: 2, 1.5: 3} | tojson
{(1, 2): 3} | tojson
(1, 2) | tojson
range(3) | tojson
d.keys() | tojson
xs | map('string') | tojson
d.upper | tojson
'inf' | float | tojson
d | tojson(2)
d | tojson(nope=1)
1 is number
1.0 is number
true is number
'1' is number
1 is integer
true is integer
1.0 is float
1 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
0 is false
none is none
no is none
'a' is string
1 is string
d is mapping
xs is mapping
xs is sequence
'a' is sequence
d is sequence
1 is sequence
range(3) is sequence
xs is iterable
1 is iterable
d is iterable
s.upper is callable
s is callable
range is callable
3 is odd
4 is even
'a' is odd
2.0 is even
6 is divisibleby 3
6 is divisibleby(4)
6 is divisibleby 0
1 is eq 1
1 is equalto(1.0)
1 is ne 2
1 is lt 2
2 is gt(1)
2 is ge 2
2 is le 1
1 is sameas 1
true is sameas true
1 is sameas true
1 is in [1, 2]
'a' is in 'abc'
'ABC' is upper
'abc' is lower
'aBc' is lower
'' is lower
'1' is upper
'upper' is filter
'nope' is filter
'odd' is test
'nope' is test
x is defined
x is not defined
s is not string
1 is not none and 2 is not none
not 1 is none
1 is nope
1 | nope
1 is string or 2
s is string and n is number
d.a is defined and d.a == 1
1 + 2 is number
-1 is number
'a' ~ 'b' is string
n | string is string
1 if n is odd else 2
xs is sequence and xs is not string and xs is not mapping
range(5) | list
range(2, 8, 3) | list
range(5, 0, -2) | list
range(0) | list
range(3)
range(1, 2)
range(1, 9, 2)
range(1, 2, 0)
range()
range('a')
range(1.5)
range(3) == range(0, 3)
1 in range(3)
range(200000)
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict([['a', 1], ['b', 2]])
dict([1])
dict(d, a=5)
namespace(a=1).a
namespace(a=1).b
namespace({'a': 1}, b=2).b
namespace(a=1)
joiner()() ~ 'x'
cycler('a', 'b').next()
cycler()
raise_exception('boom')
raise_exception()
strftime_now('%Y-%m-%d %H:%M:%S %j %a %A %b %B %d %y %I %p %%')
strftime_now('%-d %e')
strftime_now('')
strftime_now()
strftime_now(1)
n()
s()
range.x
(range)(2) | list
s.upper()[:2].lower() + 'x'
(s | upper)[0]
(xs + [4])[1:] | join | length
s | upper | lower | title | replace('W', 'w')
xs | sort | reverse | first
'a' | upper ~ 'b' | upper
1 | string + '2'
-1 | abs
2 * 3 | string
n + 1 | string
'abc' | list | reverse | join
s.split(',')[1].strip().lower()
[s, [u]] | string
[1, 2, 3] | list == xs
(xs | sort) == [1, 2, 3]
true
True
TRUE
false
False
none
None
null
nil
[true, false, none]
1.0
100000000000000000000.0
1e100
3.14159265358979
1/3
2/3*3
1e308 * 10
-1e308 * 10
5 // 0.3
5 % 0.3
-5 % 0.3
5.5 // -1.5
1e20 // 3
1e20 % 3
6 // 4.0
'a' == 'a' == 'a'
1 == 1 in [1]
'abc' > 'abd' or 'abc' < 'abd'
'a' * 2 ~ 'b'
1 ~ 2 + 3
1 + 2 ~ 3
2 * 'a' + 'b'
[*xs]
f(1
1 +
1 2
'a
)
[1
{'a'
{'a' 1}
a.
a[]
a[1
1 |
1 is
1 if
s.upper(,)
x = 1
1 === 1
!true
1 && 2
'a' in
not
$x
@
`x`
missing | float
missing | default | int
'%d' % missing
'abc' % missing
'abc' % [1]
'abc' % range(3)
'abc' % none
'%s %s' % [1, 2]
'%(a)s' % [1]
'%(a(b))s' % {'a(b)': 1}
'%.3d|%5.3d|%-5.3d|%08.3d|%.2x' % (5, 5, 5, 5, 10)
'%-*d|%.*f' % (5, 1, 2, 3.14159)
'%*d|' % (-5, 1)
'%ld' % 5
'%#06x|%+x|%x' % (255, 255, -255)
'%5c|%-3c|' % ('é', 65)
'%c' % 'ab'
'%c' % -1
'%5%|' % ()
'%05s|%-05s|' % ('a', 'b')
'%010.3f|%+.1e|% g' % (-3.14159, 12345.678, 2.5)
'%f' % ('inf' | float)
'%05d' % ('nan' | float)
'{:5}|{:<5}|{:^5}|{:>5}|'.format(1.5, 1.5, 1.5, 1.5)
'{:+}|{: }|{:+}'.format(1.5, 1.5, -1.5)
'{:08,}|{:08_}|{:010,}|{:09,.1f}'.format(1234, 1234, 1234567, 1234.56)
'{:06,}|{:05,}|{:07,}|{:01,}'.format(1234, 1234, 1234, 1234)
'{:_x}|{:_b}|{:_o}'.format(1048575, 1023, 4095)
'{:,x}'.format(255)
'{:#06x}|{:#010b}|{:#X}'.format(255, 5, 255)
'{:*=+8d}|{:0=6}|{:x=6}'.format(5, -5, 7)
'{:=5}'.format('ab')
'{:+}'.format('ab')
'{:#}'.format('ab')
'{:,}'.format('ab')
'{:.2d}'.format(5)
'{:.2}'.format(5)
'{:c}|{:5c}|{:<3c}|'.format(65, 20320, 66)
'{:+c}'.format(65)
'{:é^5}'.format('a')
'{:你>4}|{:👋<3}|'.format('好', 'x')
'{:.3}|{:.3}|{:.1}|{:.5}|{:.0}|{:.3}'.format(123.0, 1234.5, 100.0, 0.00001234, 2.5, 0.0)
'{:.3}|{:.17}|{:.2}|{:8.3}|'.format(0.1, 0.1, 99.9, 2.0)
'{:%}|{:.0%}|{:8.1%}|{:+.1%}'.format(0.5, 0.5, 0.5, 0.5)
'{:e}|{:.2e}|{:E}|{:G}|{:g}|{:.3g}'.format(0.0, 12345.0, 1.5, 1e-10, 123456789.0, 2)
'{:f}|{:F}|{:.1f}|{:05}'.format(n, n * 1e308, 0.25, n * -1e308)
'{:n}|{:n}'.format(1.5, 12)
'{:d}'.format(none)
'{:s}'.format(true)
'{:5}|{:<7}|{:x}|{:.1f}|'.format(true, false, true, true)
'{:q}'.format(1)
'{:5x5}'.format(1)
'{:.}'.format(1.0)
'{0:{1}}|{0:>{1}}|{0:{2}{1}}|'.format('a', 4, '^')
'{:{}.{}f}|'.format(3.14159, 8, 2)
'{:{:{}}}'.format('a', 5, 1)
'{[0]}'.format('ab')
'{0[0]}{0[1]}'.format('ab')
'{a.b.c}'.format(a={'b': {'c': 1}})
'{a[b][0]}'.format(a={'b': [7]})
'{0[}'.format('a')
'{0]}'.format('a')
'{0.}'.format('a')
'{0[]}'.format('a')
'{0[a]b}'.format({'a': 1})
'{0!}'.format('a')
'{0!r:}'.format('a')
'{0!rr}'.format('a')
'{0!q}'.format('a')
'{0!s:>5}|'.format([1])
'{0:>{w}}'.format('a', w=3)
'{0} {}'.format(1)
'{ }'.format(1)
'{a b}'.format(a=1)
'{{{0}}}{{}}'.format(1)
'}}{{'.format()
'{0'.format(1)
'{}}'.format(1)
'{q}'.format(missing)
'{}|{}'.format(missing, none)
'{:5}'.format(missing)
'{}'.format(d)
'{d[a]}'.format(d=d)
'{}'.format('a', 'b')
''.__class__ ~ 'x'
''.__class__.__mro__
''.__class__()
[].append is defined
[].append ~ ''
d.update is defined
{'a b': 'c d', 'x': '100%'} | urlencode
'a+b c' | urlencode
'１２' | int
'٣.٥' | float
'१२३' | int
'²' | int
'½' | float
'-٣' | int
'+5' | int
'- 5' | int
'--5' | int
'5 5' | int
'0x' | int
'0x1F' | int(0, 0)
'0b11' | int(0, 2)
'0o17' | int(0, 8)
'012' | int
'012' | int(0, 0)
'z' | int(0, 36)
'1' | int(0, 1)
'1__0' | int
'_1' | int
'1e5' | float
'1e' | float
'1.2.3' | float
'infinity' | float
'+nan' | float
'0x10' | float
1e400
'ẞßΐﬁİ' | lower
'ßﬁΐŉǰ' | upper
'ßﬁ ŉǰ'.title()
'ǅungla ﬁn'.swapcase()
'ÀÉÎ ẞ ﬁ K'.casefold()
'ΆΣς'.casefold()
'ǅ'.istitle()
'ⅷ'.islower()
'ªº'.islower()
'Ⅷ' | lower
'K' | lower
'٣'.isdigit()
'٣'.isdecimal()
'①'.isdigit()
'五'.isnumeric()
'五'.isdigit()
'五'.isalpha()
'٣a'.isalnum()
'_'.isalnum()
'\u0301'.isalpha()
'\xa0'.isspace()
'\x1c'.isspace()
'\u200b'.isspace()
'\u00ad'.isprintable()
'\ue000'.isprintable()
'👨‍👩‍👧' | length
['👨‍👩‍👧']
['\u0378\U000e0001']
'İ' | lower | length
'a' * 3 is eq 'aaa'
xs | map('add', 1) | list
xs | map(attribute='x') | list
'abc' | map('map', 'upper') | map('list') | list
xs | select('sameas', 1) | list
xs | groupby('x') | list
people | groupby('nope') | list
people | groupby('name') | map('last') | map('first') | map(attribute='age') | list
people | sort(attribute='nope') | list
people | sort(attribute='city') | list | length
[{'a': 2}, {'a': 1}] | sort(attribute='a') | list
[{'a': [2]}, {'a': [1]}] | sort(attribute='a.0') | list
[[2, 'b'], [1, 'a']] | sort(attribute=1)
[[2, 'b'], [1, 'a']] | sort(attribute='1')
[(1, 'a'), (0, 'b')] | sort
['b', 'B', 'a', 'A'] | sort
['b', 'B', 'a', 'A'] | sort(false, true)
['b', 'B', 'a', 'A'] | unique | list
['é', 'z', 'É', 'Z'] | sort
[true, 0, 2, -1.5] | sort
[1, 'a'] | sort
[d, d] | sort
xs | max(attribute='x')
xs | min(true)
[] | min
'hello' | max
'hello' | unique | join
(1, 2, 3) | reverse | list
{'b': 1, 'a': 2} | reverse | list
'abc' | batch(2) | list
xs | batch(0) | list
xs | batch(-1) | list
xs | slice(0) | list
xs | slice(-1) | list
xs | batch | list
'abc' | first | upper
range(5) | sum
range(5) | select('even') | join(',')
range(5) | last
range(0) | first | default('none')
range(3) | reverse | list
d | map('upper') | list
d | max
d.values() | list | sort
d.items() | sort
d.items() | map(attribute=1) | sum
d | length + 1
d | string | length
dd | tojson
{'a': missing} | tojson
{'z': 1, 'a': {'y': 1, 'b': 2}} | tojson(sort_keys=true, indent=2)
[1, [2, [3]]] | tojson(indent=2)
{'a': []} | tojson(indent=2)
'é\u2028' | tojson
'"\\/' | tojson
{1: 2, 'a': 3} | tojson(sort_keys=true)
[1.0, 1e16, 1.5e300, -0.0] | tojson
['nan' | float, -('inf' | float)] | tojson
true | tojson
none | tojson
{'a': (1, 2)} | tojson
namespace(a=1) | tojson
d | tojson(indent=none)
d | tojson(indent='\t')
d | tojson(indent=-1)
d | tojson(indent=true)
d | tojson(separators=('a', 'b', 'c'))
d | tojson(ensure_ascii=true, indent=1)
'a b c' | truncate(3, leeway=0)
'a b c' | truncate(3, true, leeway=0)
'a b c' | truncate(3, false, '', 0)
'' | truncate(3)
'日本語テキスト' | truncate(5, true, '…', 0)
n | truncate(3)
'a\n' | indent(first=true) ~ '|'
'a\r\nb' | indent
'a\n  \nb' | indent(1)
'a\n  \nb' | indent(1, blank=true)
n | indent
'\n' | indent(blank=true) ~ '|'
'x' | center(4, '*')
'' | center(3) ~ '|'
'x' | center('a')
'a.b-c_d é' | wordcount
0 | filesizeformat
-5 | filesizeformat
1.5 | filesizeformat
999.9 | filesizeformat
1e30 | filesizeformat
'x' | filesizeformat
999999 | filesizeformat
1023 | filesizeformat(true)
1024 | filesizeformat(true)
'a' | replace
'a' | replace('a')
'aaa' | replace('a', 'b', none)
'aaa' | replace('a', 'b', 0)
'aaa' | replace('a', 'b', -1)
'aaa'.replace('a', 'b', -1)
'aaa'.replace('a', 1)
'abc' | trim('')
'abc' | trim(none)
'  a ' | trim | length
none | trim
none | upper
5 | upper
[1] | upper
5 | replace(5, 6) | int + 1
none | length
true | length
5 | list
none | list
none | join
none | first
none | sort
none | sum
none | map('upper') | list
none | select | list
none | items | list
none | tojson | length
d | attr('a')
d | attr('items') is callable
n | attr('x') is defined
namespace(a=5) | attr('a')
s | attr(1)
'abc' | attr('upper') is defined
x.y | default('a')
x | default(y | default('z'))
none.x | default('a')
''.x | default('a')
(1 / 0) | default('a')
1.5 | round | string
15 | round(-1)
25 | round(-1)
1e20 | round
-0.4 | round
2.675 | round(2)
1.005 | round(2)
1e-10 | round(5)
12345.678 | round(-2)
2.5 | round(0, 'floor') | int
2.123 | round(2, 'ceil')
'5' | round
true | round
none | round
1.5 | abs
true | abs
none | abs
2.0 | int | string
'9' * 3 | int
9 | string * 3
[3] * 2 | sum
1.0 | string | length
1e5 | int
1e15 | string
1e15 + 0.5
123456.789e3
1.10
100.0 * 1.1
1 - 0.9
5e-324
1.7976931348623157e308
0.1 + 0.7
4.35 * 100
-7 // 2.0
-7 % 2.0
7 % -2.0
0.0 // 1
-0.0 // 1
-1 // 0.1
1 // 0.1
1 % 0.1
(-2) ** 3
(-2) ** -1
2.0 ** 3
2 ** 0.0
0.0 ** 0
10 ** -2
1 < 1.5
1.5 < true
'10' < '9'
'' < 'a'
[] < [0]
[1, 'a'] < [2, 1]
[1, 'a'] < [1, 1]
(1,) < [1]
none == missing
missing != none
d == {'a': 1, 'b': 2, 'C': 3}
d != {}
range(3) == [0, 1, 2]
'a' == none
true in [1]
'1' in [1]
none in [none]
[] in [[]]
'b' in d and d.b > 1
(1, 2) in {(1, 2): 3}
'a' in 'abc' in 'xabcx'
'a' in missing
missing in d
missing in 'abc'
none in 'abc'
x not in [1]
not x
not x is defined
not x.y
xs[missing]
d[missing]
s[missing]
xs['a']
xs[0:missing]
d[none]
d[[1]]
d[1:]
'abc'['a']
'abc'.0
'abc'.0.0
(1, 2).0
{0: 'a'}.0
{'0': 'a'}.0
xs.0.x
n.x.y
none.x
none['x']
none[0]
none()
'a'()
d()
d.a()
d.a.b.c
(d.a).b
('a').upper()
'a'.upper.upper
'a'.upper().lower().upper()
[1, 2, 3][1]
[1, 2, 3][-1:][0]
{'a': 1}['a']
{'a': {'b': 2}}.a.b
{'a': {'b': 2}}['a'].b
(1, 2)[0]
'a,b'.split(',')[0]
-xs[0]
-n ** 2
(-n) ** 2
2 ** -n < 1
- - n
+ - n
not n == 7
n == 7 and not z
n is not none and n > 5
n is number and not n is string
n is divisibleby(7) and n is odd
s is string is true
n > 5 is true
1 if n > 5 else 2 if n > 3 else 3
(1 if n > 50) or 'none'
'a' if missing is defined else 'b' ~ 'c'
('a' if n else 'b') ~ 'c'
[1 if n else 2, 3]
{'a': 1 if n else 2}
xs | length > 2
xs | length == 3 and true
xs | first + 1
xs | sum / xs | length
(xs | sum) / (xs | length)
xs | join(', ') | upper
xs | join(', ' if n else '')
xs | default([]) | length
s | default('x') | upper | lower
'a' 'b' | upper
'a' ~ 'b' | upper
1, 2, 3 | string
(1, 2) | length
(1, 2), 3
1,
{'a': 1} | length
{} or 'x'
[] and 'x'
[[]] and 'x'
0.0 or 'zero'
'0' and 'yes'
() or 'empty'
range(0) or 'empty'
d and xs and s and 'all'
dict()
dict(a=1)['a']
dict(**d)
dict(d, **{'z': 1})
dict(a=1, a=2)
dict(1)
range(3, 0, -1) | list
range(-3, 3, 2) | list
range(3)[::-1] | list
range(3) | string
range(1, 10)[2]
range(10) | batch(3) | list
range(3) is iterable
range(3) is mapping
range(100001) | length
range(true)
range(n=3)
namespace is callable
namespace() is mapping
namespace(1)
namespace(a=1)['a']
namespace(a=1) == namespace(a=1)
joiner(1)() ~ joiner(1)()
s is lower or s is upper
s is in [s]
n is in(xs)
2 is in xs
missing is in [1]
n is eq(7) is eq(true)
n is not eq 7
n is gt 5 and n is lt 10
s is ne 'x'
n is >= 7
n is == 7
n is none is none
xs is iterable and d is iterable and s is iterable
n is callable
missing is callable
s.upper is defined
s.x is defined
d.x.y is defined
d['x'] is undefined
none is undefined
none is defined
'a' is sequence and 'a' is iterable
1.5 is integer
1.0 is integer
1 is even
0 is even
-1 is odd
1.5 is odd
'a' is divisibleby 2
none is odd
n is nope(1)
n is defined(1)
n is eq
n is divisibleby
s is string()
strftime_now('%d %b %Y')
strftime_now('%B')[:3]
strftime_now('%U %W %w %u %G %V %C')
strftime_now('é %Y')
[d] | sort
[none, none] | sort
[missing, missing] | sort
[1, none] | sort
xs | sort(attribute='a,b')
people | min(attribute='name,age')
people | groupby('city,age', default=1) | length
'%5%' % 1
'a'.0.0.0
xs.0 + 1
1.5.5
1e-400
-1e400
(n * 1e308) | int
(n * 1e308) | int(3)
1e400 - 1e400
[1e400, -1e400] | tojson
d | join(d=1, d=2)
' ١ ' | int
'\u2003 7 \u2003' | int
'𝟕𝟖' | int
s.split(sep=',')
s.replace(old='l', new='L')
'a'.center(width=3)
'abc'.find('b', none, none)
'abc'.find('b', -2)
'abc'.count('', 5)
'abc'.startswith('', 4)
'abc'.find('', 4)
'abc'.find('', 3)
'abc'.rfind('')
'abc'.index('c', 1, 2)
'a,b'.split(',', none)
'a,b'.split(',', 'x')
'  a  b '.split(none, 0)
'  a  b '.rsplit(none, 0)
'  a  b '.split(maxsplit=1)
'a b'.split(' ', 0)
''.join([''])
''.rstrip()
'abc'.strip('ab')
'abc'.removeprefix('')
'abc'.zfill(2)
'-'.zfill(3)
''.zfill(2)
'a\tb\nc\td'.expandtabs(3)
'a\tb'.expandtabs(0)
'ab'.ljust(1)
'ab'.rjust(4, 'é')
'a'.isidentifier() and not ''.isidentifier()
'Hello World Foo'.swapcase().title()
'a.b.c'.rpartition('.')[0]
'a.b.c'.partition('.')[2].partition('.')
'aXbXc'.split('X') | join('-') | upper
'<|a|>'.replace('<|', '[').replace('|>', ']')
'%s' * 2 % ('a', 'b')
'a%sb' % 'c' * 2
'a' in 'abc' == true
1 + 1 == 2 and 'y' or 'n'
(1 + 1) * 2 ~ 'x' | upper
not (1 and 0)
[] == () or {} == []
xs[-1:] + xs[:1]
xs[::-1][0]
xs[n]
xs[n] | default('none')
d[xs[1] | string] is defined
d['a' if n else 'b']
d.get('a' ~ '') + d.get('zz', 5)
"""

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
    sources = ["{{ " + line + " }}" for line in EXPRESSIONS.strip().split("\n")] + TEMPLATES
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
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "expressions.json"), "w", encoding="utf-8") as f:
        f.write('{"now": "' + NOW.isoformat() + '",\n"variables": ' + json.dumps(VARIABLES) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")
    print(len(rows), "cases,", sum("error" in r for r in rows), "of them errors")


if __name__ == "__main__":
    main()
