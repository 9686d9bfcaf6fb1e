"""How the names of video files end."""

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "ogv", "ts", "webm", "wmv"),
    )
)
