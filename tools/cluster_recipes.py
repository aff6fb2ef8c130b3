#!/usr/bin/env python3
"""Write the ways to start on a cluster into docs/cluster.md: `tools/cluster_recipes.py [--check]`."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / 'docs/cluster.md'
NODES, GPUS, DISK, PORT = 2, 8, '/shared', 29400
COMMAND = f'mmres2net train mask_rcnn_r2n50.py --work-dir {DISK}/run --checkpoint-every 10min --resume'
PREDICT = f'mmres2net predict {DISK}/run {DISK}/images --out {DISK}/out --batch 16'
BY_TORCH = f'-m {COMMAND} --launcher pytorch'
RECIPES = {
    'torchrun': f"""shell
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
torchrun --nnodes {NODES} --nproc-per-node {GPUS} --rdzv-backend c10d --rdzv-endpoint FIRST:{PORT} --max-restarts 3 \\
    {BY_TORCH}
""",
    'submitit': f"""bash
{COMMAND.replace(' train', ' submit train')} \\
    --nodes {NODES} --gpus-per-node {GPUS} --cpus-per-task 8 --partition PARTITION --hours 24
""",
    'sbatch': f"""shell
#!/bin/bash
#SBATCH --nodes={NODES} --ntasks-per-node={GPUS} --gpus-per-node={GPUS} --cpus-per-task=8
#SBATCH --time=24:00:00 --signal=USR1@120 --requeue --open-mode=append
srun --kill-on-bad-exit=1 {COMMAND} --launcher slurm
if [ $? -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
""",
    'trainjob': f"""yaml
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata: {{name: mmres2net}}
spec:
  runtimeRef: {{name: torch-distributed}}
  trainer:
    image: REGISTRY/mmres2net
    numNodes: {NODES}
    numProcPerNode: {GPUS}
    command: [torchrun, {BY_TORCH.replace(' ', ', ')}]
    resourcesPerNode: {{limits: {{nvidia.com/gpu: {GPUS}}}}}
  podTemplateOverrides:
    - targetJobs: [{{name: node}}]
      spec:
        volumes: [{{name: disk, persistentVolumeClaim: {{claimName: CLAIM}}}}]
        containers: [{{name: node, volumeMounts: [{{name: disk, mountPath: {DISK}}}]}}]
""",
    'skypilot': f"""yaml
resources: {{accelerators: 'H100:{GPUS}', use_spot: true}}
num_nodes: {NODES}
file_mounts:
  {DISK}: {{name: BUCKET, mode: MOUNT}}
setup: pip install 'mmres2net[all]'
run: |
  torchrun --nnodes $SKYPILOT_NUM_NODES --node-rank $SKYPILOT_NODE_RANK --nproc-per-node $SKYPILOT_NUM_GPUS_PER_NODE \\
    --master-addr $(echo "$SKYPILOT_NODE_IPS" | head -n1) --master-port {PORT} {BY_TORCH}
""",
    'array': f"""shell
#!/bin/bash
#SBATCH --array=0-255 --gpus=1 --cpus-per-task=8 --requeue
{PREDICT} --shard "$SLURM_ARRAY_TASK_ID"/256
""",
    'ray': f"""shell
ray job submit --address http://HEAD:8265 -- {PREDICT} --device cuda --ray {NODES * GPUS}
""",
}


def page() -> str:
    """Return the page with the block behind each mark as the table has it."""
    text = PAGE.read_text()
    for name, block in RECIPES.items():
        text, count = re.subn(rf'(<!-- {name} -->\n)```.*?```', lambda old: f'{old[1]}```{block}```', text, flags=re.S)  # noqa: B023
        assert count == 1, name
    return text


if __name__ == '__main__':
    if sys.argv[1:] == ['--check']:
        sys.exit(PAGE.read_text() != page())
    PAGE.write_text(page())
