"""References in the manifest (`${env:NAME}`, `${file:/path}`), what they stand for, and keeping it out of messages.

`$${` is a literal `${`. A name is looked up in the environment, then in `.env` beside the manifest, whose values
never enter the environment. The contents of a file lose one line break at their end.
"""

from __future__ import annotations

import os
import re
import threading
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote, unquote

_TOKEN = re.compile(r"\$(?P<escape>\$)\{|\$\{(?P<body>[^{}]*)\}|(?P<open>\$\{)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = ("env", "file")
_MAX_FILE = 64 * 1024
_SHORTEST_SECRET = 4

# The greedy middle part takes in passwords that hold '@', '/' or quotes although they should be percent-encoded.
_USERINFO = re.compile(r"(?P<head>(?:[A-Za-z][\w+.-]*://)?[^\s:/@'\"]*:(?!//))(?P<secret>[^\s]+)@")
_PARAMETER = re.compile(
    r"(?P<head>(?:pass(?:word|wd)?|pwd|secret|token|api_?key)=)(?P<secret>[^\s&;'\"]+)", re.IGNORECASE
)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")


class ReferenceProblem(Exception):
    """Why a reference has no value, and what to do. Holds no secret."""

    def __init__(self, message: str, help_: str) -> None:
        super().__init__(message)
        self.message = message
        self.help = help_


class Redactor:
    """Knows every secret value met so far and takes them out of texts. Values under four characters are not masked.

    A value that came from a reference is replaced by that reference, a literal one by `***`.
    """

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def add(self, value: str, shown: str = "***") -> None:
        """Remember a secret."""
        if len(value) < _SHORTEST_SECRET:
            return
        with self._lock:
            self._shown.setdefault(value, shown)
            longest_first = sorted(self._shown, key=len, reverse=True)
            self._pattern = re.compile("|".join(_literal(secret) for secret in longest_first))

    def redact(self, text: str) -> str:
        """The text without the secrets."""
        pattern = self._pattern
        return pattern.sub(lambda match: self._shown[match[0]], text) if pattern else text

    def __repr__(self) -> str:
        return f"Redactor({len(self._shown)} values)"


def _literal(secret: str) -> str:
    # A number is masked only where it stands alone, so that the port 5432 does not break the count 154321.
    return rf"(?<![0-9]){secret}(?![0-9])" if secret.isdecimal() else re.escape(secret)


class Secrets:
    """Resolves the references of one manifest. `folder` is where the manifest is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dotenv: dict[str, str] | None = None
        self.redactor = Redactor()

    def variable(self, name: str) -> str | None:
        """The value of a variable, or None. Raises ReferenceProblem when `.env` is malformed."""
        if name in os.environ:
            return os.environ[name]
        if self._dotenv is None:
            self._dotenv = _read_dotenv(self._folder / ".env")
        return self._dotenv.get(name)

    def resolve(self, text: str, *, secret: bool = True) -> str:
        """The text with its references replaced. Raises ReferenceProblem.

        In a URL, what stands before the `@` is percent-encoded, so that a password may hold any character.
        `secret=False` is for names that are shown anyway and must not be redacted.
        """
        userinfo = _userinfo_end(text)

        def value(match: re.Match[str]) -> str:
            if match["escape"]:
                return "${"
            found = self._lookup(match)
            if secret:
                self._remember(found, match[0])
            return quote(found, safe="") if match.start() < userinfo else found

        return _TOKEN.sub(value, text)

    def _remember(self, found: str, reference: str) -> None:
        self.redactor.add(found, reference)
        self.redactor.add(found.strip(), reference)
        self.redactor.add(quote(found, safe=""), reference)
        self.remember_url(found)

    def remember_url(self, url: str) -> None:
        """Remember the password of a URL, as written and decoded."""
        end = _userinfo_end(url)
        if end:
            password = url[:end].partition("://")[2].partition(":")[2]
            self.redactor.add(password)
            self.redactor.add(unquote(password))
        for match in _PARAMETER.finditer(url):
            self.redactor.add(match["secret"])
            self.redactor.add(unquote(match["secret"]))

    def _lookup(self, match: re.Match[str]) -> str:
        kind, name = _parts(match)
        if kind == "file":
            return self._file(name)
        found = self.variable(name)
        if found is None:
            known = [*os.environ, *(self._dotenv or {})]
            close = get_close_matches(name, known, n=1, cutoff=0.85)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ReferenceProblem(f"the variable {name} is not set", f"set it in the environment or in .env{hint}")
        return found

    def _file(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(_MAX_FILE + 1)
            if len(content) > _MAX_FILE:
                raise ReferenceProblem(f"the file {name} is larger than 64 KiB", "name a file that holds one value")
            text = content.decode("utf-8")
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not UTF-8 text"
            raise ReferenceProblem(f"reading the file {name}: {reason}", "correct the path or the file") from None
        return text.removesuffix("\n").removesuffix("\r")


def has_reference(text: str) -> bool:
    """Whether a text holds a reference or an escaped one, so that it is not yet what it will be."""
    return _TOKEN.search(text) is not None


def is_reference(text: str) -> bool:
    """Whether a text is exactly one reference."""
    match = _TOKEN.fullmatch(text)
    return match is not None and match["body"] is not None


def check_references(text: str) -> None:
    """Raise ReferenceProblem when a reference is malformed; nothing is looked up."""
    for match in _TOKEN.finditer(text):
        if not match["escape"]:
            _parts(match)


def mask(text: str) -> str:
    """The text with `***` for the passwords of URLs; references stay."""
    return _PARAMETER.sub(_masked, _USERINFO.sub(_masked_userinfo, text))


def _masked_userinfo(match: re.Match[str]) -> str:
    head, secret = match["head"], match["secret"]
    whole = head + secret
    if "${" in whole:  # a reference holds a colon: find the one that ends the user
        plain = _TOKEN.sub(lambda token: "x" * len(token[0]), whole)
        start = plain.find("://")
        colon = plain.find(":", start + 3 if start >= 0 else 0)
        if colon < 0:
            return match[0]
        head, secret = whole[: colon + 1], whole[colon + 1 :]
    return f"{head}{secret if is_reference(secret) else '***'}@"


def _masked(match: re.Match[str]) -> str:
    return match["head"] + (match["secret"] if is_reference(match["secret"]) else "***")


def scheme_of(text: str) -> str:
    """The scheme of a URL as written, or an empty string."""
    match = _URL.match(text)
    return match["scheme"] if match else ""


def _userinfo_end(text: str) -> int:
    """The index of the `@` that ends the userinfo of a URL; 0 when there is none."""
    plain = _TOKEN.sub(lambda token: "x" * len(token[0]), text)
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*@", plain)
    return match.end() - 1 if match else 0


def _parts(match: re.Match[str]) -> tuple[str, str]:
    if match["open"]:
        raise ReferenceProblem("a reference does not end", "close it with '}', or write '$${' for a literal '${'")
    kind, colon, name = match["body"].partition(":")
    if not colon:
        example = f"${{env:{kind}}}" if _NAME.fullmatch(kind) else "${env:NAME}"
        raise ReferenceProblem("a reference without a kind", f"write '{example}', or '$${{' for a literal '${{'")
    if kind not in _KINDS:
        close = get_close_matches(kind.lower(), _KINDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "write ${env:NAME} or ${file:/path}"
        raise ReferenceProblem("a reference of an unknown kind", hint)
    if not name or "\0" in name or (kind == "env" and not _NAME.fullmatch(name)):
        raise ReferenceProblem("a reference without a proper name", "write ${env:NAME} or ${file:/path}")
    return kind, name


_DOTENV = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
        (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s'"#](?:[^\n]*?[^\s])??)?)
        [ \t]*(?:(?<=\s)\#[^\n]*|(?<=')\#[^\n]*|(?<=")\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def _read_dotenv(path: Path) -> dict[str, str]:
    """`NAME=value` lines; quotes as in a shell, `#` begins a comment after a blank. Nothing is interpolated."""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ReferenceProblem("reading .env beside the manifest", "make it a readable UTF-8 file") from None
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if match := _BLANK.match(text, at):
            pass
        elif match := _DOTENV.match(text, at):
            if match["double"] is not None:
                value = re.sub(r"\\(.)", lambda e: _ESCAPES.get(e[1], e[1]), match["double"], flags=re.DOTALL)
            else:
                value = match["single"] if match["single"] is not None else match["bare"] or ""
            found[match["name"]] = value
        else:
            line = text.count("\n", 0, at) + 1
            raise ReferenceProblem(f".env:{line} is not NAME=value", "correct the line, or close its quotes")
        at = match.end()
    return found
