"""Videos that show the numbers of their frames, whole and damaged."""

import av
import numpy as np

LEVEL_STEP = 6  # grey levels between frames, far more than the codecs change them by


def write_video(path, num_frames, codec="libx264", size=(64, 48), matrix=None, options=None):
    """A video whose frame k is flat grey of level 6k, with a white top left quarter."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for k in range(num_frames):
            image = np.full((height, width, 3), LEVEL_STEP * k, dtype=np.uint8)
            image[: height // 2, : width // 2] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def counters(clip):
    """The frame numbers that the pictures show, read off their bottom right corner."""
    levels = clip.frames[:, :, -8:, -8:].double().mean((1, 2, 3))
    return (levels / LEVEL_STEP).round().long().tolist()


def spoil_packets(path, numbers):
    """Overwrites the starts of some packets of an H.264 file, which no longer decode then."""
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        data[places[number] : places[number] + 4] = b"\xff" * 4
    path.write_bytes(data)
