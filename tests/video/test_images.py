"""A folder of images is a video: the same indices, the same errors, and nothing decoded in vain."""

import math
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from gasmcast.video import (
    FrameSampling,
    VideoReadError,
    count_frames,
    read_video,
    segment_indices,
)

LEVEL_STEP = 6  # grey levels from image to image, more than JPEG changes them by


def write_images(folder, numbers, name="img_{:05d}.jpg", size=(20, 12)):
    """Flat grey images, the k-th of level 6k, with a red top left quarter."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    for k, number in enumerate(numbers):
        image = np.full((height, width, 3), LEVEL_STEP * k, dtype=np.uint8)
        image[: height // 2, : width // 2] = (255, 0, 0)
        Image.fromarray(image).save(folder / name.format(number), quality=95, subsampling=0)
    return folder


def counters(clip):
    levels = clip.frames[:, :, -4:, -4:].double().mean((1, 2, 3))
    return (levels / LEVEL_STEP).round().long().tolist()


@pytest.mark.parametrize(
    "name", ["img_{:05d}.jpg", "{:06d}.jpg", "frame_{:04d}.png", "{}.JPEG", "v1.2_{}.png"]
)
def test_namings_of_raw_frames_in_the_order_of_their_numbers(tmp_path, name):
    folder = write_images(tmp_path / "video", range(1, 41), name)  # letters put 10 before 2
    clip = read_video(folder)
    assert clip.backend == "images"
    assert clip.path == str(folder)
    assert clip.num_frames == 40
    assert clip.frames.shape == (16, 3, 12, 20)
    assert clip.frames.dtype == torch.uint8
    assert torch.equal(clip.indices, segment_indices(40))
    assert counters(clip) == clip.indices.tolist()
    red, green, blue = clip.frames[:, :, 2, 2].double().T
    assert red.min() > 245
    assert max(green.max(), blue.max()) < 12
    assert math.isnan(clip.average_fps)
    assert clip.pts_seconds.isnan().all()
    assert clip.pts_seconds.dtype == torch.float64
    assert count_frames(folder) == 40


def test_pictures_are_those_of_another_decoder(tmp_path):
    pixels = torch.randint(0, 256, (12, 20, 3), dtype=torch.uint8).numpy()
    for name in ("1.png", "2.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    frames = read_video(tmp_path, None).frames
    assert torch.equal(frames, torch.from_numpy(pixels).permute(2, 0, 1).expand(2, 3, 12, 20))
    # In memory as the decoders of files leave it: the channels of a pixel together.
    assert frames.stride()[1] == 1


def test_indices_may_repeat_and_come_in_any_order(tmp_path):
    folder = write_images(tmp_path / "video", range(10))
    assert counters(read_video(folder, [7, 2, 2, 9])) == [7, 2, 2, 9]
    assert counters(read_video(folder, None)) == list(range(10))
    clips = read_video(folder, FrameSampling(4, clips=2))
    assert counters(clips) == clips.indices.tolist() == [0, 3, 5, 8, 1, 4, 6, 9]
    with pytest.raises(
        ValueError, match=r"^frame index 10 is out of range for a video of 10 frames$"
    ):
        read_video(folder, [10])


def test_a_short_folder_repeats_images_in_order(tmp_path):
    folder = write_images(tmp_path / "video", range(5))
    assert counters(read_video(folder)) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_numbers_begin_anywhere_and_leave_some_out(tmp_path):
    folder = write_images(tmp_path / "video", [7, 9, 12, 100])
    assert counters(read_video(folder, None)) == [0, 1, 2, 3]


def test_other_entries_are_passed_over(tmp_path):
    folder = write_images(tmp_path / "video", range(3))
    (folder / "audio.wav").touch()
    (folder / "notes.jpg").touch()  # no number
    (folder / "._img_00001.jpg").touch()  # what macOS leaves behind
    (folder / "flow").mkdir()
    assert read_video(folder).num_frames == 3


def test_only_the_images_asked_for_are_decoded_and_each_once(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "video", range(10))
    (folder / "img_00004.jpg").write_bytes(b"broken")
    opened = []
    decode = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, **options: opened.append(path[-5]) or decode(path, **options)
    )
    assert counters(read_video(folder, [8, 3, 3, 8])) == [8, 3, 3, 8]
    assert opened == ["3", "8"]


def test_grey_and_transparent_images_come_as_three_colours(tmp_path):
    grey = torch.randint(0, 256, (6, 4), dtype=torch.uint8)
    clear = torch.cat([grey[..., None].expand(6, 4, 3), torch.full((6, 4, 1), 9)], dim=-1)
    Image.fromarray(grey.numpy()).save(tmp_path / "1.png")
    Image.fromarray(clear.to(torch.uint8).numpy(), "RGBA").save(tmp_path / "2.png")
    assert torch.equal(read_video(tmp_path, None).frames, grey.expand(2, 3, 6, 4))


def test_images_stand_upright_as_their_exif_says(tmp_path):
    pixels = torch.randint(0, 256, (6, 4, 3), dtype=torch.uint8).numpy()
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.save(tmp_path / "1.png", exif=exif)
    frame = read_video(tmp_path, [0]).frames[0]
    assert torch.equal(frame, torch.from_numpy(np.rot90(pixels, -1).copy()).permute(2, 0, 1))


class TestWhatIsWrong:
    def test_a_folder_without_images(self, tmp_path):
        (tmp_path / "clip.mp4").touch()
        (tmp_path / "notes.txt").touch()
        message = (
            r": expected a video file or a folder of numbered images \(img_00001\.jpg, 1\.png\), "
            r"got a folder that holds none among its 2 entries$"
        )
        with pytest.raises(VideoReadError, match=message) as caught:
            read_video(tmp_path)
        assert pickle.loads(pickle.dumps(caught.value)).path == str(tmp_path)
        with pytest.raises(VideoReadError, match=message):
            count_frames(tmp_path)

    def test_images_of_several_namings_are_not_mixed(self, tmp_path):
        """As TSN lays frames and optical flow out."""
        for kind in ("img", "flow_x", "flow_y"):
            write_images(tmp_path, range(3), kind + "_{:05d}.jpg")
        message = r"expected images of one naming, got 3: flow_x_\*\.jpg, flow_y_\*\.jpg, img_\*"
        with pytest.raises(VideoReadError, match=message):
            read_video(tmp_path)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "img_00001.jpg does not decode: cannot identify image file"),
            (b"no image", "img_00001.jpg does not decode: cannot identify image file"),
            (None, "img_00001.jpg does not decode: image file is truncated"),
        ],
        ids=["empty", "text", "cut"],
    )
    def test_an_image_that_does_not_decode_is_named(self, tmp_path, content, reason):
        folder = write_images(tmp_path / "video", range(3))
        whole = (folder / "img_00001.jpg").read_bytes()
        (folder / "img_00001.jpg").write_bytes(whole[:-30] if content is None else content)
        for read in (read_video, count_frames):
            with pytest.raises(VideoReadError) as caught:
                read(folder)
            assert caught.value.path == str(folder)
            assert caught.value.reason.startswith(reason)

    def test_a_png_whose_parts_do_not_fit_together(self, tmp_path):
        folder = write_images(tmp_path / "video", [1], "{}.png")
        data = bytearray((folder / "1.png").read_bytes())
        data[20] ^= 1  # the width, so that its checksum no longer fits
        (folder / "1.png").write_bytes(data)
        with pytest.raises(VideoReadError, match=r": 1\.png does not decode: "):
            read_video(folder)

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    def test_whatever_is_damaged_in_exif_raises_the_one_error_or_none(self, tmp_path):
        image = Image.new("RGB", (4, 4))
        exif = image.getexif()
        exif[0x0112], exif[0x011A] = 6, 72.0  # a quarter turn, dots an inch
        image.save(tmp_path / "1.jpg", exif=exif)
        sound = (tmp_path / "1.jpg").read_bytes()
        begin = sound.index(b"Exif")
        read = 0
        for place in range(begin, begin + 50):
            for value in range(14):  # types of entries, and what else may be small
                data = bytearray(sound)
                data[place] = value
                (tmp_path / "1.jpg").write_bytes(data)
                with suppress(VideoReadError):
                    read += read_video(tmp_path, [0]).num_frames
        assert read > 100

    def test_another_format_behind_the_name(self, tmp_path):
        Image.new("RGB", (4, 4)).save(tmp_path / "1.png", format="EPS")
        with pytest.raises(
            VideoReadError, match=r": 1\.png does not decode: cannot identify image"
        ):
            read_video(tmp_path)

    def test_an_image_too_large_to_be_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        folder = write_images(tmp_path / "video", [1])
        with pytest.raises(
            VideoReadError, match=r"does not decode: Image size \(240 pixels\) exce"
        ):
            read_video(folder)

    def test_images_of_several_sizes(self, tmp_path):
        write_images(tmp_path, [1])
        write_images(tmp_path, [2], size=(16, 12))
        message = r"expected images of one size, got img_00002\.jpg of 16 x 12 after one of 20 x 12"
        with pytest.raises(VideoReadError, match=message):
            read_video(tmp_path)

    def test_sixteen_bits_a_colour(self, tmp_path):
        Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)).save(tmp_path / "1.png")
        message = r": expected 8 bits a colour, got 1\.png of PIL's mode I;16$"
        with pytest.raises(VideoReadError, match=message):
            read_video(tmp_path)

    def test_a_folder_that_cannot_be_listed(self, tmp_path, monkeypatch):
        def refuse(folder):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("os.scandir", refuse)
        with pytest.raises(VideoReadError, match=r"the folder cannot be listed: \[Errno 13\] Perm"):
            read_video(tmp_path)
