"""The one error for everything that is wrong with a video file."""


class VideoReadError(Exception):
    """A file did not give the frames that were asked of it.

    Args:
        path: The file, as the caller named it.
        reason: A sentence saying what was found and what was expected.
    """

    def __init__(self, path: str, reason: str) -> None:
        # Both arguments go to Exception, so that the error survives pickling between processes.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
