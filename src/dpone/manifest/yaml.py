"""YAML in and out. In: the YAML 1.2 core schema with a position for every key and value, and without YAML's traps.

PyYAML parses; which scalar is a number is decided here, because PyYAML follows YAML 1.1, where `no` is false and
`12:30:45` is 45045. https://yaml.org/spec/1.2.2/#103-core-schema
Duplicate keys, merge keys, explicit tags and documents that unfold into more than `MAX_VALUES` values are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.cyaml import CSafeDumper

from dpone.manifest.document import MAX_LINE, Document, KeyPath, Span, display_path
from dpone.manifest.problems import ManifestError, Problem, dotted, shown
from dpone.manifest.secrets import mask

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 64
MAX_VALUES = 100_000

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_DIGITS = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0(o[0-7]{1,64}|x[0-9a-fA-F]{1,64})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# https://yaml.org/spec/1.2.2/#51-character-set
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What libyaml counts as a line break.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_KEY = re.compile(r"""\s*(?:-\s+)*["']?(?P<key>[^\s:"'#]+)["']?\s*:(?=\s|$)""")
_TOP_KEY = re.compile(r"""["']?(?P<key>[^\s:"'#{\[-][^\s:"'#]*)["']?\s*:(?=\s|$)""")
_LONE_TAG = re.compile(r"(?:&\S+\s+)?!")
_SECRETIVE = re.compile("pas|pwd|secr|tok|cred|dsn|auth|(?<!primary_)key", re.IGNORECASE)
_OPEN_SECTIONS = frozenset({"version", "pipeline", "streams", "defaults"})
_HARMLESS = frozenset({
    "version", "pipeline", "streams", "defaults", "primary_key", "cursor", "write", "target", "columns", "include",
    "exclude", "cast", "filter", "proof", "slices", "rows", "tags", "column", "nulls", "connection", "connector",
    "schema",
})  # fmt: skip

_HELP = {
    "mapping values are not allowed": "put text that contains ': ' into quotes, or correct the indentation",
    "could not find expected ':'": "write 'key: value'",
    "did not find expected key": "align this line with the keys above it",
    "did not find expected '-' indicator": "do not mix '- item' and 'key: value' at one indentation",
    "did not find expected ',' or": "close the bracket, or put a comma between the items",
    "found undefined alias": "define the anchor (&name) before it is used, or quote the '*'",
    "found unexpected end of stream": "close the quotes",
    "violates indentation": "indent with spaces; YAML does not allow tabs",
}


def open_document(file: Path) -> Document:
    """Read and parse a file. Raises ManifestError when it cannot be read, or `parse` refuses it."""
    name = display_path(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        help_ = "correct the path, or write a manifest with 'dpone init'"
        raise ManifestError([Problem("DP100", f"there is no file {name}", name, help=help_)]) from None
    except IsADirectoryError:
        help_ = f"name the file, such as {display_path(file / 'dpone.yaml')}"
        raise ManifestError([Problem("DP100", f"{name} is a folder", name, help=help_)]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        help_ = "correct the path or its permissions"
        raise ManifestError([Problem("DP100", f"reading {name}: {reason}", name, help=help_)]) from None
    document = parse(content, name)
    document.sha256 = hashlib.sha256(content).hexdigest()
    return document


def parse(content: bytes, name: str) -> Document:
    """Parse a file. Raises ManifestError with the position of what is malformed or refused."""
    if len(content) > MAX_BYTES:
        raise ManifestError([_whole(name, "DP112", f"{name} is larger than 1 MiB", help_="split it into several")])
    document = Document(name)
    text = _decode(content, document)
    document.lines = [*_BREAK.split(text), ""]  # libyaml places an empty value after the last line
    if match := _UNPRINTABLE.search(text):
        line, column = _position(text, match.start())
        message = f"the character U+{ord(match[0]):04X} is not allowed in YAML"
        raise _malformed(document, message, line, column, "remove it, or write it as an escape in double quotes")
    try:
        root = _Parser(text).get_single_node()
    except _RefusedError as error:
        line, column = error.mark.line, error.mark.column
        raise _malformed(document, error.message, line, column, error.help, code="DP112") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(document, error) from None
    except yaml.YAMLError:
        raise ManifestError([_whole(name, "DP109", f"{name} is not YAML", help_="save it as UTF-8 text")]) from None
    if root is not None:
        _Builder(document).build_root(root)
    return document


def from_data(data: Any, name: str = "") -> Document:
    """A document without positions from Python values; tuples count as lists.

    Raises ManifestError for a value that a manifest cannot hold.
    """
    document = Document(name)
    document.data = _plain(data, (), document, [0])
    return document


def core_scalar(text: str) -> Any:
    """The value of a plain scalar in the YAML 1.2 core schema."""
    value: Any = text
    if text in _NULL:
        value = None
    elif text in _BOOL:
        value = _BOOL[text]
    elif _DIGITS.fullmatch(text):  # longer ones stay text: a float would alter them
        value = int(text) if len(text) <= MAX_DIGITS else text
    elif _BASED.fullmatch(text):
        value = int(text[2:], 8 if text[1] == "o" else 16)
    elif _FLOAT.fullmatch(text):
        value = float(text)
    elif _INFINITE.fullmatch(text):
        value = float(text.replace(".", "", 1))
    return value


class _RefusedError(Exception):
    def __init__(self, message: str, help_: str, mark: Any) -> None:
        super().__init__(message)
        self.message = message
        self.help = help_
        self.mark = mark


_PLAIN, _QUOTED, _COLLECTION, _TAGGED = "plain", "quoted", "collection", "tagged"


class _Parser(CParser):
    """Composes nodes whose tag says only whether the text had a tag of its own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def resolve(self, kind: type, _value: Any, implicit: Any) -> str:
        """Called by the parser for a node without a tag, or with the tag `!`."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return _COLLECTION if implicit else _TAGGED

    def descend_resolver(self, parent: Any, _index: Any) -> None:
        """Called before a node is composed: the place to stop before the C stack does."""
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels", "flatten it", parent.start_mark)
        if self._nodes > 2 * MAX_VALUES:  # a key is a node too
            raise _RefusedError(f"more than {MAX_VALUES:,} values", "split the manifest", parent.start_mark)

    def ascend_resolver(self) -> None:
        """Called after a node is composed."""
        self._depth -= 1


class _Builder:
    """Builds plain values from nodes, collecting every problem that does not end the reading."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []
        self._count = 0

    def build_root(self, root: yaml.Node) -> None:
        self._document.values[()] = self._span(root)
        self._document.data = self._value(root, ())
        if self._problems:
            raise ManifestError(self._problems)

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            message = f"the document unfolds into more than {MAX_VALUES:,} values"
            self._refuse(path, message, "use fewer aliases (*name)")
        if len(path) > MAX_DEPTH:  # only through aliases: the parser stops at the same depth
            self._refuse(path, f"nested deeper than {MAX_DEPTH} levels", "do not alias (*name) an anchor inside itself")
        if _has_tag(node, self._document.lines):
            self._add("DP112", "YAML tags are refused", path, "a tag", "remove the word that begins with '!'")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                inner = (*path, index)
                self._document.values[inner] = self._span(item)
                items.append(self._value(item, inner))
            return items
        return self._scalar(str(node.value), node.tag == _PLAIN, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                self._document.keys[(*path, "?")] = self._span(key_node)
                self._add("DP102", "a key must be text", (*path, "?"), _kind(key_node), "write 'key: value'", key=True)
                continue
            # A key is what was written: `2024:` and `no:` are the texts "2024" and "no".
            key, inner = key_node.value, (*path, key_node.value)
            if key in result:
                first = self._document.where(inner, key=True)
                self._document.keys[inner] = self._span(key_node)
                message = f"the key {shown(key)} is given twice; the first is at {first}"
                self._add("DP111", message, inner, "", "remove one of them", key=True)
                continue
            self._document.keys[inner] = self._span(key_node)
            self._document.values[inner] = self._span(value_node)
            if _has_tag(key_node, self._document.lines):
                help_ = "remove the word that begins with '!'"
                self._add("DP112", "YAML tags are refused", inner, "a tag", help_, key=True)
            if key == "<<" and key_node.tag == _PLAIN:
                help_ = "write the keys out, or put them under 'defaults'"
                self._add("DP112", "YAML merge keys are refused", inner, "'<<'", help_, key=True)
                continue
            result[key] = self._value(value_node, inner)
        return result

    def _scalar(self, text: str, plain: bool, path: KeyPath) -> Any:  # noqa: FBT001 - one caller
        value = core_scalar(text) if plain else text
        if plain and isinstance(value, str) and _DIGITS.fullmatch(text):
            message = f"a number has at most {MAX_DIGITS} digits"
            self._add("DP102", message, path, "a longer number", "quote it to make it text")
        return value

    def _span(self, node: yaml.Node) -> Span:
        start, end = node.start_mark, node.end_mark
        if isinstance(node, yaml.CollectionNode) and not node.flow_style:
            return Span(start.line, start.column, start.line, len(self._document.lines[start.line]))
        return Span(start.line, start.column, end.line, end.column)

    def _add(self, code: str, message: str, path: KeyPath, found: str, help_: str, *, key: bool = False) -> None:
        document = self._document
        span = document.span(path, key=key) or Span(0, 0, 0, 1)
        problem = _at(document, code, message, span, help_, key_path=dotted(path), found=found)
        self._problems.append(problem)

    def _refuse(self, path: KeyPath, message: str, help_: str) -> None:
        self._add("DP112", message, path, "", help_)
        raise ManifestError(self._problems)


def _has_tag(node: yaml.Node, lines: list[str]) -> bool:
    if node.tag == _PLAIN:  # libyaml does not tell `! text` from `text`
        return _LONE_TAG.match(lines[node.start_mark.line], node.start_mark.column) is not None
    return node.tag not in (_QUOTED, _COLLECTION)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "nothing"


def _at(
    document: Document, code: str, message: str, span: Span, help_: str, *, key_path: str = "", found: str = ""
) -> Problem:
    """A problem of a text that is not understood yet: whatever may be a secret is hidden by the look of the line."""
    excerpt = _veiled(document.lines, span.line) if len(document.lines[span.line]) <= MAX_LINE else ""
    caret = min(span.column, len(excerpt))
    end = span.end if span.last == span.line else len(excerpt)
    return Problem(
        code=code,
        message=message,
        path=document.name,
        line=span.line + 1,
        column=span.column + 1,
        key_path=key_path,
        found=found,
        help=help_,
        excerpt=excerpt,
        caret=caret,
        width=max(1, min(end, len(excerpt)) - caret),
    )


def _veiled(lines: list[str], number: int) -> str:
    """A line of a text that cannot be parsed, in which only values of dpone's own harmless keys are shown."""
    line = "".join(letter if letter.isprintable() else " " for letter in lines[number])
    section = next((match["key"] for above in range(number, -1, -1) if (match := _TOP_KEY.match(lines[above]))), "")
    match = _KEY.match(line)
    if match is None:
        hidden = section not in _OPEN_SECTIONS or _SECRETIVE.search(line) or re.search("[{:@]", line)
        return "***" if hidden and line.strip() else line
    rest = line[match.end() :]
    open_ = section in _OPEN_SECTIONS and match["key"] in _HARMLESS and not re.search(r"[{\[].*:", rest)
    if open_ or not rest.strip():
        return mask(line)
    return line[: match.end()] + " ***"


def _syntax_error(document: Document, error: yaml.MarkedYAMLError) -> ManifestError:
    mark = error.problem_mark or error.context_mark
    if mark is None:  # libyaml gives a mark with every error; without one the file is still refused
        return ManifestError([_whole(document.name, "DP109", f"{document.name} is not YAML")])
    problem = str(error.problem)
    line, column = min(mark.line, len(document.lines) - 1), mark.column
    if error.context and "duplicate anchor" in error.context:
        return _malformed(document, "an anchor (&name) is defined twice", line, column, "rename one of them")
    if "another document" in problem:
        return _malformed(document, "a second document begins", line, column, "one manifest a file: remove the '---'")
    if problem == "found unexpected end of stream" and error.context_mark:
        line, column = error.context_mark.line, error.context_mark.column
        return _malformed(document, "a quoted text does not end", line, column, "close the quotes")
    character = document.lines[line][column : column + 1]
    help_ = next((text for words, text in _HELP.items() if words in problem), "")
    if "cannot start any token" in problem:
        if character == "\t":
            problem, help_ = "a tab is used for indentation", "indent with spaces; YAML does not allow tabs"
        else:
            problem, help_ = f"text cannot begin with {shown(character)}", "put the text into quotes"
    if document.lines[line][:column].strip() == "" and "\t" in document.lines[line][:column]:
        help_ = "indent with spaces; YAML does not allow tabs"
    return _malformed(document, problem, line, column, help_ or "look at the quotes and the indentation here and above")


def _malformed(
    document: Document, message: str, line: int, column: int, help_: str, *, code: str = "DP109"
) -> ManifestError:
    return ManifestError([_at(document, code, message, Span(line, column, line, column + 1), help_)])


def _whole(name: str, code: str, message: str, help_: str = "") -> Problem:
    return Problem(code, message, name, help=help_)


def _decode(content: bytes, document: Document) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError([_whole(document.name, "DP109", f"{document.name} is UTF-16", "save it as UTF-8")])
    content = content.removeprefix(b"\xef\xbb\xbf")  # editors on Windows write a byte order mark
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        document.lines = _BREAK.split(before + "\ufffd")
        line, column = _position(before, len(before))
        message = f"the byte 0x{content[error.start]:02X} is not UTF-8"
        raise _malformed(document, message, line, column, "save the file as UTF-8") from None


def _position(text: str, index: int) -> tuple[int, int]:
    lines = _BREAK.split(text[:index])
    return len(lines) - 1, len(lines[-1])


def _plain(value: Any, path: KeyPath, document: Document, count: list[int]) -> Any:
    count[0] += 1
    if len(path) > MAX_DEPTH or count[0] > MAX_VALUES:
        raise ManifestError([document.problem("DP112", "the manifest is too deep or too large", path)])
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if re.search("[\ud800-\udfff]", value):
            help_ = "remove the surrogates"
            raise ManifestError([document.problem("DP102", "text is not valid Unicode", path, help=help_)])
        return str(value)
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str) or not key:
                raise ManifestError([document.problem("DP102", "a key must be text", path, found=type(key).__name__)])
            result[_plain(key, path, document, count)] = _plain(item, (*path, key), document, count)
        return result
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), document, count) for index, item in enumerate(value)]
    found = f"a {type(value).__name__}"
    help_ = "use text, numbers, booleans, lists and mappings"
    raise ManifestError([document.problem("DP102", f"{found} is not a manifest value", path, found=found, help=help_)])


