"""The I3D network: layout of the published one, SAME padding, and the dilated reading of it."""

import pytest
import torch
import torch.nn.functional as F

from gasmcast.extractors.i3d import (
    ENDPOINTS,
    InceptionI3d,
    _SameConv3d,
    _SameMaxPool3d,
    same_padding,
)

SHAPES_16_FRAMES = {
    "Conv3d_1a_7x7": (64, 8, 112, 112),
    "MaxPool3d_2a_3x3": (64, 8, 56, 56),
    "Conv3d_2b_1x1": (64, 8, 56, 56),
    "Conv3d_2c_3x3": (192, 8, 56, 56),
    "MaxPool3d_3a_3x3": (192, 8, 28, 28),
    "Mixed_3b": (256, 8, 28, 28),
    "Mixed_3c": (480, 8, 28, 28),
    "MaxPool3d_4a_3x3": (480, 4, 14, 14),
    "Mixed_4b": (512, 4, 14, 14),
    "Mixed_4c": (512, 4, 14, 14),
    "Mixed_4d": (512, 4, 14, 14),
    "Mixed_4e": (528, 4, 14, 14),
    "Mixed_4f": (832, 4, 14, 14),
    "MaxPool3d_5a_2x2": (832, 2, 7, 7),
    "Mixed_5b": (832, 2, 7, 7),
    "Mixed_5c": (1024, 2, 7, 7),
    "logits": (400, 1),
}


