"""What the probes said, and what to do where they failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmres2net.doctor.child import Answer
from mmres2net.doctor.packages import CORE, HOSTS, OWNERS, compile_mmcv, origin_of
from mmres2net.doctor.result import Result, installed, wanted

NAMES = {'opencv': 'OpenCV', 'faster_coco_eval': 'faster-coco-eval', 'mmcv_ops': 'mmcv ops'}
MODULES = {'opencv': 'cv2', 'mmcv_ops': 'mmcv', 'registry': 'mmres2net'}
DISTRIBUTIONS = {'opencv': 'opencv-python-headless', 'faster_coco_eval': 'faster-coco-eval'}
# Message to remedy, the first that fits; {package} is the distribution of the probe, {mmcv} the way to compile mmcv.
REMEDIES = (
    (
        r'undefined symbol|symbol not found|_ext.*(cannot open shared object|version `)',
        'mmcv was compiled against another torch; compile it anew: {mmcv}',
    ),
    (
        r"No module named 'mmcv\._ext'",
        'this mmcv has no compiled ops (mmcv-lite, or built where torch was not importable); compile it: {mmcv}',
    ),
    (
        r'operator torchvision::nms does not exist|torchvision.*(undefined symbol|has no attribute .extension)',
        'torch and torchvision are of different builds: pip uninstall -y torch torchvision, then install both from one'
        ' index',
    ),
    (
        r'libGL|libgthread|libglib',
        'pip uninstall -y opencv-python && pip install --force-reinstall --no-deps opencv-python-headless; or install'
        ' the system libraries: apt-get install libgl1 libglib2.0-0',
    ),
    (
        r'numpy\.(dtype|ndarray) size changed|multiarray failed to import|_ARRAY_API not found|compiled using NumPy 1',
        '{package} was compiled against another numpy: pip install --upgrade --force-reinstall --no-cache-dir --no-deps'
        ' {package}; if there is no newer one: pip install "numpy<2"',
    ),
    (r"No module named 'pkg_resources'", 'pip install "setuptools<82"'),
    (r'is used but incompatible', 'install the version that the message asks for, or the maintained {package}'),
    (r'no answer within', 'try it again on a quiet machine; if it still hangs, reinstall {package}'),
    (
        r'interpreter (crashed|ended)',
        'a compiled part does not fit the rest: pip install --force-reinstall --no-cache-dir --no-deps {package}',
    ),
)


def remedy_for(probe: str, error: str) -> str:
    """Return what to do about a failed probe."""
    module = MODULES.get(probe, probe)
    package = f'"{wanted(OWNERS[module][0] if module in OWNERS else DISTRIBUTIONS.get(probe, probe))}"'
    mmcv = compile_mmcv()

    for pattern, text in REMEDIES:
        if re.search(pattern, error):
            way = text.format(package=package, mmcv=mmcv)
            return f'compile it anew: {mmcv}' if probe == 'mmcv_ops' and '{package}' in text else way
    if probe == 'mmcv_ops':
        return f'compile it anew: {mmcv}'
    missing = re.search(r"No module named '([\w.]+)'", error)
    if missing and missing[1].split('.')[0] != module:
        return f'pip install {missing[1].split(".")[0]}'
    return f'pip install --force-reinstall --no-deps {package}'


def line_of(probe: str, answer: Answer, *, detail: str = '') -> Result:
    """Return the line of a probe that has no findings beyond that it ran."""
    name = NAMES.get(probe, probe)
    if answer.blocked:
        return Result(name, 'skip', f'not tried: it needs {NAMES.get(answer.blocked, answer.blocked)}, see there')
    if answer.error:
        return Result(name, 'fail', answer.error, remedy_for(probe, answer.error))
    return Result(name, 'ok', detail or f'{answer.facts["version"]} runs')


def check_coco(answers: Mapping[str, Answer]) -> Iterator[Result]:
    """Look at the two evaluators of COCO; the faster one may be absent."""
    yield line_of('pycocotools', answers['pycocotools'], detail=_ran(answers, 'pycocotools'))
    if installed('faster-coco-eval') is None:
        remedy = f'pip install "{wanted("faster-coco-eval")}", or evaluator="pycocotools" in the config'
        yield Result('faster-coco-eval', 'warn', 'not installed: COCO evaluation asks for it', remedy)
    else:
        yield line_of('faster_coco_eval', answers['faster_coco_eval'], detail=_ran(answers, 'faster_coco_eval'))


def _ran(answers: Mapping[str, Answer], probe: str) -> str:
    return f'{answers[probe].facts.get("version")} measures a mask right, with numpy {installed("numpy")}'


def check_libraries(answers: Mapping[str, Answer]) -> Iterator[Result]:
    """Look at numpy, OpenCV, torchvision, mmengine and mmcv."""
    for probe in ('numpy', 'opencv', 'torchvision', *CORE):
        yield line_of(probe, answers[probe])


def check_ops(answers: Mapping[str, Answer]) -> Iterator[Result]:
    """Look at mmcv's compiled operators on the CPU."""
    facts = answers['mmcv_ops'].facts
    detail = f'NMS and RoIAlign are right on the CPU; compiled with {facts.get("compiler")}, CUDA {facts.get("cuda")}'
    yield line_of('mmcv_ops', answers['mmcv_ops'], detail=detail)


