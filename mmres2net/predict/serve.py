"""``mmres2net serve``: a page on which an image is dropped and the predictions of one or two models are drawn.

Nothing leaves the machine: the page may load from its own server alone, and gradio sends no statistics.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmres2net.errors import UserError, optional
from mmres2net.flags import parse
from mmres2net.predict.images import read_image
from mmres2net.predict.model import Predictor
from mmres2net.predict.results import keep_above

MOST = 2  # models side by side
DEFAULT_SCORE = 0.3
OWN_SERVER_ONLY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: data: blob:; "
    "form-action 'self'; frame-ancestors 'self'"
)
MAX_FILE = '100mb'
KEPT = 600, 3600  # seconds between removals of uploaded images, and how old these are


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page by the flags in ``argv`` until the process is stopped; a UserError if it cannot start."""
    args = parse('serve', argv)
    if len(args.models) > MOST:
        raise UserError(f'{len(args.models)} models: name one, or two to compare')
    if len(args.config) > len(args.models):
        raise UserError(f'--config names {len(args.config)} configs for {len(args.models)} models')
    library()
    with open_socket(args.host, args.port) as listener:
        configs = [*args.config, *[None] * MOST]
        predictors = [
            Predictor(
                name, config=config, device=args.device, precision=args.amp, threads=args.threads,
                allow_unsafe_checkpoint=args.allow_unsafe_checkpoint,
            )
            for name, config in zip(args.models, configs, strict=False)
        ]  # fmt: skip
        for predictor in predictors:
            print(f'model: {predictor.metadata.source}')
        names = [Path(name).name for name in args.models]
        run(make_app(predictors, names if len(set(names)) == len(names) else args.models), listener)


def library() -> Any:
    """Return gradio, told to send no statistics; a UserError if it is not installed."""
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    return optional('gradio', 'gradio>=6', 'pages')


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is a free one. A UserError says that it is taken."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f'--host {host} --port {port}: {error}; choose another port, or 0 for a free one') from error


def make_page(predictors: Sequence[Predictor], titles: Sequence[str]) -> Any:
    """Return the page as gradio's ``Blocks``: image, threshold, and a drawing of each model."""
    gradio = library()

    def draw(path: str | None, score: float, predictions: list[Any]) -> dict[Any, Any]:
        if path is None or not predictions:
            return dict.fromkeys(boards)
        found = [keep_above(prediction, score) for prediction in predictions]
        return {board: p.draw(path, one) for board, p, one in zip(boards, predictors, found, strict=True)}

    def predict(path: str | None, score: float) -> dict[Any, Any]:
        if path is None:
            return {kept: [], **draw(None, score, [])}
        try:
            read_image(path)
            predictions = [predictor(path) for predictor in predictors]
        except UserError as error:
            raise gradio.Error(str(error)) from error
        return {kept: predictions, **draw(path, score, predictions)}

    with gradio.Blocks(title='mmres2net', analytics_enabled=False, delete_cache=KEPT) as page:
        gradio.Markdown(f'# mmres2net\n{" | ".join(predictor.metadata.source for predictor in predictors)}')
        kept = gradio.State([])
        with gradio.Row():
            image = gradio.Image(type='filepath', label='image', sources=['upload', 'webcam', 'clipboard'])
            boards = [
                gradio.Image(label=title, interactive=False, format='png', buttons=['download', 'fullscreen'])
                for title in titles
            ]
        detects = any(predictor.metadata.task == 'detection' for predictor in predictors)
        score = gradio.Slider(0, 1, DEFAULT_SCORE, step=0.01, label='score: weaker ones are hidden', visible=detects)
        image.change(predict, [image, score], [kept, *boards], api_name=False)
        score.change(draw, [image, score, kept], boards, api_name=False, trigger_mode='always_last')
    return page


def make_app(predictors: Sequence[Predictor], titles: Sequence[str]) -> Any:
    """Return the page as an application of FastAPI whose answers forbid the browser every other server."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.middleware('http')
    async def forbid_others(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers['Content-Security-Policy'] = OWN_SERVER_ONLY
        return response

    page = make_page(predictors, titles)
    return library().mount_gradio_app(app, page, path='/', max_file_size=MAX_FILE, footer_links=[])


def run(app: Any, listener: socket.socket) -> None:
    """Serve an application on an open socket until the process is stopped."""
    import uvicorn

    host, port = listener.getsockname()[:2]
    print(f'serving on http://{f"[{host}]" if ":" in host else host}:{port}, Ctrl-C stops it', flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level='warning')).run(sockets=[listener])
