"""The page in a browser: an image is dropped, two models draw, the slider hides detections, nothing else is loaded."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from PIL import Image

from mmres2net import Predictor
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict import serve

SCENE = draw_scene(DEFAULT_SPEC, 'val', 1).image
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


@pytest.fixture
def page() -> Iterator[Any]:
    pytest.importorskip('gradio')
    api = pytest.importorskip('playwright.sync_api')
    if not CHROMIUM:
        pytest.skip('no chromium')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser.new_page(viewport={'width': 1280, 'height': 900})
        browser.close()


def test_an_image_is_dropped_and_both_models_draw(exports: dict, page: Any, tmp_path: Path) -> None:
    listener = serve.open_socket('127.0.0.1', 0)
    address = f'http://127.0.0.1:{listener.getsockname()[1]}'
    app = serve.make_app([Predictor(exports[f'{name}.onnx']) for name in ('detector', 'agnostic')], ['left', 'right'])
    threading.Thread(target=serve.run, args=(app, listener), daemon=True).start()
    places: list[str] = []
    page.on('requestfinished', lambda request: places.append(urlparse(request.url).netloc))
    page.goto(address)
    Image.fromarray(SCENE).save(tmp_path / 'scene.png')
    page.set_input_files('input[type=file]', str(tmp_path / 'scene.png'))
    drawn = page.locator('.image-frame img')
    drawn.nth(2).wait_for(timeout=60_000)
    assert drawn.count() == 3
    before = drawn.nth(1).get_attribute('src')
    page.locator('input[type=number]').fill('1')
    page.locator('input[type=number]').press('Enter')
    api = pytest.importorskip('playwright.sync_api')
    api.expect(drawn.nth(1)).not_to_have_attribute('src', before, timeout=60_000)
    assert set(places) <= {urlparse(address).netloc, ''}


def test_mistakes_are_errors_before_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, 'library', lambda: None)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        wrong = ['a b c', 'a --config b c', f'a --port {port}', 'a --host no.such.host.invalid', 'a --port 99999']
        for flags in (*wrong, 'absent.pth --port 0'):
            with pytest.raises(UserError):
                serve.main(flags.split())
