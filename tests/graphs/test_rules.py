import pytest
import torch

from gasmcast import build_spatial_graph, generate_spatial_positions
from gasmcast.graphs.rules import cosine_similarity, keep_most_similar


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 67), (2, 5, 768), (2, 31, 1333), (2, 203, 67)])
def test_similarity_is_symmetric_to_the_last_bit(shape, dtype):
    # At such sizes a matrix product need not be: its kernels add up in an order of their own.
    torch.manual_seed(0)
    similarity = cosine_similarity(torch.randn(shape, dtype=dtype))
    assert similarity.dtype == dtype
    assert torch.equal(similarity, similarity.transpose(1, 2))
    diagonal = similarity.diagonal(dim1=1, dim2=2)
    assert torch.equal(diagonal, torch.ones_like(diagonal))


def test_similarity_by_hand():
    features = torch.tensor([[[3.0, 4.0], [-4.0, 3.0], [6.0, 8.0], [0.0, 2.0], [0.0, 0.0]]])
    expected = torch.tensor(
        [
            [1.0, 0.0, 1.0, 0.8, 0.0],
            [0.0, 1.0, 0.0, 0.6, 0.0],
            [1.0, 0.0, 1.0, 0.8, 0.0],
            [0.8, 0.6, 0.8, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    torch.testing.assert_close(cosine_similarity(features)[0], expected)


def test_ties_over_hundreds_of_nodes_go_to_the_smaller_index():
    similarity = torch.ones(2, 300, 300)
    candidates = torch.ones(2, 300, 300, dtype=torch.bool)
    candidates[1, :, :7] = False
    kept = keep_most_similar(candidates, similarity, 5)
    expected = torch.zeros(2, 300, 300, dtype=torch.bool)
    expected[0, :, :5] = expected[1, :, 7:12] = True
    assert torch.equal(kept, expected)


def test_fewer_candidates_than_places_are_all_kept():
    torch.manual_seed(0)
    candidates = torch.rand(2, 6, 6) < 0.4
    similarity = torch.rand(2, 6, 6)
    for places in (6, 10):
        assert torch.equal(keep_most_similar(candidates, similarity, places), candidates)
    assert not keep_most_similar(candidates, similarity, 0).any()


def test_what_does_not_exist_takes_no_place_under_the_cap():
    # All are alike and far apart; by their index, those that do not exist would come first.
    features, positions = torch.ones(2, 8, 3), torch.arange(8.0)[:, None].repeat(1, 2) * 10
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, :3] = mask[1, 1] = False
    padded = build_spatial_graph(positions, features=features, mask=mask, max_neighbors=2)
    for clip, graph in enumerate(padded.to_data_list()):
        existing = mask[clip]
        alone = build_spatial_graph(
            positions[existing], features=features[clip, existing], max_neighbors=2
        )
        assert torch.equal(graph.edge_index, alone.edge_index)
        assert graph.num_edges == 3 * int(existing.sum())  # two places and the self-loop


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_beyond_half_precision_is_no_overflow(dtype):
    features = torch.full((4, 768), 3000.0, dtype=dtype)  # norm 83,138; float16 ends at 65,504
    features[3] *= -1
    graph = build_spatial_graph(generate_spatial_positions(2), features=features)
    source, target = graph.edge_index
    opposite = (source == 3) != (target == 3)
    assert graph.edge_attr.dtype == dtype
    expected = torch.where(opposite, -1.0, 1.0).to(dtype)
    torch.testing.assert_close(graph.edge_attr[:, -1], expected)
