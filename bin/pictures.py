"""Makes a picture of a screen small: 256 colours are enough for one, and a third of its bytes."""

import base64
import struct
import zlib
from collections.abc import Sequence

from playwright.sync_api import Page

#: The browser decodes the picture and counts its colours. The most frequent stay, but none that is hardly another than one that stays
#: already, so that a rare hue has a place too; every other becomes the nearest of those.
COUNT = """
    async (png) => {
        const ALIKE = 150, PLENTY = 2000;
        const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
        const { width, height } = bitmap;
        const canvas = new OffscreenCanvas(width, height).getContext("2d");
        canvas.drawImage(bitmap, 0, 0);
        const pixels = new Uint32Array(canvas.getImageData(0, 0, width, height).data.buffer);
        const counts = new Map();
        for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
        const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
        const distance = ([r, g, b], [x, y, z]) => (r - x) ** 2 + (g - y) ** 2 + (b - z) ** 2;
        const palette = [], places = new Map();
        for (const [pixel, count] of [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])) {
            const wanted = parts(pixel);
            if (palette.length === 256 || (count < PLENTY && palette.some((colour) => distance(colour, wanted) < ALIKE))) continue;
            places.set(pixel, palette.push(wanted) - 1);
        }
        for (const pixel of counts.keys()) {
            if (places.has(pixel)) continue;
            const wanted = parts(pixel);
            let best = 0;
            palette.forEach((colour, place) => { if (distance(colour, wanted) < distance(palette[best], wanted)) best = place; });
            places.set(pixel, best);
        }
        let text = "";
        for (let start = 0; start < pixels.length; start += 8192)
            text += String.fromCharCode(...pixels.subarray(start, start + 8192).map((pixel) => places.get(pixel)));
        return { width, height, palette: palette.flat(), places: btoa(text) };
    }
"""


def shrunk(page: Page, png: bytes) -> bytes:
    """The picture as a PNG with a palette. page: any page without a policy of its own, for the browser's help."""
    found = page.evaluate(COUNT, base64.b64encode(png).decode())
    return indexed(found["width"], found["height"], found["palette"], base64.b64decode(found["places"]))


def indexed(width: int, height: int, palette: Sequence[int], places: bytes) -> bytes:
    """A PNG of these colours (red, green, blue, …) and of each pixel's place among them, line by line."""
    lines = b"".join(b"\0" + places[start : start + width] for start in range(0, width * height, width))
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", bytes(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
