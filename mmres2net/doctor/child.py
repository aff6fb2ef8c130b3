"""Ask a fresh interpreter: an import that is broken may end it, and may hang, without harm to this one.

One child answers as many probes as it survives, for importing torch takes seconds. With the first that fails it ends,
and a fresh one goes on with the rest: what a failed import leaves behind must not spoil the next answer.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmres2net.doctor.probes import NEEDS

PATIENCE = 120.0  # seconds; a cold disk has taken 40 for torch alone
LONGEST = 400  # characters of an error message
# The child gets this process's search path: a doctor that looks elsewhere than the patient is of no use.
START = 'import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); from mmres2net.doctor.probes import main; main()'


@dataclass(frozen=True)
class Answer:
    """What a probe said.

    Attributes:
        facts: What it found; empty where it failed.
        error: Why it failed; empty where it did not.
        blocked: The probe that failed before, for want of which this one was not tried.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ''
    blocked: str = ''

    @property
    def good(self) -> bool:
        """Whether the probe ran to its end."""
        return not (self.error or self.blocked)


def ask(probes: Sequence[str], patience: float = PATIENCE) -> dict[str, Answer]:
    """Return the answers of some probes of :mod:`mmres2net.doctor.probes`, by name.

    Args:
        probes: In an order in which each comes after those that it needs.
        patience: Seconds that a child gets.
    """
    answers: dict[str, Answer] = {}
    while True:
        for name in probes:
            blocker = next((need for need in NEEDS[name] if need in answers and not answers[need].good), '')
            if name not in answers and blocker:
                answers[name] = Answer(blocked=answers[blocker].blocked or blocker)
        left = [name for name in probes if name not in answers]
        if not left:
            return answers
        answers |= _ask_one_child(left, patience)


def _ask_one_child(probes: Sequence[str], patience: float) -> dict[str, Answer]:
    """Return the answers up to the first that fails, at least one."""
    command = [sys.executable, '-X', 'faulthandler', '-c', START, json.dumps(sys.path), *probes]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
        out, last = done.stdout, _last_words(done.returncode, done.stderr.decode('utf-8', 'replace'))
    except subprocess.TimeoutExpired as late:
        out, last = late.stdout or b'', f'no answer within {patience:.0f} s'
    answers = {}
    for line in out.decode('utf-8', 'replace').splitlines():
        entry = json.loads(line)
        answers[entry['probe']] = Answer(entry.get('facts', {}), shorten(entry.get('error', '')))
    silent = next((name for name in probes if name not in answers), None)
    if silent and all(answer.good for answer in answers.values()):
        answers[silent] = Answer(error=last)
    return answers


def _last_words(status: int, stderr: str) -> str:
    """Return how a child ended that gave no answer: by which signal, and where in the code it was."""
    ending = f'the interpreter ended with status {status}'
    if status < 0:
        ending = f'the interpreter crashed with {signal.Signals(-status).name}'
    frame = re.search(r'^  File "([^<].*)", line (\d+) in ', stderr, re.MULTILINE)  # not importlib's <frozen ...>
    lines = stderr.strip().splitlines()
    place = f' at {frame[1]}:{frame[2]}' if frame else f': {lines[-1]}' if lines else ''
    return shorten(ending + place)


def shorten(text: str) -> str:
    """Return a message on one line, cut to what a report can hold."""
    text = ' '.join(text.split())
    return text if len(text) <= LONGEST else f'{text[:LONGEST]} ...'
