"""Find copies of images in large collections, and see the evidence.

    index = copydet.Index.build("photos/", "photos.index")
    for result in index.match(["query.jpg", some_array, some_pil_image]):
        for match in result.matches:
            print(match.reference_id, match.score, match.verdict)
    vectors = copydet.describe(images)
    evidence = copydet.compare("a.jpg", "b.jpg")
    found = copydet.deduplicate("photos.index", "photos.dedup")

Importing copydet imports none of NumPy, FAISS, torch or OpenVINO: the names below load on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from copydet.dedup.job import deduplicate
    from copydet.index import Index, compare, describe

__version__ = "0.1.0"
__all__ = ["Index", "__version__", "compare", "deduplicate", "describe"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        room = "copydet.dedup.job" if name == "deduplicate" else "copydet.index"
        return getattr(import_module(room), name)
    raise AttributeError(f"module 'copydet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
