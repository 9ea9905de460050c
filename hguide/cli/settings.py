"""What a sampled PNG carries: the settings that repeat it, as JSON in its text chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hguide.errors import ConfigError
from hguide.images import read_png

__all__ = ["KEYWORD", "Settings", "read_settings"]

KEYWORD, SCHEMA = "hguide", "hguide.sample/1"
REPEATED_BY = (
    "model_hash",
    "guidance",
    "sampler",
    "condition",
    "negative",
    "seed",
    "deterministic",
    "load",
    "lender_hashes",
)


@dataclass(frozen=True)
class Settings:
    """Everything that one image follows from, and where it was made.

    Attributes:
        model: name or path as given.
        tokenizer: path as given, or None.
        model_hash: `hguide.provenance.model_hash`.
        dtype: of the network.
        guidance: text form.
        sampler: `hguide.provenance.sampler_facts`.
        condition: class index or prompt.
        name: of the class, or the prompt.
        negative: content of the null condition, or None.
        seed: of the image.
        deterministic: whether it was sampled alone.
        conditions: of the batch it was sampled in.
        seeds: of that batch.
        place: in that batch.
        load: options of `hguide.load` as given, for instance a text encoder.
        lenders: models that lent streams, by name, as given.
        lender_hashes: their `hguide.provenance.model_hash`, by name.
        device: `hguide.provenance.device_facts`.
        versions: `hguide.provenance.versions`.
    """

    model: str
    tokenizer: str | None
    model_hash: str
    dtype: str
    guidance: str
    sampler: Mapping[str, Any]
    condition: Any
    name: str
    negative: Any
    seed: int
    deterministic: bool
    conditions: Sequence[Any] = ()
    seeds: Sequence[int] = ()
    place: int = 0
    load: Mapping[str, Any] = field(default_factory=dict)
    lenders: Mapping[str, str] = field(default_factory=dict)
    lender_hashes: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def same_image(self, other: Settings) -> list[str]:
        """The names of settings that differ, of those an image follows from; empty where it is the same image."""
        mine, others = (json.loads(json.dumps(asdict(each))) for each in (self, other))
        return [name for name in REPEATED_BY if mine[name] != others[name]]

    def chunks(self) -> dict[str, str]:
        """Text chunks: all as JSON, and the most asked for by themselves, for picture viewers."""
        whole = json.dumps({"schema": SCHEMA, **asdict(self)})
        return {
            KEYWORD: whole,
            "model": self.model,
            "guidance": self.guidance,
            "sampler": json.dumps(self.sampler),
            "condition": self.name,
            "seed": str(self.seed),
        }


def read_settings(path: Path) -> Settings:
    """The settings in a PNG that `hguide sample` wrote.

    Raises:
        ConfigError: no such file, no picture, or no settings of ours in it.
    """
    text = read_png(path)[1]
    if KEYWORD not in text:
        raise ConfigError(f"{path} carries no settings: it was not written by `hguide sample`, or was edited since.")
    try:
        facts = json.loads(text[KEYWORD])
        if facts["schema"] != SCHEMA:
            raise ConfigError(f"{path} carries settings of the form {facts['schema']!r}, asked for {SCHEMA!r}.")
        # What was added later has a default, which pictures from before it mean.
        wanted = [each.name for each in fields(Settings) if each.name in facts or each.default_factory is MISSING]
        return Settings(**{name: facts[name] for name in wanted})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: its settings are damaged ({error!r}).") from error
