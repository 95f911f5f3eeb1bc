"""The one error family that users meet.

    CopydetError            exit 1   the work failed
    ├── UsageError          exit 2   wrong use or bad input: what is wrong, where, what to do
    │   └── NotAnIndex      exit 2   the folder holds no index
    ├── IndexLocked         exit 1   another process is writing
    ├── CheckFailed         exit 4   a check or a gate found problems
    └── MissingPackage      exit 2   an optional package is needed: which extra brings it

Every message is one line for the user. ImageProblem is not in the family: it never reaches the user as an error, it
becomes the status and the message of an image's row.
"""


class CopydetError(Exception):
    """Base of all errors shown to users as one line; `exit_code` is what the command returns."""

    exit_code = 1


class UsageError(CopydetError):
    exit_code = 2


class NotAnIndex(UsageError):
    pass


class IndexLocked(CopydetError):
    pass


class CheckFailed(CopydetError):
    exit_code = 4


class MissingPackage(UsageError):
    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'copydet[{extra}]'")


class ImageProblem(Exception):
    """Why one image could not be used: `status` is one of records.STATUSES, `message` a line for the user."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[type["ImageProblem"], tuple[str, str]]:
        return ImageProblem, (self.status, self.message)  # Exception's own would call it with the message alone
