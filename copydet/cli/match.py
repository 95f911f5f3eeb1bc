"""`copydet match`: find what queries were copied from."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from copydet.cli.console import SKIPPED, by_status, count, if_interrupted, print_json, print_table, quote, say, say_next
from copydet.cli.contents import queries_for
from copydet.cli.options import (
    count_listed,
    device_option,
    embeddings_option,
    engine_options,
    index_option,
    json_option,
    limit_options,
    limits,
    moved_descriptor_option,
    open_engine,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from copydet.records import Match, QueryResult
    from copydet.search.views import ViewLevel

ROWS_SHOWN = 100  # of the table on stdout; --output has no such bound
FAILED_SHOWN = 10
HUBS_SHOWN = 5
HUB_QUERIES, HUB_SHARE = 10, 0.01  # a reference that matches more queries than both is named

Sink = Callable[["QueryResult"], None]


@click.command("match")
@click.argument("queries", metavar="QUERY...", nargs=-1, required=True)
@index_option(must_exist=True)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write all proposed references to FILE.csv, .jsonl or .parquet. Without it, matches are printed.",
)
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Write an HTML page to look at.")
@click.option("--where", metavar="SQL", help="Search only images that satisfy this DuckDB condition on their columns.")
@click.option(
    "--top-k", metavar="K", type=click.IntRange(min=1), default=10, show_default=True, help="References a query."
)
@click.option(
    "--precision",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="How many of the matches must be right: sets the score from which on a pair is called one. [default: 0.99]",
)
@click.option(
    "--views",
    type=click.Choice(("whole", "halves", "quarters", "ninths", "auto")),
    default="auto",
    show_default=True,
    help="Which parts of a query are searched by their descriptors.",
)
@click.option("--votes/--no-votes", default=True, show_default=True, help="Let local features propose references too.")
@click.option("--gist/--no-gist", default=True, show_default=True, help="Let an image's gist propose references too.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Check where and whether two images show the same."
)
@click.option(
    "--recall",
    metavar="R",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Search as far as `copydet tune` found that this recall needs. [default: as the recipe says]",
)
@click.option(
    "--ignore",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A CSV file of what never comes back: lines of a query's and a reference's id, or of a reference's alone.",
)
@moved_descriptor_option
@embeddings_option
@device_option
@engine_options
@workers_option
@limit_options
@strict_option
@json_option
def command(
    queries: tuple[str, ...],
    index_path: Path,
    output: Path | None,
    report: Path | None,
    where: str | None,
    top_k: int,
    precision: float | None,
    views: "ViewLevel",
    votes: bool,
    gist: bool,
    verify: bool,
    recall: float | None,
    ignore: Path | None,
    descriptor: str | None,
    embeddings: bool,
    device: str,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    max_bytes: int | None,
    max_pixels: int | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Find what queries were copied from.

    A QUERY is an image, or any source that `copydet index` takes. For each query the best references of the index are
    proposed with a score, the probability that it is a copy, and a verdict. With --embeddings a QUERY is a file of
    vectors that the index's descriptor made elsewhere.

    \b
    Example:
      copydet match suspect.jpg --index photos.index
      copydet match suspects/ --index photos.index --output matches.csv --report matches.html
    """
    from copydet.decisions.ignore import NOTHING, read_ignored
    from copydet.index import Index
    from copydet.progress import show

    results = Results()
    with if_interrupted(_not_written(output, report)), ExitStack() as stack:
        sinks = [results.add, *_open_files(stack, output, report, queries, index_path)]
        index = Index.open(index_path, descriptor=descriptor, device=device)
        opened = stack.enter_context(open_engine(engine, ray_address, workers, device))
        progress = stack.enter_context(show("matching", count_listed(queries, embeddings)))
        chosen: dict[str, Any] = {} if precision is None else {"precision": precision}
        found = index.match(
            list(queries),
            embeddings=embeddings,
            top_k=top_k,
            views=views,
            votes=votes,
            gist=gist,
            verify=verify,
            recall=recall,
            ignored=NOTHING if ignore is None else read_ignored(ignore),
            where=where,
            workers=workers,
            limits=limits(max_bytes, max_pixels),
            progress=progress,
            engine=opened,
            **chosen,
        )
        _pass_on(found, sinks)
    results.report(output, report, queries_for(index.snapshot.descriptor.name), index_path, as_json)
    return SKIPPED if strict and results.skipped else 0


