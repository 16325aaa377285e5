"""The mask painter: a canvas of the model's own pixels, painted by finger or mouse. Its value is a string of 0 (kept) and 1 (drawn anew).

Gradio's ImageEditor would send whole pictures and decode them here; a string of as many letters as there are pixels is all that is needed.
What the server sets may be followed by `|` and a picture to paint over, as a data address.
"""

from __future__ import annotations

import base64
import html
import io

import gradio as gr
from PIL import Image

TEMPLATE = """
<canvas role="img" aria-label="WORDS" width="ACROSS" height="DOWN" style="aspect-ratio: ACROSS / DOWN"></canvas>
<div class="painter-words">WORDS</div>
"""
CSS = """
canvas { width: 100%; max-width: 288px; display: block; touch-action: none; cursor: crosshair; image-rendering: pixelated;
  background-color: #18181b; background-size: 100% 100%; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.painter-words { margin-top: 6px; font-size: var(--text-sm); color: var(--body-text-color-subdued); }
"""
SCRIPT = """
const across = ACROSS, down = DOWN;
let bits = [], below = '', stroke = null;
const read = () => {
  const [painted, picture] = (props.value || '').split('|');
  bits = (painted.length === across * down ? painted : '0'.repeat(across * down)).split('');
  if (picture !== undefined) below = picture;
};
const show = () => {
  const canvas = element.querySelector('canvas');
  canvas.style.backgroundImage = below ? `url(${below})` : 'none';
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, across, down);
  context.fillStyle = 'rgba(16, 185, 129, 0.85)';
  bits.forEach((bit, i) => { if (bit === '1') context.fillRect(i % across, Math.floor(i / across), 1, 1); });
};
const brush = event => {
  const box = element.querySelector('canvas').getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * across, y = (event.clientY - box.top) / box.height * down;
  const radius = Math.max(0.75, across / 16);
  for (let j = 0; j < down; j++) for (let i = 0; i < across; i++)
    if (Math.hypot(i + 0.5 - x, j + 0.5 - y) <= radius) bits[j * across + i] = stroke;
  show();
};
element.addEventListener('pointerdown', event => {
  if (event.target.tagName !== 'CANVAS') return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  stroke = event.shiftKey ? '0' : '1';
  brush(event);
});
element.addEventListener('pointermove', event => { if (stroke !== null) brush(event); });
const done = () => { if (stroke !== null) { stroke = null; props.value = bits.join(''); } };
element.addEventListener('pointerup', done);
element.addEventListener('pointercancel', done);
watch('value', () => { read(); show(); });
read();
show();
"""


def painter(across: int, down: int, words: str, value: str) -> gr.HTML:
    """The canvas of a model whose pictures have across x down pixels."""

    def filled(text: str) -> str:
        return text.replace("ACROSS", str(across)).replace("DOWN", str(down)).replace("WORDS", html.escape(words))

    return gr.HTML(value, html_template=filled(TEMPLATE), css_template=CSS, js_on_load=filled(SCRIPT), elem_id="mask")


def painted_over(picture: Image.Image | None, bits: str) -> str:
    """The painter's value over a picture, or over none."""
    if picture is None:
        return f"{bits}|"
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return f"{bits}|data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
