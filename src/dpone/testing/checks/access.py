"""C1 configuration, C2 credentials, C3 what cannot work, C19 documentation, C20 capabilities."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import dpone
from dpone.errors import ConfigError, DponeError
from dpone.manifest.load import manifest_from_dict
from dpone.sdk import Capability
from dpone.testing.found import folder_of
from dpone.testing.harness import Harness, Role, sample_rows
from dpone.testing.kit import Checks, Route, certifies, inapplicable
from dpone.testing.memory.harness import MemoryHarness
from dpone.testing.plugin import certification

SECRET = re.compile(r"password|secret|token|credential|private_key|api_?key")
PLANTED = "pl4nted-s3cret-value"
LONGEST_S = 10.0
_SETTINGS_OF_ANY = {"connector", "schema"}


class AccessChecks(Checks):
    """What holds for a connector whatever is moved: its settings, its errors, its own word about itself."""

    # -- C1: configuration ----------------------------------------------------------------------------------------

    @certifies("C1")
    def test_a_missing_setting_is_named(self, harness: Harness, role: Role) -> None:
        """Without a required setting nothing is connected, and the error names the setting."""
        for name in self._required():
            settings = {key: value for key, value in harness.endpoint(role).items() if key != name}
            error = self._refused(harness, role, settings)
            assert name in error.message + error.remedy, error

    @certifies("C1")
    def test_optional_settings_may_be_absent(self, harness: Harness, role: Role) -> None:
        """The required settings alone are a configuration."""
        model, wanted = self.described().config_model(), {*self._required(), *_SETTINGS_OF_ANY}
        settings = {key: value for key, value in harness.endpoint(role).items() if key in wanted}
        config = manifest_from_dict(self._manifest(harness, role, settings))
        assert isinstance(getattr(config, role).config(), model)

    @certifies("C1")
    def test_an_unknown_setting_is_refused_with_a_suggestion(self, harness: Harness, role: Role) -> None:
        """Every setting, misspelt, is an error that names it and says what was meant."""
        for name in self._fields():
            wrong = name[:-1] + name[-1] * 2
            error = self._refused(harness, role, harness.endpoint(role) | {wrong: "x"})
            text = f"{error.message} {error.remedy}"
            assert wrong in text, error
            assert f"did you mean '{name}'?" in text, error

    @certifies("C1")
    def test_released_configurations_load(self) -> None:
        """Every configuration that was ever released means what it meant: `[[configuration]]` in certification.toml."""
        released = certification(self.described()).get("configuration", [])
        assert released, "certification.toml lists no [[configuration]]: an entry for each form that users have"
        for entry in released:
            config = self.described().config_model()(**entry["settings"])
            found = json.loads(config.model_dump_json())
            assert entry["means"] == {key: found[key] for key in entry["means"]}

    # -- C2: credentials ------------------------------------------------------------------------------------------

    @certifies("C2")
    def test_secrets_are_marked(self, harness: Harness) -> None:
        """A setting that holds a secret shows it nowhere."""
        for name in self._secrets():
            settings = harness.endpoint("source") | {name: PLANTED}
            config = self._config(settings)
            assert PLANTED not in f"{config!r} {config} {config.identity} {config.model_dump_json()}"

    @certifies("C2")
    def test_a_wrong_password_is_an_auth_error(
        self, harness: Harness, memory: MemoryHarness, role: Role, tmp_path: Path
    ) -> None:
        """Wrong credentials are one error of the category auth, and are not tried again."""
        self._secrets()
        (harness if role == "source" else memory).put("t", sample_rows(range(5)))
        settings, category = harness.mistakes(role)["password"]
        assert "auth" == category
        [stream] = dpone.run(self._manifest(harness, role, settings, memory), store=tmp_path / "store").streams
        assert stream.failure is not None
        assert ("auth", 0) == (stream.failure["category"], stream.retries["total"])

    @certifies("C2")
    def test_secrets_appear_in_no_output(
        self, harness: Harness, memory: MemoryHarness, role: Role, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A planted secret is in no record, event, plan, error or local file.

        Neither of a run that works nor of one that does not.
        """
        secrets = dict.fromkeys(self._secrets(), PLANTED)
        (harness if role == "source" else memory).put("t", sample_rows(range(5)))
        broken = harness.mistakes(role)
        for settings in [harness.endpoint(role), *(found for found, _ in broken.values())]:
            manifest = self._manifest(harness, role, settings | secrets, memory)
            store = tmp_path / "store"
            shown = [repr(dpone.run(manifest, store=store).to_json())]
            try:
                shown.append(repr(dpone.plan(manifest).as_dict()))
            except DponeError as error:
                shown.append(f"{error!r} {error} {error.as_dict()}")
            shown += [path.read_text() for path in store.rglob("*") if path.is_file()]
            shown += capfd.readouterr()
            assert PLANTED not in "\n".join(shown)

    # -- C3: what cannot work -------------------------------------------------------------------------------------

    @certifies("C3")
    def test_what_cannot_work_is_one_clear_error(
        self, harness: Harness, memory: MemoryHarness, role: Role, tmp_path: Path
    ) -> None:
        """Each mistake ends within ten seconds in one error of the right category that says what to do."""
        mistakes = harness.mistakes(role)
        needed = {"host", "database", "privilege"} if "host" in self._fields() else set()
        assert needed <= set(mistakes), f"the harness makes no {needed - set(mistakes)}"
        (harness if role == "source" else memory).put("t", sample_rows(range(5)))
        if harness.served == "fake":
            inapplicable("nothing can be wrong with a fake")
        assert mistakes, "the harness makes no mistakes"
        for name, (settings, category) in mistakes.items():
            started = time.monotonic()
            [stream] = dpone.run(self._manifest(harness, role, settings, memory), store=tmp_path / "store").streams
            assert time.monotonic() - started < LONGEST_S, name
            assert stream.failure is not None, name
            assert category == stream.failure["category"], (name, stream.failure)
            assert stream.failure["remedy"], name
            assert "Traceback" not in stream.failure["message"]

    # -- C19: documentation ---------------------------------------------------------------------------------------

    @certifies("C19")
    def test_the_documentation_is_there(self) -> None:
        """The connector's folder has a README that names every setting, and every gap says why and what instead."""
        readme = folder_of(self.described()) / "README.md"
        assert readme.is_file(), "README.md is missing: settings, types, limits, pitfalls, privileges"
        text = readme.read_text(encoding="utf-8")
        assert [] == [name for name in self._fields() if f"`{name}`" not in text]
        connector = self.described()
        gaps = {c: connector.supports(c) for c in Capability if connector.supports(c).level != "full"}
        assert [] == [c for c, gap in gaps.items() if not (gap.why and gap.instead)]
        impossible = [c for c, gap in gaps.items() if gap.level == "impossible"]
        assert [] == [c for c in impossible if not gaps[c].reference.startswith("https://")], "cite its documentation"
        assert set(Capability) == set(connector.capabilities), "every capability is declared"

    # -- C20: capabilities ----------------------------------------------------------------------------------------

    @certifies("C20")
    def test_what_is_not_claimed_is_refused(self, harness: Harness, memory: MemoryHarness, tmp_path: Path) -> None:
        """Settings that need a capability which the connector lacks are refused before bytes move, in its own words."""
        refused = 0
        for role in self.roles():
            ends = (harness, memory) if role == "source" else (memory, harness)
            ends[0].put("t", sample_rows(range(5)))
            route = Route(tmp_path, *ends)
            for capability, settings in _NEEDS[role].items():
                support = self.described().supports(capability)
                if support.level != "full":
                    refused += 1
                    failure = route.refusal(**settings)
                    assert support.why in failure["message"] or support.instead in failure["remedy"], failure
        if not refused:
            inapplicable("it claims everything that a manifest can ask for")

    # -- what the checks share ------------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Any]:
        model: type[BaseModel] = self.described().config_model()
        return {field.alias or name: field for name, field in model.model_fields.items()}

    def _required(self) -> list[str]:
        return [name for name, field in self._fields().items() if field.is_required()]

    def _secrets(self) -> list[str]:
        found = [name for name in self._fields() if SECRET.search(name)]
        return found or inapplicable("no setting holds a secret")

    def _config(self, settings: Mapping[str, Any]) -> Any:
        return self.described().config_model()(**{k: v for k, v in settings.items() if k not in _SETTINGS_OF_ANY})

    def _manifest(
        self, harness: Harness, role: Role, settings: Mapping[str, Any], other: MemoryHarness | None = None
    ) -> dict[str, Any]:
        ends: dict[str, Any] = {
            "source": {"connector": "memory", "place": "nowhere"},
            "sink": {"connector": "memory", "place": "nowhere"},
        }
        if other is not None:
            ends = {"source": other.endpoint("source"), "sink": other.endpoint("sink")}
        table = harness.stream("t") if role == "source" else "t"
        streams = {table: {"target": "t"}}
        return {"version": 1, "pipeline": "certify", **ends, role: dict(settings), "streams": streams}

    def _refused(self, harness: Harness, role: Role, settings: Mapping[str, Any]) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            manifest_from_dict(self._manifest(harness, role, settings))
        return caught.value


_NEEDS: Mapping[Role, Mapping[Capability, Mapping[str, Any]]] = {
    "source": {
        Capability.READ_FILTER: {"filter": "id > 1"},
        Capability.READ_CAST: {"columns": {"cast": {"id": "text"}}},
        Capability.READ_CURSOR: {"cursor": "at", "write": "append"},
    },
    "sink": {
        Capability.WRITE_REPLACE: {"write": "replace"},
        Capability.WRITE_APPEND: {"write": "append", "cursor": "at"},
        Capability.WRITE_MERGE: {"write": "merge", "cursor": "at", "primary_key": ["id"]},
        Capability.WRITE_DELETE_INSERT: {"write": "delete_insert", "cursor": {"column": "at", "lookback": "0s"}},
        Capability.WRITE_SCD2: {"write": "scd2", "cursor": "at", "primary_key": ["id"]},
        Capability.WRITE_DEDUPLICATE: {"write": "append", "deduplicate": True, "cursor": "at", "primary_key": ["id"]},
        Capability.WRITE_HOOKS: {"hooks": {"before": ["SELECT 1"]}},
        Capability.PROOF_DIGEST: {"proof": "digest"},
    },
}
"""Settings of the sample stream that need a capability. The others show in a plan, not in a refusal."""
