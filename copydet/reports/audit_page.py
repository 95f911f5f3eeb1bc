"""An audit as one page to read: the answer, what it stands on, plots, the pairs themselves, and what it does not say.

The page runs no script and asks nothing of the network (its own content policy forbids both). Text that came from file
names is escaped; pictures are WebP inside.
"""

import base64
import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from copydet.audit.near_pixel import NEAR
from copydet.audit.replication import Found
from copydet.audit.summary import floats
from copydet.progress import Progress, Silent
from copydet.reports import plots
from copydet.reports.destination import replacing
from copydet.reports.pictures import closer_look, make_picture, painted_over, webp
from copydet.verification.words import transform_in_words

PAIRS_SHOWN = 60
CLIQUES_SHOWN, MEMBERS_SHOWN = 12, 12
_EDGE, _MEMBER_EDGE = 300, 144  # pixels of the longer side of a picture
_BINS = 60

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_NOT_SAID = (
    "Copies are told from other pictures; how much of a picture was taken over in the eyes of people (the graded "
    "levels of D-Rep) is not measured here, and levels that are fitted to similarity are advice.",
    "That a training image is copied says that it was learnt by heart. That none is copied does not say that an image "
    "was not trained on: this is no test of membership.",
    "Style, characters, composition and ideas can be taken over without copied pixels. Nothing here looks for that.",
    "Similarity levels (.5, .6, .75) belong to the descriptor and the preprocessing they were chosen for. Of another "
    "descriptor they mean something else; compare with the chance level of the same run instead.",
    "Only images of this index were searched. What was copied from elsewhere counts as new.",
)

Read = Callable[[str], bytes | None]
Numbers = Mapping[str, Any]


def write_page(path: Path, found: Found, numbers: Numbers, read: Read, progress: Progress | None = None) -> None:
    """`numbers` are those of audit.json; `read` returns the encoded image behind a URI, or None."""
    sections = [
        _answer(numbers),
        _distributions(found, numbers),
        _groups(numbers),
        _duplication(numbers),
        _pairs(found, read, progress or Silent()),
        _cliques(found, numbers, read),
        _limits(numbers),
    ]
    style = files("copydet.reports").joinpath("templates/audit.css").read_text(encoding="utf-8")
    facts = f"{', '.join(numbers['generated'])} against {numbers['index']}"
    with replacing(path) as partial:
        partial.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f'<meta name="referrer" content="no-referrer"><title>Replication audit</title>'
            f"<style>\n{style}</style></head>"
            f'<body><header><h1>Replication audit</h1><p class="facts">{_text(facts)}</p></header>'
            f"{''.join(sections)}</body></html>\n",
            encoding="utf-8",
            newline="\n",
        )


def _answer(numbers: Numbers) -> str:
    chance, over = numbers["chance"]["share_copy"], numbers["above_chance"]["share_copy"]
    copies = numbers["share_copy"]
    said = f"{_percent(copies)} of {numbers['read']:,} generations are copies of training images"
    if chance is not None and over is not None:
        verdict = "above" if over["p_value"] < 0.05 and over["value"] > 0 else "not above"
        said += f", which is {verdict} chance ({_percent(chance)} of training images are called copies of another one)"
    cells = [
        _number("copies", copies, f"at precision {numbers['precision']:g}"),
        _number("whole", numbers["share_whole_copy"], "most of either image is in the other"),
        _number("partial", numbers["share_partial_copy"], "an object, a background, a template"),
        _number("nearly the same pixels", numbers["share_near_pixel"], f"largest tile distance at most {NEAR:g}"),
        _number("identical files", numbers["share_identical_file"], "byte for byte a training image"),
        _number("simple pictures", numbers["complexity"]["share_simple"], "which match more by nature"),
    ]
    warnings = "".join(f'<p class="warning">{_text(line)}</p>' for line in numbers["warnings"])
    baseline = numbers.get("baseline")
    change = f"<h3>Against the baseline</h3><p>{_text(baseline['statement'])}</p>" if baseline else ""
    skipped = sum(numbers["skipped"].values())
    failed = f"<p class='soft'>{skipped:,} generations could not be read and count nowhere.</p>" if skipped else ""
    return (
        f'<section><p class="answer">{_text(said)}.</p>{warnings}<dl class="numbers">{"".join(cells)}</dl>{failed}'
        f"{change}</section>"
    )


def _number(name: str, interval: Numbers | None, note: str) -> str:
    between = "" if interval is None else f"{_percent(interval['low'])} to {_percent(interval['high'])}; "
    return f"<div><dt>{_text(name)}</dt><dd>{_percent(interval)}<small>{between}{_text(note)}</small></dd></div>"


