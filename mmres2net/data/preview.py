"""A contact sheet of a COCO data set: what the annotation file says, drawn on the images."""

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw


def contact_sheet(
    root: str | Path, *, split: str = 'train', first: int = 0, columns: int = 4, rows: int = 3, scale: int = 2
) -> Image.Image:
    """Draw `columns` x `rows` images of a COCO split from image `first` on, each enlarged `scale` times.

    Boxes and polygon masks are drawn on pixel edges, so that an error of one pixel shows; a crowd has its box alone.

    Raises:
        FileNotFoundError: `root` has no annotation file for this split.
        ValueError: the split has no image number `first`, or a size is less than 1.
    """
    if min(columns, rows, scale) < 1:
        raise ValueError(f'columns={columns}, rows={rows}, scale={scale}: choose 1 or more of each')
    path = Path(root) / 'annotations' / f'instances_{split}2017.json'
    coco = json.loads(path.read_text(encoding='utf-8'))
    images = coco['images'][first : first + columns * rows]
    if not images:
        raise ValueError(f'first={first}: {path} has {len(coco["images"])} images; choose less')
    names = {category['id']: category['name'] for category in coco['categories']}
    width, height = (scale * max(image[side] for image in images) + 4 for side in ('width', 'height'))
    sheet = Image.new('RGB', (columns * width, rows * height), 'white')
    for i, image in enumerate(images):
        tile = Image.open(Path(root) / f'{split}2017' / image['file_name']).convert('RGB')
        entries = [entry for entry in coco['annotations'] if entry['image_id'] == image['id']]
        sheet.paste(_annotated(tile, entries, names, scale), (i % columns * width, i // columns * height))
    return sheet


def _annotated(image: Image.Image, entries: list[dict[str, Any]], names: dict[int, str], scale: int) -> Image.Image:
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image, 'RGBA')
    for entry in entries:
        x, y, width, height = (scale * value for value in entry['bbox'])
        for polygon in [] if entry['iscrowd'] else entry['segmentation']:
            draw.polygon([scale * value for value in polygon], fill=(255, 255, 255, 60), outline='white')
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline='yellow')
        text = names[entry['category_id']] + (' (crowd)' if entry['iscrowd'] else '')
        place = (x, max(y - 12, 0))
        draw.rectangle(draw.textbbox(place, text), fill='black')
        draw.text(place, text, fill='white')
    return image
