#!/usr/bin/env python3
"""Pack what ``tools/gpu_check.py`` needs on a machine that reaches no package index: wheels of the pinned versions.

The machine has torch, torchvision, timm, onnx, onnxruntime, scipy, matplotlib, OpenCV, rich, jinja2, tqdm, pytest and
pytest-xdist. The folder is about 16 MB, and git ignores ``.wheels``.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Distributed as sources alone; mmcv as a wheel without operators, and as the sources that are compiled there.
SOURCES = ['onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain', 'onedl-mmcv']
BINARY = [
    'addict', 'yapf', 'platformdirs', 'pycocotools', 'shapely', 'termcolor', 'prettytable', 'wcwidth', 'ftfy', 'mat4py',
    'modelindex', 'model-index', 'ordered-set', 'terminaltables', 'pysodmetrics', 'imaug', 'imagecorruptions-imaug',
    'rich',
]  # fmt: skip
PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux_2_27_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64')


def pip(*arguments: str) -> None:
    """Run pip, or end with its status."""
    done = subprocess.run([sys.executable, '-m', 'pip', *arguments], check=False)
    if done.returncode:
        sys.exit(f'status {done.returncode} of: pip {" ".join(arguments)}')


def main() -> None:
    """Fill the folder, and print its size."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument('--out', default=str(ROOT / '.wheels'), help='default: %(default)s')
    flags.add_argument('--python', default='3.12', help='of the other machine; default: %(default)s')
    args = flags.parse_args()
    pins = dict(re.findall(r'^([\w.-]+)==(\S+)', (ROOT / 'requirements.txt').read_text(), re.MULTILINE))
    chosen = {name: f'{name}=={pins[name]}' for name in (*SOURCES, *BINARY)}
    platforms = [part for name in PLATFORMS for part in ('--platform', name)]
    target = ('--only-binary', ':all:', '--python-version', args.python, '--implementation', 'cp', *platforms)
    pip('wheel', '-q', '--no-deps', '-w', args.out, *(chosen[name] for name in SOURCES))
    pip('download', '-q', '--no-deps', '--no-binary', ':all:', '-d', args.out, chosen['onedl-mmcv'])
    pip('download', '-q', '--no-deps', *target, '-d', args.out, *(chosen[name] for name in BINARY))
    files = list(Path(args.out).iterdir())
    print(f'{args.out}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
