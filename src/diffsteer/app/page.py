"""The page: theme, header and tabs, once in each language. A tab is a function `(shared, say)` in a file of its own and a line in TABS."""

from __future__ import annotations

import html
from collections.abc import Callable

import gradio as gr

from diffsteer.app.draw_tab import draw_tab
from diffsteer.app.runs_tab import runs_tab
from diffsteer.app.shared import Shared
from diffsteer.app.train_tab import train_tab
from diffsteer.app.words import Say, say

# Key of its title in `words.py`, and what lays it out.
TABS: tuple[tuple[str, Callable[[Shared, Say], None]], ...] = (("draw.tab", draw_tab), ("train.tab", train_tab), ("runs.tab", runs_tab))

FONTS = ["Source Sans 3", "Noto Sans", "Noto Sans SC", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]
MONO = ["IBM Plex Mono", "DejaVu Sans Mono", "Noto Sans Mono CJK SC", "monospace"]

CSS = """
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto; }
.gradio-container img { image-rendering: pixelated; }
#head { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; }
#head h1 { font-size: 22px; margin: 0; }
#head .about { flex: 1 1 200px; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.status { padding: 8px 12px; border-radius: 6px; background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.status.wrong { background: var(--error-background-fill); color: var(--error-text-color); border: 1px solid var(--error-border-color); }
.quiet { color: var(--body-text-color-subdued); font-size: var(--text-sm); overflow-wrap: anywhere; }
.nav-holder { display: none; }
#gallery .grid-wrap { max-height: 70vh; }
#gallery .thumbnail-lg, #runs-previews .thumbnail-lg { display: flex; flex-direction: column; height: auto; aspect-ratio: auto; }
#gallery .thumbnail-lg img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #18181b; }
#gallery .caption-label, #runs-previews .caption-label {
  position: static; max-width: 100%; width: 100%; border: 0; background: none; padding: 2px 4px; text-align: center;
  font-size: var(--text-sm); color: var(--body-text-color-subdued); white-space: normal; }
#gallery .thumbnail-lg:hover .caption-label, #runs-previews .thumbnail-lg:hover .caption-label { opacity: 1; }
#act { position: sticky; bottom: 0; z-index: 20; padding: 6px 0; background: var(--body-background-fill); }
#looks label.float, #sheet label.float, #seen label.float { position: static; border: 0; }
#train-sheet label.float, #train-preview label.float, #runs-figure label.float { position: static; border: 0; }
#looks img, #seen img, #sheet img { width: 100%; height: 100%; object-fit: contain; }
.scrolls { overflow-x: auto; }
#runs-previews, #runs-previews * { min-height: 0 !important; }
#runs-table table { border-collapse: collapse; width: 100%; }
#runs-table th, #runs-table td { text-align: left; padding: 4px 8px; border: 1px solid var(--border-color-primary); }
#runs-table td:first-child { white-space: nowrap; }
#runs-table .line { display: inline-block; width: 12px; height: 12px; border-radius: 50%; margin-right: 8px; }
.secondary-wrap input { padding-right: 36px; text-overflow: ellipsis; }
#train-preview img, #train-sheet img, #runs-figure img, #runs-previews img { width: 100%; object-fit: contain;
  image-rendering: auto !important; }
#train-log .cm-scroller { max-height: 320px; }
.steer { background: var(--block-background-fill) !important; }
.steer > * { background: none !important; }
#examples button { flex: 0 1 auto; padding: 4px 8px; }
#upload .icon-wrap, #recipe .icon-wrap { display: none; }
input[type=range] { pointer-events: none; }
input[type=range]::-webkit-slider-thumb { pointer-events: all; }
input[type=range]::-moz-range-thumb { pointer-events: all; }
[role=tab][aria-selected=true] { color: var(--primary-700) !important; }
.dark [role=tab][aria-selected=true] { color: var(--primary-300) !important; }
:focus-visible { outline: 2px solid var(--primary-700); outline-offset: 1px; }
@media (max-width: 640px) {
  #gallery .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  input, textarea, select { font-size: 16px !important; }
  button.lg, button.sm, button.label-wrap { min-height: 44px; }
  button.label-wrap { align-items: center; }
  #looks { flex-wrap: nowrap; }
  #looks > * { min-width: 0 !important; }
}
"""
KEYS = """<script>
document.documentElement.lang = location.pathname.startsWith('/zh') ? 'zh' : 'en';
document.addEventListener('keydown', event => {
  const typing = event.target.closest && event.target.closest('textarea, [role=listbox]');
  const press = id => { const button = document.querySelector('#' + id); if (button && !button.disabled) button.click(); };
  if (event.key === 'Enter' && event.ctrlKey) press('draw');
  if (event.key === 'Escape' && !typing) press('stop');
});
window.reopened = async () => {  // the page of another model is coming to this address
  if (!document.querySelector('#reopening')) return;
  const start = /start-[0-9a-f]{16}/, here = document.querySelector('#head').dataset.start;
  for (;;) {
    await new Promise(later => setTimeout(later, 500));
    try {
      const answer = await fetch(location.pathname, {cache: 'no-store'}), found = (await answer.text()).match(start);
      if (answer.ok && (!found || found[0] !== here)) break;  // none found: it asks for the login first
    } catch (nobody) {}
  }
  location.reload();
};
</script>"""


def theme() -> gr.themes.Base:
    """Own hues, so that words can be read on their grounds; no font is fetched."""
    return gr.themes.Base(
        primary_hue="emerald", neutral_hue="zinc", font=FONTS, font_mono=MONO, radius_size="sm", spacing_size="sm"
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_text_color="white",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_800",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        checkbox_label_text_color_selected="*neutral_900",
        checkbox_label_text_color_selected_dark="white",
    )  # fmt: skip


def page(shared: Shared) -> gr.Blocks:
    """The app's pages: `/` in English, `/zh` in Chinese."""
    title = f"diffsteer · {shared.model}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 7200), fill_width=True) as demo:
        _body(shared, say("en"), "zh")
    with demo.route("中文", "zh", show_in_navbar=False):
        _body(shared, say("zh"), "?lang=en")
    return demo


def _body(shared: Shared, words: Say, other: str) -> None:
    about = shared.about
    kind = " · ".join(
        [
            words("page.colour" if about.channels == 3 else "page.grey"),
            words("page.labels", count=len(about.labels)) if about.labels else words("page.no_labels"),
        ]
    )
    told = words("page.model", model=shared.model, width=about.width, height=about.height, kind=kind, device=about.device)
    link = f'<a href="/{other}" id="language">{html.escape(words("page.other"))}</a>'
    keys = html.escape(words("page.keys"))
    about_it = f'<span class="about" title="{keys}">{html.escape(told)}</span>'
    gr.HTML(f'<div id="head" data-start="{shared.start}"><h1>diffsteer</h1>{about_it}{link}</div>')
    with gr.Tabs():
        for key, tab in TABS if shared.trainer.allowed else TABS[:-1]:  # names of runs are not for everyone
            with gr.Tab(words(key), id=key):
                tab(shared, words)