class _Dumper(CSafeDumper):
    """Block mappings, lists of scalars on one line, nothing for null."""


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """A manifest as YAML, in the order of its keys, quoted where YAML 1.1 or 1.2 would read something else.

    Raises ManifestError for a value that a manifest cannot hold. `load_manifest` reads back equal data.
    """
    data = from_data(manifest).data
    blocks = [_dump({key: value}) for key, value in data.items()]
    text = ""
    for block, (_key, value) in zip(blocks, data.items(), strict=True):
        roomy = isinstance(value, dict) and value
        text += ("\n" if roomy and text else "") + block
    return text or "{}\n"


def _dump(data: Any) -> str:
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, indent=2))


def _represent_list(dumper: Any, items: list[Any]) -> Any:
    flow = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


def _represent_dict(dumper: Any, items: dict[str, Any]) -> Any:
    node = dumper.represent_mapping("tag:yaml.org,2002:map", items.items(), flow_style=False)
    for _key, value in node.value:
        if value.tag == "tag:yaml.org,2002:null":
            value.value = ""
    return node


def _exactly(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?:{pattern.pattern})\\Z")


_Dumper.ignore_aliases = lambda _self, _data: True  # type: ignore[method-assign, assignment]
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_dict)
# Texts that YAML 1.2 reads as numbers and YAML 1.1 does not need quotes too.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _exactly(_DIGITS), list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _exactly(_BASED), ["0"])
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _exactly(_FLOAT), list("-+.0123456789"))
