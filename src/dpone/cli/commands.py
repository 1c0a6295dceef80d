"""The commands. Each one parses its options, calls the API, renders the answer and returns an exit code.

At import only click is loaded; the API behind `dpone.<name>` is loaded when a command uses it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dpone
from dpone.cli import render
from dpone.cli.progress import progress
from dpone.cli.terminal import (
    CHANGES,
    ENVIRONMENT,
    EXIT_CODES,
    FAILED,
    LOCKED,
    OK,
    REFUSED,
    UNPROVEN,
    Terminal,
    common,
    exit_code,
    option,
    worst,
)
from dpone.errors import ConfigError, DponeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dpone.api import RunResult

_SHARED = ("file", "select", "exclude", "json", "log_format", "quiet", "verbose", "debug")


class Command(click.Command):
    """A command whose help shows its own options first, the shared ones after them, and examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click has it
        """Write the examples, each as it can be copied."""
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in self.examples))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two groups."""
        params = {param.name: param for param in self.get_params(ctx)}
        own = [param for name, param in params.items() if name not in _SHARED and isinstance(param, click.Option)]
        shared = [params[name] for name in _SHARED if name in params]
        for title, group in (("Options", own), ("Common options", shared)):
            records = [record for param in group if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Commands(click.Group):
    """The group; its help lists the commands in the order of use and ends with the exit codes."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """In the order in which they are defined."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the exit codes and where values come from."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES])
        formatter.write_paragraph()
        formatter.write_text(
            "Every option is also an environment variable, DPONE_ and its name: DPONE_FILE, DPONE_LOG_FORMAT. "
            "Results go to stdout, progress and errors to stderr."
        )


@click.group(cls=Commands, context_settings=ENVIRONMENT)
@click.version_option(dpone.__version__, prog_name="dpone", message="%(prog)s %(version)s")
def cli() -> None:
    """Move data between systems, exactly once, and prove it. Start with: dpone init."""


