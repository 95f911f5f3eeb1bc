"""Matches and results to write."""

from copydet.records import Match, QueryResult

HOSTILE = 'a "quoted", name\nwith\r\nlines, <script>alert(1)</script> \\ ünï 日本.jpg'


def a_match(**changes: object) -> Match:
    values: dict[str, object] = {
        "query_id": "query.jpg",
        "reference_id": "reference.jpg",
        "score": 0.1 + 0.2,
        "verdict": "copy",
        "similarity": 0.875,
        "normalised_similarity": 1 / 3,
        "query_view": "whole",
        "reference_view": "whole",
        "inliers": 12,
        "query_overlap": 0.5,
        "reference_overlap": None,
        "transform": (1.0, 0.0, 1 / 7, 0.0, 1.0, -3.0, 0.0, 0.0, 1.0),
        "rank": 1,
        "reference_uri": "/photos/reference.jpg",
    }
    return Match(**(values | changes))  # type: ignore[arg-type]


def a_result(*matches: Match, **changes: object) -> QueryResult:
    values: dict[str, object] = {"query_id": "query.jpg", "uri": "/q/query.jpg", "status": "ok", "message": ""}
    return QueryResult(**(values | changes), matches=matches)  # type: ignore[arg-type]