def _distributions(found: Found, numbers: Numbers) -> str:
    similarity = floats(found.rows, "nearest_similarity")
    tiles = floats(found.rows, "tile_distance")
    chance = found.chance.similarity
    shown = [
        plots.histogram(
            "Similarity of each generation to its nearest training image, and of training images to each other",
            [("generations", similarity[~np.isnan(similarity)]), ("training images among themselves", chance)],
            (0.0, 1.0),
            "similarity of whole images",
            _BINS,
            marks=(0.5, 0.6, 0.75),
        )
    ]
    if not np.isnan(tiles).all():
        shown.append(
            plots.histogram(
                "Tile distance of each generation to the nearest training image",
                [("generations", tiles[~np.isnan(tiles)])],
                (0.0, 0.6),
                "largest distance of 16 tiles",
                _BINS,
                marks=(NEAR,),
            )
        )
    rows = [
        [
            f"above {level}",
            _with_interval(of_level),
            _with_interval(numbers["chance"]["share_above"][level]),
        ]
        for level, of_level in numbers["share_above"].items()
    ]
    rows.append(
        ["called a copy", _with_interval(numbers["share_copy"]), _with_interval(numbers["chance"]["share_copy"])]
    )
    for each in ("50", "95"):
        values = [numbers[of]["percentiles"][each] for of in ("similarity",)] + [
            numbers["chance"]["similarity"]["percentiles"][each]
        ]
        rows.append([f"percentile {each} of similarity", *(_plain(value) for value in values)])
    test = numbers["above_chance"]["similarity"]
    said = ""
    if test is not None:
        said = (
            f"<p>Kolmogorov-Smirnov distance {test['statistic']:.3f}, p = {test['p_value']:.3g}; of a generation and "
            f"a training image, drawn at random, the generation has the nearer neighbour in "
            f"{100 * test['larger']:.1f} % of "
            "all cases.</p>"
        )
    return (
        "<section><h2>Against chance</h2><p>A generator that learnt nothing by heart makes pictures about as near to "
        "training images as those are to each other. A tail of generations right of the training images' own is "
        f'replication.</p><div class="plots">{"".join(shown)}</div>{said}'
        f"{_table(['', 'generations', 'training images'], rows)}</section>"
    )


def _groups(numbers: Numbers) -> str:
    chance = numbers["chance"]["share_copy"]
    marks = [("chance", chance["high"])] if chance else []
    parts = []
    for name, groups in numbers["groups"].items():
        rows = [
            plots.Bar(
                str(group["value"]),
                group["share_copy"]["value"],
                group["share_copy"]["low"],
                group["share_copy"]["high"],
                f"of {group['generations']:,}",
            )
            for group in groups
        ]
        parts.append(f"<div><h3>{_text(name)}</h3>{plots.bars(f'Share of copies by {name}', rows, marks)}</div>")
    if not parts:
        return ""
    return f'<section><h2>Which groups are copied</h2><div class="plots">{"".join(parts)}</div></section>'


def _duplication(numbers: Numbers) -> str:
    found = numbers["duplication"]
    rows = [
        [
            f"{name} training images",
            f"{found[key]['images']:,}",
            _with_interval(found[key]["share_repeated"]),
            "-" if found[key]["mean_count"] is None else f"{found[key]['mean_count']:.2f}",
        ]
        for name, key in (("matched", "matched"), ("random", "random"))
    ]
    odds = found["odds_ratio"]
    said = "No training image was matched, or none is repeated: there is nothing to compare."
    if odds is not None:
        value = "infinite" if odds["value"] is None else f"{odds['value']:.3g}"
        high = "infinity" if odds["high"] is None else f"{odds['high']:.3g}"
        said = (
            f"Odds ratio {value} ({odds['low']:.3g} to {high}), p = {odds['p_value']:.3g} that matched images are not "
            "more often repeated than random ones."
        )
    shown = [
        plots.Bar(f"{name} images", *(found[key]["share_repeated"][each] for each in ("value", "low", "high")))
        for name, key in (("matched", "matched"), ("random", "random"))
        if found[key]["share_repeated"] is not None
    ]
    drawn = plots.bars("Share of training images that are repeated", shown)
    head = ["", "distinct images", "repeated", "mean count"]
    return (
        "<section><h2>Are repeated images copied more?</h2><p>An image counts as repeated where the training set has "
        f"another of similarity {found['similarity_level']:g} to it.</p>{_table(head, rows)}<p>{said}</p>"
        f'<div class="plots">{drawn}</div></section>'
    )


def _pairs(found: Found, read: Read, progress: Progress) -> str:
    """The best pair of each training image, then the second best of each, and so on: variety before repetition."""
    rows = [row for row in found.rows.to_pylist() if row["verdict"] not in (None, "no_match") or row["near_pixel"]]
    rows.sort(key=lambda row: (-(row["score"] or 0.0), row["generation_id"]))
    before: Counter[str] = Counter()
    places = []
    for row in rows:
        places.append(before[row["reference_id"]])
        before[row["reference_id"]] += 1
    ordered = [row for _, _, row in sorted(zip(places, range(len(rows)), rows, strict=True), key=lambda each: each[:2])]
    shown = []
    for row in ordered[:PAIRS_SHOWN]:
        shown.append(_pair(row, found.metadata, read))
        progress.advance(1)
    said = f"{len(rows):,} generations are copies or nearly the same pixels, of {len(before):,} training images."
    if len(rows) > len(shown):
        said += f" Here are {len(shown):,}, the best of each training image first; audit.parquet has all."
    if not rows:
        said = "No generation is called a copy, and none is nearly the same pixels."
    return f'<section><h2>The pairs</h2><p class="soft">{said}</p>{"".join(shown)}</section>'