def command(name: str, *examples: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """Register a command with the common options. Its examples run as they stand, but for their hosts and names."""

    def register(function: Callable[..., int | None]) -> click.Command:
        return cli.command(name, context_settings=ENVIRONMENT, examples=examples)(common(function))

    return register


def with_manifest(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """The options of commands that read a manifest."""
    for decorate in (
        option("--exclude", multiple=True, metavar="STREAM", help="Leave these out; same grammar as --select."),
        option(
            "-s",
            "--select",
            multiple=True,
            metavar="STREAM",
            help="Names, globs, tag:WORD, result:error. Repeat or use blanks for any of them, commas for all of them.",
        ),
        option("-f", "--file", default="dpone.yaml", metavar="PATH", help="The manifest."),
    ):
        function = decorate(function)
    return function


with_json = option("--json", is_flag=True, help="Print the result as JSON on stdout.")


@command("init", "dpone init", "dpone init --source postgres://me@localhost/shop --sink warehouse.duckdb")
@with_json
@option("--source", metavar="URL", help="Where to read: a URL or a file.")
@option("--sink", metavar="URL", help="Where to write: a URL or a file.")
@option("--pipeline", metavar="NAME", help="The name of the pipeline.")
@option("--example", is_flag=True, help="Write a small example that runs without any server.")
@option("-f", "--file", default="dpone.yaml", metavar="PATH", help="The manifest to write.")
@option("-y", "--yes", is_flag=True, help="Overwrite files that exist.")
def init(
    terminal: Terminal,
    source: str | None,
    sink: str | None,
    pipeline: str | None,
    example: bool,  # noqa: FBT001 - click passes options by name
    file: str,
    yes: bool,  # noqa: FBT001
) -> int:
    """Write a manifest: from a live source, or a small example.

    With --source and --sink the streams, keys and cursor candidates of the source are written into it. Without
    them it asks, and without a terminal it writes the example. A password in a URL is never written.
    """
    from dpone import starter

    if not example and source is None and sink is None and _interactive():
        source = click.prompt("Source (URL or file, empty for a runnable example)", default="", err=True) or None
        if source:
            sink = click.prompt("Sink (URL or file)", default="warehouse.duckdb", err=True)
    if source is None or sink is None or example:
        if source is not None or sink is not None:
            raise click.UsageError("--source and --sink go together, and not with --example")
        draft = starter.example(file)
    else:
        draft = starter.discovered(source, sink, file=file, pipeline=pipeline or "", use=terminal.use)
    written = starter.write(draft.files, overwrite=yes)
    if terminal.as_json:
        terminal.document({"written": list(map(str, written)), "notes": list(draft.notes), "next": draft.following})
        return OK
    terminal.result("\n".join([*(f"wrote {path}" for path in written), *draft.notes, f"next: {draft.following}"]))
    return OK


@command("check", "dpone check", "dpone check -s orders --json")
@with_manifest
@with_json
def check(terminal: Terminal, file: str, select: Sequence[str], exclude: Sequence[str]) -> int:
    """Check the manifest, the connections and all decisions.

    Connects to both ends and reads no data. All mistakes of the manifest are shown at once.
    """
    manifest = terminal.load(file)
    found = dpone.check(manifest, select=select, exclude=exclude)
    refused = [preview.refusal for preview in found if preview.refusal is not None]
    code = worst(refused)
    if terminal.as_json:
        streams = [preview.as_dict() for preview in found]
        terminal.document({"pipeline": manifest.pipeline, "streams": _clean(terminal, streams), "exit_code": code})
        return code
    if not terminal.quiet:
        terminal.result(f"✓ {file}: pipeline {manifest.pipeline}, version 1")
        terminal.result(f"✓ source {manifest.source.display}")
        terminal.result(f"✓ sink {manifest.sink.display}")
    for preview in found:
        if preview.refusal is not None or not terminal.quiet:
            terminal.result(terminal.redact(render.check_line(preview)))
    return code


@command("plan", "dpone plan", "dpone plan -s orders -v")
@with_manifest
@with_json
@option("--detailed-exitcode", is_flag=True, help="Exit with 10 when there is something to do.")
def plan(
    terminal: Terminal,
    file: str,
    select: Sequence[str],
    exclude: Sequence[str],
    detailed_exitcode: bool,  # noqa: FBT001
) -> int:
    """Show what a run would do: reads, types, drift, DDL and SQL. Nothing is written."""
    found = dpone.plan(terminal.load(file), select=select, exclude=exclude)
    code = worst([preview.refusal for preview in found.refusals if preview.refusal is not None])
    if code == OK and detailed_exitcode and render.has_changes(found):
        code = CHANGES
    if terminal.as_json:
        terminal.document(_clean(terminal, found.as_dict() | {"exit_code": code}))
    else:
        terminal.result(terminal.redact(render.plan_text(found, verbose=terminal.verbose)))
    return code


@command("run", "dpone run", "dpone run -s tag:daily --exclude orders --threads 4")
@with_manifest
@with_json
@option("--plan-digest", metavar="DIGEST", help="Refuse unless the plan still has this digest.")
@option("--threads", type=click.IntRange(min=1), default=2, help="Streams that run side by side.")
@option("--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for a lock at most so long.")
@option("--fail-fast", is_flag=True, help="Stop everything at the first failure.")
def run(
    terminal: Terminal,
    file: str,
    select: Sequence[str],
    exclude: Sequence[str],
    plan_digest: str | None,
    threads: int,
    wait: float,
    fail_fast: bool,  # noqa: FBT001
) -> int:
    """Move every stream of the manifest and prove it.

    Ctrl-C once finishes the current batch and keeps what is durable; the next run continues there.
    """
    manifest = terminal.load(file)
    with progress(terminal) as shown, terminal.stop(shown) as stop:
        result = dpone.run(
            manifest,
            select=select,
            exclude=exclude,
            plan_digest=plan_digest,
            threads=threads,
            wait=wait,
            fail_fast=fail_fast,
            on_event=shown,
            stop=stop.event,
        )
    named = [] if file == "dpone.yaml" else ["-f", file]
    again = shlex.join(["dpone", "run", *named, "-s", "result:error"])
    return _finished(terminal, result, stop.code(result.exit_code), [], again)


def _finished(terminal: Terminal, result: RunResult, code: int, remarks: Sequence[str], again: str = "") -> int:
    """Print the end of a run. `again` is the command that does what failed once more."""
    record = result.record
    if terminal.as_json:
        terminal.document(record.as_dict() | {"exit_code": code})
    elif not terminal.quiet:
        lines = [render.run_table(record), *remarks, render.run_totals(record, _near(result.path))]
        if again and not result.ok and code != LOCKED:
            lines.append(f"{'fix it, then' if record.status == 'failed' else 'to go on'}: {again}")
        terminal.result("\n".join(lines))
    return code


def _near(path: Path | None) -> Path | None:
    """The path from here, when it is below."""
    return path.relative_to(Path.cwd()) if path and path.is_absolute() and path.is_relative_to(Path.cwd()) else path


@command(
    "copy",
    "dpone copy orders.csv lake.duckdb",
    "dpone copy 'postgres://me@localhost/shop?table=public.orders' lake.duckdb --cursor updated_at",
)
@click.argument("source", metavar="SOURCE")
@click.argument("sink", metavar="SINK")
@option("--table", metavar="NAME", help="What to copy, when SOURCE holds several; the same as ?table= in its URL.")
@option("--target", metavar="NAME", help="The table to write; the same as ?table= in the URL of SINK.")
@option("--write", metavar="MODE", help="replace, append, merge or append_snapshot.  [default: by cursor and key]")
@option("--primary-key", multiple=True, metavar="COLUMN", help="Repeat it for a key of several columns.")
@option("--cursor", metavar="COLUMN", help="Copy only what is new since the last time, by this column.")
@option("--proof", metavar="LEVEL", help="none, counts or digest.")
@option("--save", metavar="PATH", help="Write the manifest of this copy as well.")
@option("-y", "--yes", is_flag=True, help="Let --save overwrite a file.")
@with_json
def copy(
    terminal: Terminal,
    source: str,
    sink: str,
    table: str | None,
    target: str | None,
    write: str | None,
    primary_key: Sequence[str],
    cursor: str | None,
    proof: str | None,
    save: str | None,
    yes: bool,  # noqa: FBT001
) -> int:
    """Copy one table or file without a manifest.

    SOURCE and SINK are URLs or files (.csv .jsonl .parquet .duckdb .sqlite .db).
    """
    from dpone import starter
    from dpone.manifest.load import manifest_from_dict

    if save is not None and not yes and Path(save).exists():
        raise click.UsageError(f"{save} exists; pass --yes to overwrite it")
    wanted = {
        "target": target, "write": write, "primary_key": list(primary_key), "cursor": cursor, "proof": proof
    }  # fmt: skip
    draft = starter.one_stream(
        source, sink, table=table or "", settings={k: v for k, v in wanted.items() if v}, use=terminal.use
    )
    manifest = terminal.use(manifest_from_dict(draft.manifest))
    with progress(terminal) as shown, terminal.stop(shown) as stop:
        result = dpone.run(manifest, on_event=shown, stop=stop.event, store=".dpone")
    remarks = [render.chosen_mode(stream, write=write or "", cursor=cursor or "") for stream in result.streams]
    if save is not None and result.ok:
        text, notes = starter.saved(draft)
        remarks += [f"saved: {path}" for path in starter.write({Path(save): text}, overwrite=yes)] + notes
    elif save is not None:
        remarks.append(f"{save} was not written, because the copy did not succeed")
    return _finished(terminal, result, stop.code(result.exit_code), remarks if result.ok or save else [])


@command("verify", "dpone verify", "dpone verify -s orders --json")
@with_manifest
@with_json
def verify(terminal: Terminal, file: str, select: Sequence[str], exclude: Sequence[str]) -> int:
    """Compare source and sink now, by digest. Exits with 4 when they differ.

    Rows of the source past the last checkpoint are pending, not differences.
    """
    found = dpone.verify(terminal.load(file), select=select, exclude=exclude)
    errors = [item for item in found if isinstance(item, DponeError)]
    compared = [item for item in found if not isinstance(item, DponeError)]
    different = any(not item.equal for item in compared)
    code = UNPROVEN if different else worst(errors) or max((UNPROVEN for c in compared if c.skipped), default=OK)
    if terminal.as_json:
        streams = [
            {"stream": item.stream, "error": item.as_dict()}
            if isinstance(item, DponeError)
            else asdict(item)
            | {"source": str(item.source), "sink": str(item.sink), "source_rows": item.source.rows}
            | {"sink_rows": item.sink.rows, "verdict": item.verdict}
            for item in found
        ]
        terminal.document({"streams": _clean(terminal, streams), "exit_code": code})
        return code
    if compared and not (terminal.quiet and code == OK):
        terminal.result(render.verify_text(found))
    for error in errors:
        terminal.error(error)
    return code


@command("status", "dpone status", "dpone status -s orders --json")
@with_manifest
@with_json
@option("--limit", type=click.IntRange(min=0), default=5, help="Local runs to list.")
def status(terminal: Terminal, file: str, select: Sequence[str], exclude: Sequence[str], limit: int) -> int:
    """Show the last load of every stream and the last runs.

    Loads and checkpoints come from the sink, runs from the records beside the manifest.
    """
    manifest = terminal.load(file)
    streams = dpone.status(manifest, select=select, exclude=exclude)
    runs = dpone.history(manifest, limit=limit)
    failures = {stream.failure["category"] for stream in streams if stream.failure}
    code = OK if not failures else REFUSED if failures <= {"config", "schema"} else FAILED
    if terminal.as_json:
        found = [asdict(stream) for stream in streams]
        terminal.document({"streams": _clean(terminal, found), "runs": runs, "exit_code": code})
    else:
        terminal.result(terminal.redact(render.status_text(streams, runs)))
    return code


@command("schema", "dpone schema > dpone.schema.json", "dpone schema | less")
def schema(terminal: Terminal) -> None:
    """Print the JSON Schema of the manifest, for editors."""
    terminal.document(dpone.json_schema())


@command("connectors", "dpone connectors", "dpone connectors --json")
@with_json
def connectors(terminal: Terminal) -> None:
    """List the connectors and what each can do.

    Where one cannot do something, it says why and what to do instead.
    """
    # Not dpone.connectors: once a connector is loaded, that name is the package of them.
    from dpone import installed_connectors as installed

    found = installed()
    if not terminal.as_json:
        terminal.result(render.connectors_text(found))
        return
    terminal.document([_connector(item) for item in found.values()])


def _connector(connector: Any) -> Mapping[str, Any]:
    from dpone.sdk import Capability

    return {
        "name": connector.name,
        "title": connector.title,
        "schemes": list(connector.schemes),
        "extra": connector.extra,
        "capabilities": {c.value: asdict(connector.supports(c)) for c in Capability},
    }


@command("certify", "dpone certify sqlite", "dpone certify sqlite duckdb --evidence evidence -- --numprocesses 2")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@option("--evidence", metavar="DIR", help="Keep what was executed, one JSON file for each connector.")
@with_json
def certify(terminal: Terminal, names: Sequence[str], evidence: str | None) -> int:
    """Execute the certification kit for installed connectors and compute their levels.

    Needs pytest and the systems themselves. NAME `types` runs every type case between all systems instead. What comes
    after -- goes to pytest.
    """
    import tempfile

    from dpone.testing.certify import certify as execute

    wanted, arguments = _split(names)
    if wanted == ["types"]:
        return _certify_types(terminal, evidence)
    with tempfile.TemporaryDirectory() as folder:
        found = execute(wanted, Path(evidence or folder), arguments)
    code = FAILED if any(certificate.failed for certificate in found) else OK
    if terminal.as_json:
        terminal.document([certificate.evidence for certificate in found])
    else:
        terminal.result(render.certificates_text(found))
    return code


def _certify_types(terminal: Terminal, evidence: str | None) -> int:
    import json

    from dpone.testing.certify import certify_types

    matrix = certify_types(lambda route: None if terminal.quiet else click.echo(route, err=True))
    document = matrix.as_dict()
    if evidence is not None:
        Path(evidence).mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (Path(evidence) / "types.json").write_text(text + "\n", encoding="utf-8")
    if terminal.as_json:
        terminal.document(document)
    else:
        terminal.result(render.types_text(document))
    return FAILED if matrix.problems else OK


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of connectors, and what begins with the first word that is an option of pytest."""
    count = next((index for index, name in enumerate(names) if name.startswith("-")), len(names))
    return list(names[:count]), list(names[count:])


@command("reset", "dpone reset -s orders", "dpone reset -s tag:daily --yes")
@with_manifest
@with_json
@option("-y", "--yes", is_flag=True, help="Do not ask.")
def reset(terminal: Terminal, file: str, select: Sequence[str], exclude: Sequence[str], yes: bool) -> int:  # noqa: FBT001
    """Forget the state of streams.

    That is receipts, open loads and staging. The rows of the target stay. The next run of the stream loads everything.
    """
    if not select:
        raise click.UsageError("reset needs --select; -s '*' is every stream")
    manifest = terminal.load(file)
    if not yes:
        if not _interactive():
            raise click.UsageError("reset needs --yes when there is no terminal to ask on")
        click.confirm(f"Forget the state of {' '.join(select)} in {manifest.sink.display}?", abort=True, err=True)
    done = dpone.reset(manifest, select=select, exclude=exclude)
    if terminal.as_json:
        terminal.document({"reset": done, "exit_code": OK})
    else:
        terminal.result("\n".join(f"reset {name}; its rows stay" for name in done))
    return OK


@command(
    "completion",
    "dpone completion bash > ~/.local/share/bash-completion/completions/dpone",
    "source <(dpone completion zsh)",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(terminal: Terminal, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"no completion for {shell}", remedy="use bash, zsh or fish")
    terminal.result(found(cli, {}, "dpone", "_DPONE_COMPLETE").source())


def _interactive() -> bool:
    """Whether a question can be asked and answered."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI")


def _clean(terminal: Terminal, value: Any) -> Any:
    from dpone.events import redacted

    return redacted(value, terminal.redact)


__all__ = ["cli", "exit_code"]
