"""A contender's process for the tests of the runner: answers as its name says."""

import json
import sys
import time

import numpy as np

name = ''
for line in sys.stdin:
    request = json.loads(line)
    do, name = request['do'], request.get('name', name)
    answer: dict = {'ok': {}}
    if do == 'outputs':
        np.savez(request['file'], out=np.array([1.0, 2.2 if name == 'wrong' else 2.0]))
    elif do == 'time':
        answer = {'ok': {'seconds': 0.002 if name == 'slow' else 0.001}}
    if name == 'missing':
        answer = {'missing': 'no such package'}
    elif name == 'failing' and do == 'time':
        answer = {'error': 'ValueError: broken'}
    elif name == 'ending' and do == 'time':
        sys.exit('last words')
    elif name == 'hanging' and do == 'build':
        time.sleep(60)
    print(json.dumps(answer), flush=True)
