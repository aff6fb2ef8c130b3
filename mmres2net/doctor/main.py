"""``mmres2net doctor``: all checks, as aligned lines or as JSON, and an exit status."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmres2net.doctor import compiled, cuda, machine, packages
from mmres2net.doctor.child import Answer, ask
from mmres2net.doctor.probes import PROBES
from mmres2net.doctor.result import PACKAGE, Check, Result, guarded
from mmres2net.errors import UserError
from mmres2net.version import __version__

REQUIRABLE = (*packages.HOSTS, 'cuda')
LABELS = {'ok': 'ok', 'note': 'note', 'warn': 'warn', 'fail': 'FAIL', 'skip': 'skip'}
WORDS = {'fail': 'failed', 'warn': 'to look at', 'skip': 'not tried', 'note': 'to know', 'ok': 'fine'}


def sections(required: frozenset[str]) -> dict[str, list[Result]]:
    """Run all checks; return their results by the title of the section."""
    hosts = compiled.hosts_here()
    answers = ask([name for name in PROBES if name not in packages.HOSTS or name in hosts])
    checks: dict[str, Mapping[str, Check]] = {
        'packages': {
            'Python': packages.check_python,
            'owners': partial(packages.check_owners, required),
            'one set': packages.check_sets,
            'ceilings': packages.check_ceilings,
            'version ranges': packages.check_requirements,
            'torch pair': packages.check_pair,
            'OpenCV owner': packages.check_opencv,
            'pkg_resources': packages.check_pkg_resources,
        },
        'what runs': _compiled(answers, required, hosts),
        'machine': {
            'disk': machine.check_disk,
            'memory': machine.check_memory,
            'cores': machine.check_cores,
            'writable': machine.check_writable,
        },
        'data of the shipped configs': {'data': partial(compiled.check_data, answers)},
    }
    return {
        title: [result for name, check in group.items() for result in guarded(name, check)]
        for title, group in checks.items()
    }


def _compiled(answers: Mapping[str, Answer], required: frozenset[str], hosts: Sequence[str]) -> Mapping[str, Check]:
    return {
        'torch': partial(cuda.check_torch, answers),
        'libraries': partial(compiled.check_libraries, answers),
        'mmcv ops': partial(compiled.check_ops, answers),
        'mmcv CUDA ops': partial(cuda.check_mmcv, answers, required),
        'COCO': partial(compiled.check_coco, answers),
        'registry': partial(compiled.check_registry, answers, hosts),
    }


def as_text(found: Mapping[str, Sequence[Result]]) -> str:
    """Return the report: a line a result with its remedy below, section by section, and a summary."""
    everything = [result for results in found.values() for result in results]
    width = max(len(result.name) for result in everything)
    lines = []
    for title, results in found.items():
        lines.append(f'{title}:')
        for result in results:
            lines.append(f'  {LABELS[result.status]:<4}  {result.name:<{width}}  {result.detail}')
            lines += [f'        -> {result.remedy}'] if result.remedy else []
        lines.append('')
    return '\n'.join([*lines, summary(everything)])


def summary(results: Iterable[Result]) -> str:
    """Return the counts in words, the worst first."""
    counts: Counter[str] = Counter(result.status for result in results)
    return ', '.join(f'{counts[status]} {word}' for status, word in WORDS.items() if counts[status])


def as_json(found: Mapping[str, Sequence[Result]]) -> str:
    """Return the same for programs: ``version``, ``ok``, ``counts`` by status and ``results`` in order."""
    rows = [{'section': title, **vars(result)} for title, results in found.items() for result in results]
    counts = Counter(row['status'] for row in rows)
    record = {'version': __version__, 'ok': not counts['fail'], 'counts': counts, 'results': rows}
    return json.dumps(record, indent=1)


def parser(prog: str = f'{PACKAGE} doctor') -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Check this environment: versions, owners, compiled parts, CUDA, registries, disk, memory, data.',
        epilog='exit status: 0 if nothing failed (warnings are fine), 1 if something did. Takes about ten seconds,'
        ' changes nothing and uses no network.',
    )
    flags.add_argument(
        '--json', nargs='?', const='-', metavar='FILE', help='write JSON to FILE, or instead of the text'
    )
    flags.add_argument(
        '--require',
        nargs='+',
        choices=REQUIRABLE,
        default=[],
        metavar='WHAT',
        help=f'fail without it; of: {", ".join(REQUIRABLE)} (operators compiled for CUDA)',
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and print the report; return 1 if one failed, else 0.

    Raises:
        UserError: The file for JSON cannot be written.
    """
    args = parser().parse_args(argv)
    if args.json not in (None, '-') and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f'--json {args.json}: the folder {Path(args.json).absolute().parent} does not exist; make it')
    found = sections(frozenset(args.require))
    if args.json == '-':
        print(as_json(found))
    else:
        print(as_text(found))
    if args.json not in (None, '-'):
        try:
            Path(args.json).write_text(as_json(found) + '\n', encoding='utf-8')
        except OSError as error:
            raise UserError(f'--json {args.json}: {error.strerror}; give another file') from error
    return int(any(result.status == 'fail' for results in found.values() for result in results))