def randomize_batch_norm(model, generator):
    """Give BatchNorm statistics that a mistake in padding cannot hide behind."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.05, 0.2),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                tensor.uniform_(low, high, generator=generator)


def strided_and_dilated(width):
    torch.manual_seed(0)
    strided = InceptionI3d(width=width, final_endpoint="Mixed_4d").double().eval()
    randomize_batch_norm(strided, torch.Generator().manual_seed(0))
    dilated = InceptionI3d(width=width, final_endpoint="Mixed_4d", dilated=True).double().eval()
    dilated.load_state_dict(strided.state_dict())
    return strided, dilated


class TestLayout:
    def test_parameter_count_is_the_published_one(self):
        with torch.device("meta"):
            model = InceptionI3d()
        assert sum(p.numel() for p in model.parameters()) == 12_697_264

    def test_shape_of_every_endpoint(self):
        with torch.device("meta"):
            outputs = InceptionI3d().eval().forward_endpoints(torch.empty(2, 3, 16, 224, 224))
        assert tuple(outputs) == ENDPOINTS == tuple(SHAPES_16_FRAMES)
        assert {k: tuple(v.shape) for k, v in outputs.items()} == {
            k: (2, *shape) for k, shape in SHAPES_16_FRAMES.items()
        }

    def test_state_dict_has_the_keys_of_the_public_checkpoints(self):
        bn = [f"bn.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
        unit = ["conv3d.weight", *bn, "bn.num_batches_tracked"]
        units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
        for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
            units += [f"Mixed_{block}.{b}" for b in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
        expected = {f"{u}.{k}" for u in units for k in unit}
        with torch.device("meta"):
            state = InceptionI3d().state_dict()
        assert set(state) == expected | {"logits.conv3d.weight", "logits.conv3d.bias"}
        assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
        assert state["Mixed_4d.b1b.conv3d.weight"].shape == (256, 128, 3, 3, 3)
        assert state["Mixed_5c.b3b.conv3d.weight"].shape == (128, 832, 1, 1, 1)
        assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)

    def test_batch_norm_has_the_constants_of_the_original(self):
        norms = [
            m for m in InceptionI3d(width=0.125).modules() if isinstance(m, torch.nn.BatchNorm3d)
        ]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)}

    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    def test_only_layers_up_to_the_final_endpoint_are_built(self, endpoint):
        with torch.device("meta"):
            model = InceptionI3d(width=0.25, final_endpoint=endpoint)
        names = [name for name, _ in model.named_children()]
        assert tuple(names) == model.endpoint_names == ENDPOINTS[: ENDPOINTS.index(endpoint) + 1]
        assert model.final_endpoint == endpoint

    @pytest.mark.parametrize(
        ("endpoint", "dilated", "width", "channels", "stride"),
        [
            ("Mixed_3c", False, 1.0, 480, 2),
            ("Mixed_4d", False, 1.0, 512, 4),
            ("Mixed_4d", True, 1.0, 512, 2),
            ("Mixed_4d", True, 0.25, 128, 2),
            ("Mixed_5c", False, 0.5, 512, 8),
            ("logits", False, 0.25, 400, 8),
        ],
    )
    def test_attributes_say_the_shape(self, endpoint, dilated, width, channels, stride):
        with torch.device("meta"):
            model = InceptionI3d(width=width, final_endpoint=endpoint, dilated=dilated).eval()
        assert (model.feature_dim, model.temporal_stride) == (channels, stride)
        if endpoint != "logits":
            for frames in (1, 15, 16, 17):
                out = model(torch.empty(1, 3, frames, 32, 32, device="meta"))
                assert out.shape[1:3] == (channels, -(-frames // stride))

    def test_in_channels_for_flow(self):
        model = InceptionI3d(in_channels=2, width=0.125, final_endpoint="Conv3d_2c_3x3")
        assert model(torch.rand(1, 2, 4, 16, 16)).shape == (1, 24, 2, 4, 4)

    def test_every_parameter_gets_a_gradient(self):
        torch.manual_seed(0)
        model = InceptionI3d(width=0.125, final_endpoint="Mixed_4d", dilated=True)
        model(torch.randn(2, 3, 8, 32, 32)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


class TestLogits:
    def test_are_pooled_and_classified_for_each_time_step(self):
        torch.manual_seed(0)
        model = InceptionI3d(num_classes=5, width=0.0625).eval()
        features = torch.randn(2, 64, 3, 7, 7)
        head = model.logits.conv3d
        steps = [
            features[:, :, t : t + 2].mean((2, 3, 4)) @ head.weight.view(5, 64).T + head.bias
            for t in (0, 1)
        ]
        torch.testing.assert_close(model.logits(features), torch.stack(steps, dim=2))

    def test_are_averaged_over_time(self):
        torch.manual_seed(0)
        model = InceptionI3d(num_classes=5, width=0.0625).eval()
        x = torch.randn(1, 3, 17, 193, 193)
        with torch.no_grad():
            steps = model.forward_features(x)
            assert steps.shape == (1, 5, 2)
            torch.testing.assert_close(model(x), (steps[..., 0] + steps[..., 1]) / 2)

    def test_dropout_comes_before_the_classifier(self):
        model = InceptionI3d(num_classes=3, width=0.0625, dropout=1.0).train()
        logits = model.logits(torch.randn(2, 64, 2, 7, 7))
        torch.testing.assert_close(logits, model.logits.conv3d.bias.view(1, 3, 1).expand(2, 3, 1))

    def test_larger_frames_are_averaged_over_space(self):
        with torch.device("meta"):
            model = InceptionI3d(width=0.0625).eval()
            assert model(torch.empty(1, 3, 16, 256, 288)).shape == (1, 400)


class TestSamePadding:
    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "dilation", "expected"),
        [
            (224, 7, 2, 1, (2, 3)),
            (16, 7, 2, 1, (2, 3)),
            (5, 7, 2, 1, (3, 3)),
            (4, 3, 2, 1, (0, 1)),
            (5, 3, 2, 1, (1, 1)),
            (4, 3, 1, 1, (1, 1)),
            (4, 2, 2, 1, (0, 0)),
            (5, 2, 2, 1, (0, 1)),
            (8, 3, 1, 2, (2, 2)),
            (8, 3, 2, 2, (1, 2)),
            (1, 1, 2, 1, (0, 0)),
        ],
    )
    def test_by_hand(self, size, kernel, stride, dilation, expected):
        assert same_padding(size, kernel, stride, dilation) == expected

    @pytest.mark.parametrize(
        ("values", "stride", "dilation", "expected"),
        [
            ([1, 2, 3, 4], 2, 1, [6, 7]),  # 1+2+3, 3+4+0: the odd zero comes after
            ([1, 2, 3, 4, 5], 2, 1, [3, 9, 9]),  # 0+1+2, 2+3+4, 4+5+0
            ([1, 2, 3, 4], 1, 1, [3, 6, 9, 7]),
            ([1, 2, 3, 4], 1, 2, [4, 6, 4, 6]),  # 0+1+3, 0+2+4, 1+3+0, 2+4+0
        ],
    )
    def test_convolution_by_hand(self, values, stride, dilation, expected):
        conv = _SameConv3d(
            1, 1, (3, 1, 1), stride=(stride, 1, 1), dilation=(dilation, 1, 1), bias=False
        )
        conv.weight.data.fill_(1.0)
        x = torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1, 1)
        assert conv(x).flatten().tolist() == expected

    @pytest.mark.parametrize(
        ("values", "stride", "dilation", "expected"),
        [
            ([-1, -2, -3, -4], 2, 1, [-1, -3]),  # a padded zero would win
            ([-5, -4, -3, -2, -1], 2, 1, [-4, -2, -1]),
            ([-1, -2, -3, -4], 1, 2, [-1, -2, -1, -2]),
        ],
    )
    def test_pool_by_hand(self, values, stride, dilation, expected):
        pool = _SameMaxPool3d((3, 1, 1), (stride, 1, 1), (dilation, 1, 1))
        x = torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1, 1)
        assert pool(x).flatten().tolist() == expected

    def test_pads_each_dimension_by_itself(self):
        torch.manual_seed(0)
        conv = _SameConv3d(2, 3, (3, 7, 1), stride=(2, 2, 2), bias=False)
        x = torch.randn(1, 2, 5, 8, 4)
        padded = F.pad(x, (0, 0, 2, 3, 1, 1))  # width, height, time
        torch.testing.assert_close(conv(x), F.conv3d(padded, conv.weight, stride=2))


class TestDilated:
    @pytest.mark.parametrize("frames", [16, 12])
    def test_odd_outputs_equal_the_strided_network(self, frames):
        strided, dilated = strided_and_dilated(width=0.125)
        x = torch.rand(2, 3, frames, 32, 32, dtype=torch.float64) * 2 - 1
        with torch.no_grad():
            coarse, fine = strided(x), dilated(x)
        assert fine.shape == (2, 64, frames // 2, 2, 2)
        assert coarse.std() > 0.1
        torch.testing.assert_close(fine[:, :, 1::2], coarse, rtol=0, atol=1e-12)

    def test_odd_outputs_equal_the_strided_network_at_full_width(self):
        strided, dilated = strided_and_dilated(width=1.0)
        x = torch.rand(1, 3, 16, 32, 32, dtype=torch.float64) * 2 - 1
        with torch.no_grad():
            coarse, fine = strided(x), dilated(x)
        assert fine.shape == (1, 512, 8, 2, 2)
        torch.testing.assert_close(fine[:, :, 1::2], coarse, rtol=0, atol=1e-12)

    def test_even_outputs_equal_the_strided_network_on_the_shifted_clip(self):
        strided, dilated = strided_and_dilated(width=0.125)
        video = torch.rand(1, 3, 66, 32, 32, dtype=torch.float64) * 2 - 1
        with torch.no_grad():
            fine = dilated(video[:, :, :64])
            shifted = strided(video[:, :, 2:])
        difference = (fine[:, :, 2::2] - shifted[:, :, :-1]).abs().amax((0, 1, 3, 4))
        # These are outputs 2, 4, ..., 30. A clip's border reaches Conv3d_1a, then one step further
        # with each of 2c, 3b, 3c, 4a and two with 4b, 4c, 4d: outputs up to 10 and from 20 see it.
        inner, borders = difference[5:-6], torch.cat([difference[:5], difference[-6:]])
        assert inner.max() < 1e-12
        assert borders.min() > 1e-6

    def test_first_frame_reaches_as_far_as_in_the_strided_network(self):
        _, dilated = strided_and_dilated(width=0.125)
        x = torch.rand(1, 3, 64, 32, 32, dtype=torch.float64)
        changed = x.clone()
        changed[:, :, 0] += 1
        with torch.no_grad():
            difference = (dilated(x) - dilated(changed)).abs().amax((0, 1, 3, 4))
        # Conv3d_1a: 1 output; 2c, 3b, 3c, 4a reach 4 further; 4b, 4c, 4d reach 2 each.
        assert (difference > 0).nonzero().max() <= 1 + 4 + 6
        assert difference[0] > 0


class TestErrors:
    def test_unknown_endpoint(self):
        with pytest.raises(ValueError, match=r"final_endpoint must be one of .*got 'Mixed_9z'"):
            InceptionI3d(final_endpoint="Mixed_9z")

    @pytest.mark.parametrize("endpoint", ["Mixed_4e", "Mixed_5c", "logits"])
    def test_dilated_beyond_its_definition(self, endpoint):
        text = f"dilated=True is defined up to final_endpoint='Mixed_4d', got '{endpoint}'"
        with pytest.raises(ValueError, match=text):
            InceptionI3d(final_endpoint=endpoint, dilated=True)

    @pytest.mark.parametrize(
        ("kwargs", "text"),
        [
            ({"width": 0}, "width must be greater than 0, got 0"),
            ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
            ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ],
    )
    def test_arguments_out_of_range(self, kwargs, text):
        with pytest.raises(ValueError, match=text):
            InceptionI3d(**kwargs)

    @pytest.mark.parametrize("method", ["forward", "forward_features", "forward_endpoints"])
    def test_wrong_input(self, method):
        model = InceptionI3d(width=0.125, final_endpoint="Conv3d_1a_7x7")
        with pytest.raises(
            ValueError, match=r"x must be \[B, 3, T, H, W\], got \[1, 16, 3, 8, 8\]"
        ):
            getattr(model, method)(torch.zeros(1, 16, 3, 8, 8))

    def test_input_too_small_for_the_logits(self):
        model = InceptionI3d(width=0.0625).eval()
        text = r"2 x 7 x 7 \(9 frames of 193 x 193 pixels\), got features \[1, 7, 7\]"
        with pytest.raises(ValueError, match=text):
            model(torch.zeros(1, 3, 8, 224, 224))
