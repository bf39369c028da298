"""`hstl-fast identify` with a gallery of people: a name or "nobody" for each probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings
from hstl_fast.cli.explained import embedded, explained
from hstl_fast.cli.found import FoundOptions, finish_input, open_input
from hstl_fast.cli.galleries import (
    NO_THRESHOLD,
    check_network,
    given_network,
    opened_gallery,
    take_cutting,
    threshold_of,
    walk_options,
)
from hstl_fast.cli.options import several
from hstl_fast.cli.output import (
    SomeFailed,
    only_first_process_prints,
    print_table,
    progress_bar,
    write_csv,
    write_json,
)
from hstl_fast.data.found import counted
from hstl_fast.embedding import SEQUENCES_OF_A_CHUNK
from hstl_fast.evaluation import Embeddings, is_embedding_file, load_embeddings
from hstl_fast.models.config import HSTLConfig
from hstl_fast.network import Network
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.explaining import Explanation
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import Answer
from hstl_fast.recognition.shards import Shards
from hstl_fast.recognition.thresholds import Threshold
from hstl_fast.recognition.together import follow, leading
from hstl_fast.recognition.walks import Cutting, Walks

NOBODY = "nobody"
# Matches of an answer: its margin and the agreement of its parts need others than the first.
_FEWEST_MATCHES = 5
_CSV_HEADER = (
    *("probe", "name", "margin", "threshold", "false_accept_rate"),
    *("rank", "person", "recording", "source", "distance", "agreement"),
)


def naming_options(command: Any) -> Any:
    """Decorate a command with the options of names, which `Naming.take` takes."""
    return several(
        click.option(
            "--threshold",
            metavar="DISTANCE",
            type=click.FloatRange(min=0),
            help="Greatest distance at which a probe gets a name of a gallery of people.",
        ),
        click.option(
            "--false-accept-rate",
            metavar="RATE",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="Choose the threshold from the gallery of people: the share of strangers who get a name, such as "
            "0.01.",
        ),
        click.option("--explain", is_flag=True, help="Say which parts of the body speak for the nearest person."),
        walk_options,
    )(command)


@dataclass(frozen=True)
class Naming:
    """The values of the options of `naming_options`."""

    threshold: float | None = None
    false_accept_rate: float | None = None
    explain: bool = False
    cutting: Cutting = field(default_factory=Cutting)

    @classmethod
    def take(cls, options: dict[str, Any]) -> Naming:
        """Take the values out of the keyword arguments that a command gets, and leave the others."""
        threshold, rate = options.pop("threshold"), options.pop("false_accept_rate")
        if threshold is not None and rate is not None:
            raise click.UsageError("--threshold, --false-accept-rate: expected one of them, got both")
        return cls(threshold, rate, options.pop("explain"), take_cutting(options))

    def given(self) -> list[str]:
        """Name the options that are given, as on a command line."""
        pairs = [*vars(self).items(), *vars(self.cutting).items()]
        usual = {**vars(Naming()), **vars(Cutting())}
        return [f"--{name.replace('_', '-')}" for name, value in pairs if name != "cutting" and value != usual[name]]


@dataclass(frozen=True)
class Wanted:
    """The wishes of how answers are told.

    Attributes:
        top: The length of each list of people; None: the first is printed, and five are written.
        csv_file: A file for the lists, or None.
        json_file: A file for all answers, or None.
    """

    top: int | None
    csv_file: Path | None
    json_file: Path | None

    @property
    def count(self) -> int:
        """The matches to ask for."""
        return max(self.top or 0, _FEWEST_MATCHES)


def name_probes(
    url: str, probes: Sequence[Path], naming: Naming, found: FoundOptions, settings: Settings, wanted: Wanted
) -> None:
    """Name the people in probes, and tell the answers; processes that torchrun has started share the search.

    Args:
        url: The gallery.
        probes: Videos, silhouettes and embedding files.
        naming: The threshold, and how people are cut out of videos.
        found: The options of silhouettes.
        settings: The options of the network.
        wanted: What is told.

    Raises:
        SomeFailed: Some probes could not be used; the others have been answered.
    """
    with only_first_process_prints(), Shards.join() as shards:
        network = None if shards.rank else given_network(settings)
        with opened_gallery(url, settings, network) as gallery:
            if shards.rank:
                follow(gallery, shards)
                return
            with leading(gallery, shards):
                _refuse_empty(gallery)
                asking = _Asking(gallery, network, naming, wanted.count)
                answers = _all(asking, probes, found, settings)
            if answers:
                _write(answers, asking, wanted)
    if answers:
        _print(answers, wanted.top or 1, asking.chosen)
    for answer, explanation in zip(answers, asking.explanations):
        if explanation is not None:
            click.echo(f"{answer.source}: {' '.join(explanation.words(*_nearest(answer)))}")
    if asking.failures:
        raise SomeFailed(asking.failures)


def _refuse_empty(gallery: Gallery) -> None:
    if not gallery.people():
        raise GalleryError(f"{gallery.url}: nobody is enrolled; `hstl-fast enroll NAME VIDEO` enrols somebody")


class _Asking:
    """Answers of a gallery for probes, and what was in the way."""

    def __init__(self, gallery: Gallery, network: Network | None, naming: Naming, count: int) -> None:
        self.gallery, self.network, self.naming, self.count = gallery, network, naming, count
        self.failures: list[str] = []
        self.explanations: list[Explanation | None] = []
        rate = naming.false_accept_rate
        self.chosen = None if rate is None else self._choose(rate)

    def embeddings(self, path: Path) -> list[Answer]:
        """Answer for an embedding file."""
        return self._embedded(load_embeddings(path), self.network.model.config if self.network else None)

    def walks(self, walks: Walks) -> list[Answer]:
        """Answer for walks, some at a time."""
        answers, iterator = [], iter(walks)
        while chunk := [walk.clip for walk in islice(iterator, SEQUENCES_OF_A_CHUNK)]:
            if self.naming.explain:
                answers += self._embedded(embedded(self.gallery, chunk), self.gallery.network.model.config)
            else:
                answers += self._asked(partial(self.gallery.identify, chunk, count=self.count))
        self.failures += walks.failures
        return answers

    def _embedded(self, probes: Embeddings, config: HSTLConfig | None) -> list[Answer]:
        answers = self._asked(partial(self.gallery.identify_embeddings, probes, count=self.count))
        if self.naming.explain:
            self.explanations += explained(self.gallery, answers, probes.vectors, config)
        return answers

    def _asked(self, ask: Callable[..., list[Answer]]) -> list[Answer]:
        if self.chosen is None:
            return ask(threshold=self.naming.threshold)
        rate = self.chosen.false_accept_rate
        return [replace(each, false_accept_rate=rate) for each in ask(threshold=self.chosen.distance)]

    def _choose(self, rate: float) -> Threshold:
        """Choose the threshold before videos are read, and once for all probes."""
        try:
            return threshold_of(self.gallery, rate)
        except ValueError as error:
            raise GalleryError(f"{self.gallery.url}: {error}") from error


def _all(asking: _Asking, probes: Sequence[Path], found: FoundOptions, settings: Settings) -> list[Answer]:
    embedded = [probe for probe in probes if is_embedding_file(probe)]
    others = [probe for probe in probes if probe not in embedded]
    if not others and (given := found.given()):
        raise click.UsageError(f"{', '.join(given)}: expected data to be embedded; all probes hold embeddings")
    answers: list[Answer] = []
    for probe in embedded:
        answers += asking.embeddings(probe)
    if others:
        check_network(asking.gallery, asking.network)
        with progress_bar() as advance:
            walks = Walks(
                others, asking.naming.cutting, settings.max_frames, advance, partial(open_input, options=found)
            )
            answers += asking.walks(walks)
        if walks.sequences is not None:
            finish_input(walks.sequences, walks.left_out, found)
    return answers


def _print(answers: Sequence[Answer], top: int, chosen: Threshold | None) -> None:
    rows = []
    for answer in answers:
        for place, match in enumerate(answer.matches[:top]):
            first = place == 0
            rows.append(
                [
                    answer.source if first else "",
                    (answer.name or NOBODY) if first else "",
                    match.person,
                    f"{match.distance:.6f}",
                    f"{answer.margin:.6f}" if first and answer.margin is not None else "",
                    f"{match.agreement:.0%}" if match.agreement is not None else "",
                    match.source,
                ]
            )
    print_table(["probe", "name", "nearest", "distance", "margin", "parts", "recording"], rows)
    named = sum(answer.name is not None for answer in answers)
    click.echo(f"{counted(len(answers), 'probe', 'probes')}: {named} named, {len(answers) - named} nobody")
    click.echo(_threshold(answers[0], chosen))
    if known := [each for each in answers if each.itself is not None]:
        itself = known[0]
        click.echo(
            f"probes that are recordings of the gallery themselves, by their silhouettes: {len(known)}, such as "
            f"{itself.source}, which is recording {itself.itself} of {itself.matches[0].person}; they say nothing "
            "about how people are recognised"
        )


def _threshold(answer: Answer, chosen: Threshold | None) -> str:
    if answer.threshold is None:
        return NO_THRESHOLD
    rate = answer.false_accept_rate
    known = "an unknown share" if rate is None else f"{100 * rate:.3g} %"
    interval = None if chosen is None else chosen.false_accept_interval
    ends = "" if interval is None else f"; interval of 95 %: {100 * interval.low:.3g} to {100 * interval.high:.3g} %"
    return f"threshold: {answer.threshold:.6f}, at which {known} of strangers would be named (false-accept rate{ends})"


def _nearest(answer: Answer) -> tuple[str, str | None]:
    """The nearest person and the next, if there is one."""
    first, *others = (match.person for match in answer.matches)
    return first, others[0] if others else None


def _write(answers: Sequence[Answer], asking: _Asking, wanted: Wanted) -> None:
    top, used = wanted.top or _FEWEST_MATCHES, asking.gallery.fingerprint
    explanations = asking.explanations or [None] * len(answers)
    if wanted.csv_file is not None:
        write_csv(wanted.csv_file, _CSV_HEADER, _rows(answers, top))
    if wanted.json_file is not None:
        result = {
            "gallery": asking.gallery.url,
            "fingerprint": used and used._asdict(),
            "threshold": answers[0].threshold,
            "false_accept_rate": answers[0].false_accept_rate,
            "chosen_threshold": None if asking.chosen is None else asking.chosen.as_json(),
            "probes": [_as_json(*each, top) for each in zip(answers, explanations)],
            "failures": asking.failures,
        }
        write_json(wanted.json_file, result)


def _as_json(answer: Answer, explanation: Explanation | None, top: int) -> dict[str, Any]:
    return {
        "probe": answer.source,
        "name": answer.name,
        "margin": answer.margin,
        "is_recording": answer.itself,
        "matches": [{"rank": rank, **vars(match)} for rank, match in enumerate(answer.matches[:top], 1)],
        "parts": [float(part) for part in answer.parts],
        **({} if explanation is None else {"explanation": explanation.as_json()}),
    }


def _rows(answers: Sequence[Answer], top: int) -> Iterator[list[object]]:
    """One row for each match; those of a probe stand together, and the name is empty for nobody."""
    for answer in answers:
        said = [answer.source, answer.name, answer.margin, answer.threshold, answer.false_accept_rate]
        for rank, m in enumerate(answer.matches[:top], 1):
            yield [*said, rank, m.person, m.recording, m.source, m.distance, m.agreement]