def check_registry(answers: Mapping[str, Answer], hosts: Sequence[str]) -> Iterator[Result]:
    """Check that our names give our classes from everywhere, and that the bare names stay the hosts'."""
    answer = answers['registry']
    yield _own_names(answer.facts) if answer.good else line_of('registry', answer)
    for host in hosts:
        answer = answers[host]
        yield _names_in(host, answer.facts) if answer.good else line_of(host, answer)


def _own_names(facts: Mapping[str, Any]) -> Result:
    text = ', '.join(facts['ours'])
    remedy = f'find what else registers this name: grep -rn "{"|".join(facts["lost"] + facts["bare"])}" in your code'
    if facts['lost']:
        return Result('registry', 'fail', f'mmres2net.{facts["lost"][0]} gives another class than ours', remedy)
    if facts['bare']:
        detail = f"{', '.join(facts['bare'])} stands in the root registry without a scope, and shadows the hosts' own"
        return Result('registry', 'fail', detail, remedy)
    return Result('registry', 'ok', f'mmres2net.* gives our classes ({text}), and no bare name is taken')


def _names_in(host: str, facts: Mapping[str, Any]) -> Result:
    full, bare = facts['types']['mmres2net.Res2Net'], facts['types']['Res2Net']
    if not (full or '').startswith('mmres2net.'):
        remedy = f'look for a second copy of mmres2net beside {origin_of("mmres2net")}'
        return Result(host, 'fail', f"type='mmres2net.Res2Net' gives {full} in its configs", remedy)
    if bare is not None and not bare.startswith(f'{host}.'):
        remedy = f"find what registers Res2Net without a scope: it is in {bare}; ours is type='mmres2net.Res2Net'"
        return Result(host, 'fail', f"type='Res2Net' gives {bare}, not {host}'s own", remedy)
    own = f"; type='Res2Net' is {host}'s own" if bare else ''
    return Result(host, 'ok', f"{facts['version']}: type='mmres2net.Res2Net' is ours{own}")


def hosts_here() -> list[str]:
    """Return the hosts that can be found."""
    return [name for name in HOSTS if origin_of(name) is not None]


def check_data(answers: Mapping[str, Answer]) -> Iterator[Result]:
    """Say which data the shipped configs would find from the current folder; none is a failure."""
    answer = answers['data']
    if not answer.good:
        yield line_of('data', answer)
    for root, facts in answer.facts.get('roots', {}).items():
        missing, count = facts['missing'], len(facts['configs'])
        text = f'{count} configs such as {facts["configs"][0]} read it'
        if not missing:
            yield Result(root, 'ok', f'present; {text}')
        elif facts['embedded']:
            yield Result(root, 'ok', f'made on the first run; {text}')
        else:
            what = f'{missing[0]}{f" and {len(missing) - 1} more" if len(missing) > 1 else ""}'
            yield Result(root, 'note', f'not here: {what}; {text}', _get(facts['prepare']))


def _get(name: str) -> str:
    fetch = f'mmres2net prepare-data {name}, or ' if name else ''
    return f'{fetch}start where data/ lies, or give --data DIR to train and test'
