"""The pages: links lead somewhere, commands have flags that exist, examples run."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmres2net import flags
from mmres2net.cli import main
from mmres2net.engine.config import load_config
from mmres2net.models import ARCHS
from mmres2net.paths import find_config
from tests.support.cli import run_cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'docker/README.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Commands that are run here as they stand, by their start; of all others the arguments are parsed.
RUN = ('complexity ', 'sweep run --dry-run')
# Of these commands the arguments are parsed: they need data, checkpoints, a cluster or hours, or depend on the machine.
NOT_RUN = {
    'cam', 'check-data', 'compare', 'configs', 'convert-data', 'convert-weights', 'doctor', 'export', 'merge',
    'predict', 'prepare-data', 'serve', 'submit', 'sweep', 'test', 'train',
}  # fmt: skip
SAME = ['mask_rcnn_r2n50.py', '--work-dir', '/shared/run', '--checkpoint-every', '10min', '--resume']  # on all clusters
# Fields that the schemas of Kubeflow Trainer and SkyPilot have, with lists as [].
FIELDS = """
.apiVersion .kind .metadata.name .spec.runtimeRef.name .spec.trainer.image .spec.trainer.numNodes
.spec.trainer.numProcPerNode .spec.trainer.command[] .spec.trainer.resourcesPerNode.limits.nvidia.com/gpu
.spec.podTemplateOverrides[].targetJobs[].name .spec.podTemplateOverrides[].spec.volumes[].name
.spec.podTemplateOverrides[].spec.volumes[].persistentVolumeClaim.claimName
.spec.podTemplateOverrides[].spec.containers[].name .spec.podTemplateOverrides[].spec.containers[].volumeMounts[].name
.spec.podTemplateOverrides[].spec.containers[].volumeMounts[].mountPath
.resources.accelerators .resources.use_spot .num_nodes .file_mounts./shared.name .file_mounts./shared.mode .setup .run
"""
ELSEWHERE = ('make', 'source', 'docker', 'pip', 'python', 'git', 'for', 'pytest')  # not of this project


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', page.read_text(), re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield page and arguments of ``mmres2net`` for each command of this project in a page."""
    for page in PAGES:
        for block in blocks(page, '(?:bash|sh)'):
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ['torchrun']:
                    words = words[words.index('--nproc-per-node') + 2 :]
                if words and words[0].startswith('tools/'):
                    yield page.name, [Path(words[0]).stem.replace('_', '-'), *words[1:]]
                elif words[:1] == ['mmres2net']:
                    yield page.name, words[1:]
                elif words:
                    assert words[0] in ELSEWHERE, f'{page.name}: {line}'


COMMANDS = list(commands())


class ParsedError(Exception):
    pass


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, args: object = None, namespace: object = None) -> None:
        raise ParsedError(parse(parser, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)


@pytest.mark.parametrize(('page', 'argv'), COMMANDS, ids=[f'{page}: {" ".join(argv)}'[:80] for page, argv in COMMANDS])
def test_command_has_flags_and_configs_that_exist(page: str, argv: list[str], parse_only: None) -> None:
    assert ' '.join(argv).startswith(RUN) or argv[0] in NOT_RUN
    with pytest.raises(ParsedError) as parsed:
        main(argv)
    assert getattr(parsed.value.args[0], 'backbone', None) in {None, *ARCHS}
    for word in argv:
        if word.startswith('configs/') or '::' in word:
            assert find_config(word).is_file()


@pytest.mark.parametrize('argv', [argv for _, argv in COMMANDS if ' '.join(argv).startswith(RUN)], ids=' '.join)
def test_command_runs(argv: list[str]) -> None:
    result = run_cli(*argv, cwd=ROOT)
    assert (result.status, bool(result.out)) == (0, True)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_to_files(page: Path) -> None:
    links = re.findall(r'\]\(([^)#]+)[^)]*\)', re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL))
    assert [link for link in links if '://' not in link and not (page.parent / link).exists()] == []
    named = re.findall(r'`((?:mmres2net|tests|configs|tools|benchmarks|docs|docker)/[\w./-]*)`', page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize('kind', ['bash', 'shell', 'yaml'])
def test_ways_to_start_on_a_cluster_parse_and_run_the_same_command(kind: str) -> None:
    assert subprocess.run([sys.executable, ROOT / 'tools/cluster_recipes.py', '--check']).returncode == 0
    for code in blocks(ROOT / 'docs/cluster.md', kind):
        if kind == 'yaml':
            content = yaml.safe_load(code)
            assert fields(content) <= set(re.findall(r'\S+', FIELDS))
            code = content.get('run') or shlex.join(map(str, content['spec']['trainer']['command']))
        subprocess.run(['bash', '-n'], input=code, text=True, check=True)
        command = re.search(r'mmres2net (\w+ .*)', code.replace('\\\n', ' '))
        assert command
        verb, *argv = shlex.split(command[1].replace('$SLURM_ARRAY_TASK_ID', '255'))
        found = flags.parse(verb, argv)
        if verb in ('train', 'submit'):
            assert argv[argv.index('mask_rcnn_r2n50.py') :][:6] == SAME or found.rest[:6] == SAME


def fields(content: Any, path: str = '') -> set[str]:
    """Return the paths of the values in YAML."""
    if isinstance(content, dict | list):
        parts = content.items() if isinstance(content, dict) else (('', one) for one in content)
        return {place for name, one in parts for place in fields(one, f'{path}.{name}' if name else f'{path}[]')}
    return {path}


def test_every_page_is_in_the_index_and_readme_is_short() -> None:
    index = (ROOT / 'docs/README.md').read_text()
    assert [page.name for page in (ROOT / 'docs').glob('*.md') if f'({page.name})' not in index] == ['README.md']
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


SNIPPETS = [(page, text) for page in PAGES for text in blocks(page, 'python')]
NOT_RUN_SNIPPETS = "predict.load('mask_rcnn.onnx')", "Predictor('work_dirs"  # the second one runs in tests/predict


@pytest.mark.parametrize(('page', 'text'), SNIPPETS, ids=[page.name for page, _ in SNIPPETS])
def test_python_runs(page: Path, text: str, tmp_path: Path) -> None:
    if any(needle in text for needle in NOT_RUN_SNIPPETS):
        compile(text, page, 'exec')
    elif '_base_' in text:
        (tmp_path / 'config.py').write_text(text)
        load_config(str(tmp_path / 'config.py'))
    else:
        exec(text, {})


def test_dict_of_the_readme_is_that_of_the_configs() -> None:
    config: dict = {}
    exec(blocks(ROOT / 'README.md', 'python')[0], config)
    backbone = config['model']['backbone']
    backbone.pop('_delete_')
    assert backbone.items() <= load_config('faster_rcnn_r2n50.py').model.backbone.to_dict().items()
