"""The page of a comparison: ``report.html``, one static file without scripts and without anything from elsewhere."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from mmres2net.compare import figures
from mmres2net.compare.cost import costs_of
from mmres2net.compare.differences import settings_of, starts_of
from mmres2net.compare.gallery import Example, Network, examples_of
from mmres2net.compare.result import Comparison, Difference, Estimate, as_json
from mmres2net.drawing import Array
from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.version import __version__

TEMPLATE, SIGNIFICANT = 'report.html.j2', 0.05


def write(result: Comparison, folder: Path, *, cost: bool = True) -> Comparison:
    """Write ``report.html`` into ``folder`` and ``report.json`` again, with settings, starting weights and costs.

    What cannot be made, such as the gallery of networks that do not load, is left out, and the page says why. With
    ``cost`` time and memory are measured. The comparison that was written is returned.
    """
    networks, examples, missing = list[Network](), list[Example](), ''
    try:
        networks = [Network(side.runs[0]) for side in result.sides]
        examples = examples_of(result, networks)
    except UserError as error:
        missing = str(error)
    costs, note = costs_of(result.sides, networks if cost else ())
    if not networks or not cost:
        note = f'Time and memory were not measured: {missing if cost else "--no-cost"}. {note}'
    settings, starts = settings_of(result.sides), starts_of(result.sides)
    result = replace(result, settings=settings, starts=starts, costs=costs, cost_note=note)
    write_atomic(folder / 'report.json', as_json(result))
    write_atomic(folder / 'report.html', render(result, examples, missing))
    return result


def render(result: Comparison, examples: Sequence[Example], missing: str = '') -> str:
    """Return the text of the page; ``missing`` says why there are no examples."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    decimals = 3 if result.task == 'saliency' else 2

    def number(value: float | None, sign: str = '') -> str:
        return '' if value is None else f'{value:{sign}.{decimals}f}'.replace('-', '\N{MINUS SIGN}')

    def interval(one: Estimate) -> str:
        return '' if one.low is None else f'{number(one.low)} to {number(one.high)}'

    page.filters |= {'number': number, 'interval': interval, 'jpeg': _jpeg}
    page.tests |= {'shown': differs, 'significant': significant}
    template = page.from_string(files('mmres2net.compare').joinpath(TEMPLATE).read_text(encoding='utf-8'))
    versions = [', '.join(map(' '.join, run.versions.items())) for side in result.sides for run in side.runs]
    return template.render(
        result=result, plots=_plots(result), examples=examples, missing=missing, version=__version__,
        versions=list(dict.fromkeys(versions)),
    )  # fmt: skip


def differs(one: Difference) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return one.low is not None and one.high is not None and not one.low <= 0 <= one.high


def significant(one: Difference) -> bool:
    """Whether a difference by class holds after the correction for their number."""
    return one.p is not None and one.p < SIGNIFICANT


def _plots(result: Comparison) -> dict[str, Any]:
    sides, groups = result.sides, dict.fromkeys(curve.group for curve in result.curves)
    return {
        'metrics': figures.difference_plot(result.metrics, sides, differs),
        'classes': figures.difference_plot(result.by_class, sides, significant),
        'errors': figures.difference_plot(result.errors, sides, differs),
        'curves': [figures.curve_plot([one for one in result.curves if one.group == group], sides) for group in groups],
        'calibration': figures.calibration_plot(result.calibration, sides),
        'confusions': [figures.confusion_plot(one, sides) for one in result.confusions],
        'cost': figures.cost_plot(result.costs, result.metrics[0], sides),
        'training': figures.training_plot(result),
    }


def _jpeg(image: Array) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'jpeg', quality=85)
    return f'data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}'