def _pair(row: Mapping[str, Any], metadata: Sequence[str], read: Read) -> str:
    generation, reference = read(row["uri"]), read(row["reference_uri"] or "")
    figures = [
        _figure(_picture(generation, _EDGE), "generation"),
        _figure(_picture(reference, _EDGE), "training image"),
    ]
    words = ""
    if generation is not None and reference is not None and row["transform"]:
        transform = tuple(row["transform"])
        if (seen := closer_look(generation, reference, transform, _EDGE)) is not None:
            blended = (seen.query.astype(np.float32) + seen.aligned.reference) / 2
            over = np.where(seen.aligned.mask[..., None], blended, seen.query).astype(np.uint8)
            changed = painted_over(seen.query, seen.aligned.difference)
            figures += [_figure(webp(over), "one laid over the other"), _figure(webp(changed), "what differs")]
        made = make_picture(reference, 8)
        if made is not None and row["width"] and row["height"]:
            sizes = (row["width"], row["height"]), made.size
            words = transform_in_words(transform, *sizes, row["query_overlap"], row["reference_overlap"])
    facts = [
        f"{row['verdict']}, score {_plain(row['score'])}",
        f"similarity {_plain(row['nearest_similarity'])}",
        f"tile distance {_plain(row['tile_distance'])}, adaptive {_plain(row['adaptive_distance'])}",
        f"entropy {_plain(row['entropy'])} bits",
    ]
    named = "; ".join(f"{name}: {row[name]}" for name in metadata if row[name] is not None)
    return (
        f'<div class="pair"><div class="names"><b>{_text(row["generation_id"])}</b> and '
        f"<b>{_text(row['reference_id'] or '')}</b><br><span class='soft'>{_text(words)} {_text(named)}</span>"
        f'<div class="pictures">{"".join(figures)}</div></div>'
        f'<div class="said">{"<br>".join(map(_text, facts))}</div></div>'
    )


def _cliques(found: Found, numbers: Numbers, read: Read) -> str:
    if not found.cliques:
        return ""
    uris, parts = found.rows["uri"].to_pylist(), []
    for members in found.cliques[:CLIQUES_SHOWN]:
        pictures = [_picture(read(uris[row]), _MEMBER_EDGE) for row in members[:MEMBERS_SHOWN]]
        drawn = "".join(f'<img src="{_url(each)}" alt="">' for each in pictures if each is not None)
        parts.append(f'<h3>{len(members):,} generations</h3><div class="clique">{drawn}</div>')
    said = numbers["cliques"]
    return (
        f"<section><h2>Generations that are the same picture</h2><p>{said['generations']:,} generations are in "
        f"{said['cliques']:,} groups whose members are all nearly the same pixels. What a generator makes again and "
        f"again it has learnt by heart, whether or not the index has it.</p>{''.join(parts)}</section>"
    )


def _limits(numbers: Numbers) -> str:
    rows = [
        [_text(str(name)), _text(str(numbers[name]))]
        for name in ("descriptor", "precision", "threshold", "preset", "seed")
    ]
    items = "".join(f"<li>{_text(line)}</li>" for line in _NOT_SAID)
    return f"<section><h2>What this does not say</h2><ul>{items}</ul>{_table(['setting', ''], rows)}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>{cells}</table>"


def _figure(picture: bytes | None, caption: str) -> str:
    shown = '<div class="gone">out of reach</div>' if picture is None else f'<img src="{_url(picture)}" alt="">'
    return f"<figure>{shown}<figcaption>{_text(caption)}</figcaption></figure>"


def _picture(data: bytes | None, edge: int) -> bytes | None:
    made = None if data is None else make_picture(data, edge)
    return None if made is None else made.webp


def _url(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def _percent(value: Numbers | float | None) -> str:
    if value is None:
        return "unknown"
    number = 100 * float(value["value"] if isinstance(value, Mapping) else value)
    return f"{number:.{2 if 0 < number < 1 else 1}f} %"


def _with_interval(value: Numbers | None) -> str:
    return "unknown" if value is None else f"{_percent(value)} ({_percent(value['low'])} to {_percent(value['high'])})"


def _plain(value: Numbers | float | None) -> str:
    if value is None:
        return "-"
    return f"{value['value'] if isinstance(value, Mapping) else value:.3f}"


def _text(value: str) -> str:
    return html.escape(value.encode("utf-8", "backslashreplace").decode())
