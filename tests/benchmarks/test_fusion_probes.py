import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from benchmarks import probes, progression
from benchmarks.compression import halves, recovered
from gasmcast import BottleneckCrossAttention, TemporalCrossAttentionModel
from gasmcast.nn import CrossAttentionWeights
from small import small_model


def test_principal_components_of_low_rank_keep_all_and_of_noise_their_share():
    torch.manual_seed(0)
    tokens = torch.randn(10, 40, 3) @ torch.randn(3, 8)  # rank 3
    pca = PCA(3).fit(halves(tokens)[0].flatten(0, 1).numpy())
    assert recovered(lambda x: torch.from_numpy(pca.transform(x.numpy())), tokens) > 0.9999
    noise = torch.randn(40, 200, 8)
    pca = PCA(2).fit(halves(noise)[0].flatten(0, 1).numpy())
    kept = recovered(lambda x: torch.from_numpy(pca.transform(x.numpy())), noise)
    assert kept == pytest.approx(2 / 8, abs=0.02)


def test_gradients_of_the_answers_by_hand():
    classifier = nn.Linear(2, 2)
    nn.init.eye_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    semantic, motion = torch.tensor([[[2.0], [0.0]]]), torch.tensor([[[0.0]]])
    found = probes.loss_gradients(classifier, semantic, motion)
    wrong = 1 / (1 + torch.tensor(1.0).exp())  # of logits 1 and 0: how much is not the answer
    # Each of two patches has half a share in the mean.
    torch.testing.assert_close(found[0], torch.full((1, 2, 1), -float(wrong) / 2))
    torch.testing.assert_close(found[1], torch.full((1, 1, 1), float(wrong)))


def test_cut_layers_are_compared_clip_by_clip():
    torch.manual_seed(0)
    layers = [BottleneckCrossAttention(6, 5, 4, 2) for _ in range(2)]
    for layer in layers:
        nn.init.normal_(layer.sem_expand.weight, std=2)
    classifier = nn.Linear(11, 3)
    semantic, motion = torch.randn(40, 4, 6), torch.randn(40, 3, 5)
    places, labels = (torch.rand(4, 2), torch.rand(3, 1)), torch.randint(3, (40,))

    def logits(kept):
        streams = semantic, motion
        for layer in kept:
            streams = layer(*streams, *places)
        return classifier(torch.cat([stream.mean(1) for stream in streams], dim=1))

    with torch.no_grad():
        rows = progression.run_cut(layers, classifier, semantic, motion, places, labels)
        full, none = logits(layers), logits([])
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()[2:]]
    assert cells[0][3:] == ["", "0"]
    assert cells[-1][4] == str(int((full.argmax(1) != none.argmax(1)).sum())) != "0"
    more = F.cross_entropy(none, labels) - F.cross_entropy(full, labels)
    assert float(cells[-1][3].split()[0]) == pytest.approx(float(more), abs=1e-4)


def test_the_yardstick_is_a_clip_of_the_other_class():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    maps = torch.stack([one, one, other, other]).view(4, 1, 1, 2)  # two clips of each class
    row = progression.run_drift([CrossAttentionWeights(maps, maps)] * 3).splitlines()[2]
    assert row.split(" | ")[1:7] == ["0.00", "0.00", "0.00", "1.00", "1.00", "1.00"]


@pytest.mark.parametrize("fusion", ["late", "cross_attention"])
def test_a_model_without_bottleneck_is_refused(fusion):
    class Rendered:
        classes = ("a", "b", "c")

    model = small_model(3, class_names=["a", "b", "c"], fusion=fusion)
    assert isinstance(model, TemporalCrossAttentionModel)
    with pytest.raises(ValueError, match='must have been made with fusion="bottleneck"'):
        probes.run(model, None, Rendered)