def _not_written(output: Path | None, report: Path | None) -> str:
    named = " and ".join(str(path) for path in (output, report) if path)
    return f"{named + ': nothing was written; ' if named else ''}the same command starts again"


def _open_files(
    stack: ExitStack, output: Path | None, report: Path | None, queries: tuple[str, ...], index: Path
) -> Iterator[Sink]:
    """The result files that were asked for; both are checked before either is opened."""
    from copydet.images.originals import Originals
    from copydet.reports.page import check_page, open_page
    from copydet.reports.tables import check_table, open_table

    if output is not None:
        check_table(output)
    if report is not None:
        check_page(report)
    if output is not None:
        yield stack.enter_context(open_table(output))
    if report is not None:
        facts = f"{', '.join(queries)} against {index}"
        yield stack.enter_context(open_page(report, "Matches", facts, Originals().read))


def _pass_on(found: Iterable["QueryResult"], sinks: list[Sink]) -> None:
    for result in found:
        for sink in sinks:
            sink(result)


@dataclass
class Results:
    """What was found so far: counts, and the first rows for the table on stdout."""

    queries: int = 0
    with_match: int = 0
    matches: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list["QueryResult"] = field(default_factory=list)
    shown: list["Match"] = field(default_factory=list)
    matched: Counter[str] = field(default_factory=Counter)  # reference id -> queries that it matches

    def add(self, result: "QueryResult") -> None:
        self.queries += 1
        if result.status != "ok":
            self.skipped[result.status] += 1
            if len(self.failed) < FAILED_SHOWN:
                self.failed.append(result)
        matches = [match for match in result.matches if match.verdict != "no_match"]
        self.with_match += bool(matches)
        self.matches += len(matches)
        self.matched.update(match.reference_id for match in matches)
        self.shown += matches[: ROWS_SHOWN - len(self.shown)]

    def report(self, output: Path | None, report: Path | None, again: str, index: Path, as_json: bool) -> None:
        if as_json:
            print_json(self._summary(output, report))
            return
        if output is None:
            self._print()
        without = self.queries - self.with_match - self.skipped.total()
        say(
            f"{count(self.queries, 'query')}: {self.with_match:,} with a match, {without:,} without, "
            f"{self.skipped.total():,} skipped" + (f" ({by_status(self.skipped)})" if self.skipped else "")
        )
        self._say_skipped(output)
        self._say_hubs()
        say_next(self._advice(report, again, index))

    def _summary(self, output: Path | None, report: Path | None) -> dict[str, object]:
        return {
            "queries": self.queries,
            "with_match": self.with_match,
            "without_match": self.queries - self.with_match - self.skipped.total(),
            "matches": self.matches,
            "skipped": dict(self.skipped),
            "output": None if output is None else str(output),
            "report": None if report is None else str(report),
        }

    def _print(self) -> None:
        if self.shown:
            rows = [
                (each.query_id, each.reference_id, f"{each.score:.4f}", each.verdict, f"{each.similarity:.3f}")
                for each in self.shown
            ]
            print_table(("query", "reference", "score", "verdict", "similarity"), rows)
        if left := self.matches - len(self.shown):
            say(f"... and {count(left, 'more match')}: --output matches.csv writes them all")

    def _say_skipped(self, output: Path | None) -> None:
        if not self.skipped:
            return
        if output is not None:
            from copydet.reports.tables import failed_path

            say(f"The skipped queries are listed in {failed_path(output)}")
            return
        for result in self.failed:
            say(f"  skipped {result.query_id}: {result.status}: {result.message}")
        if left := self.skipped.total() - len(self.failed):
            say(f"  ... and {left:,} more: --output matches.csv lists them all")

    def _say_hubs(self) -> None:
        """Name references that match too many queries to be what was copied: blanks, logos, frames."""
        most = max(HUB_QUERIES, HUB_SHARE * self.queries)
        for reference, queries in self.matched.most_common(HUBS_SHOWN):
            if queries > most:
                say(f"  {reference} matches {queries:,} queries: if it is no copy, put its id in a file for --ignore")

    def _advice(self, report: Path | None, again: str, index: Path) -> str:
        if not self.queries:
            return "the sources list no images; name a folder or a file that holds some"
        if report is not None:
            return f"open {quote(report)} in a browser and look at the matches"
        command = f"copydet match {again} --index {quote(index)} --report matches.html"
        return f"{command} makes a page that shows queries beside their references"
