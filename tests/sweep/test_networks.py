"""The networks of a sweep: which there are, how large, and what a config has."""

import pytest
from mmengine.config import Config, DictAction

from mmres2net.complexity import parameters_of
from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.flags import SWEEP_CONFIG, SWEEP_VALUES
from mmres2net.sweep.runs import AXES, Network, network_of, networks_of

BASELINE = Network(29, 6, 1)


def with_network(cfg: Config, network: Network) -> Config:
    pairs = [option.split('=') for option in network.options]
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    return cfg


def test_each_network_differs_from_the_baseline_in_one_dimension() -> None:
    networks = networks_of(SWEEP_VALUES, AXES)
    assert networks[0] == BASELINE  # section 4.4
    assert len(networks) == len(set(networks)) == 1 + 3 * 5
    assert [BASELINE.changed(network) for network in networks[1:]] == [[axis] for axis in AXES for _ in range(5)]
    assert [network.scale for network in networks[-5:]] == [2, 3, 4, 5, 6]
    values = {'cardinality': [4, 2, 4], 'depth': [20, 11], 'scale': [3, 1]}
    assert networks_of(values, ['scale'], width=8) == [Network(11, 2, 1, 8), Network(11, 2, 3, 8)]
    assert networks_of(values, ['depth', 'cardinality'])[1:] == [Network(20, 2, 1), Network(11, 4, 1)]


def test_sizes_of_the_axes_are_alike() -> None:
    """The figure compares networks of one size: the values of each axis are as large as those of the scales."""
    cfg = load_config(SWEEP_CONFIG)
    sizes: dict[str, list[int]] = {axis: [] for axis in AXES}
    for network in networks_of(SWEEP_VALUES, AXES)[1:]:
        sizes[BASELINE.changed(network)[0]].append(parameters_of(with_network(cfg, network)))
    for axis in ('cardinality', 'depth'):
        assert sizes[axis] == pytest.approx(sizes['scale'], rel=0.12)


WRONG_VALUES = [
    (dict(depth=[30, 29]), '--depth 30'), (dict(depth=[2, 29]), '--depth 2'), (dict(scale=[0, 1]), '--scale 0'),
    (dict(cardinality=[6]), '--cardinality 6'), (dict(cardinality=[6, 6]), '--cardinality 6'),
]  # fmt: skip


@pytest.mark.parametrize(('values', 'named'), WRONG_VALUES)
def test_values_without_a_network_are_one_error(values: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        networks_of({**SWEEP_VALUES, **values}, AXES)
    with pytest.raises(UserError, match='--width 0'):
        networks_of(SWEEP_VALUES, AXES, 0)


def test_config_has_the_network_of_its_options() -> None:
    cfg = load_config(SWEEP_CONFIG)
    assert network_of(cfg) == BASELINE
    for network in (Network(11, 2, 3, 8), Network(164, 6, 1)):
        assert network_of(with_network(cfg, network)) == network
    assert network_of(load_config('cifar100/res2next29_6c24w4s.py')) == Network(29, 6, 4, 24)  # of table 4
    for name in ('cifar100/se_resnext29_8c64w', 'cifar100/wrn28_10', 'faster_rcnn_r50'):
        with pytest.raises(UserError, match='cifar'):
            network_of(load_config(name))
