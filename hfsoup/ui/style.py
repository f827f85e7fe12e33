"""The style of the page; colours are the theme's, so that light and dark mode both work."""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
# slate-400, the theme's own, is too pale to read on white.
COLOURS = {
    "body_text_color_subdued": "*neutral_500",
    "body_text_color_subdued_dark": "*neutral_400",
    "block_info_text_color": "*neutral_500",
    "block_info_text_color_dark": "*neutral_400",
}

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
.soup-head h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; font-weight: 700; letter-spacing: -.02em; }
.soup-head p { margin: .3rem 0 0; color: var(--body-text-color-subdued); }
.soup { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; --good: #00795a; --bad: #c2410c; }
.dark .soup { --good: #34d399; --bad: #fb923c; }
.soup-faint { color: var(--body-text-color-subdued); }
.soup a { color: var(--link-text-color); padding: 0; text-decoration: underline; text-underline-offset: 2px; }
.soup-good { color: var(--good); font-weight: 600; }
.soup h3 { margin: 0 0 .5rem; font-size: 1.05rem; font-weight: 600; }
.soup ul, .soup ol { list-style: none; padding: 0; margin: 0; }
.soup-empty {
  border: 1px dashed var(--border-color-primary); border-radius: 10px; padding: 2.2rem 1.2rem; text-align: center;
  color: var(--body-text-color-subdued);
}
.soup-live li { display: flex; gap: .6rem; padding: .1rem 0; margin: 0; }
.soup-live li > i { flex: 0 0 1rem; text-align: center; font-style: normal; font-weight: 700; }
.soup-live li > span { flex: 1; min-width: 0; }
.soup-live li.done > i { color: var(--good); }
.soup-live li.note > i, .soup-live li.broken > i { color: var(--bad); }
.soup-live li.note { color: var(--body-text-color-subdued); }
.soup-live li.running > i { animation: soup-wait 1.2s ease-in-out infinite; }
@keyframes soup-wait { 50% { opacity: .25; } }
@media (prefers-reduced-motion: reduce) { .soup-live li.running > i { animation: none; } }
.soup-stand { margin: 0 0 .6rem; color: var(--body-text-color-subdued); }
.soup-stand b { font-size: 1.7rem; color: var(--body-text-color); margin-right: .3rem; }
.soup-bar {
  height: 5px; margin-top: .25rem; border-radius: 3px; overflow: hidden; background: var(--border-color-primary);
}
.soup-bar > div { height: 100%; background: var(--color-accent); border-radius: 3px; }
.soup-wide { overflow-x: auto; margin: .7rem 0; }
.soup-scroll { max-height: 15rem; overflow-y: auto; }
.soup table { border: 0 !important; border-collapse: collapse; width: 100%; margin: 0; font-size: .93rem; }
.soup tr { border: 0 !important; background: none !important; }
.soup th, .soup td {
  text-align: left; vertical-align: top; padding: .38rem .6rem .38rem 0; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
}
.soup th { color: var(--body-text-color-subdued); font-weight: 500; overflow-wrap: normal; }
button.lg { white-space: nowrap; }
.soup td.n, .soup th.n { text-align: right; }
.soup td.n { white-space: nowrap; }
.soup th:last-child, .soup td:last-child { padding-right: 0; }
.soup td:first-child:not(.n) { min-width: 8rem; }
.soup-tag {
  font-size: .75rem; font-weight: 600; padding: .05rem .45rem; border-radius: 99px; white-space: nowrap;
  color: var(--good); border: 1px solid var(--good);
}
.soup dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem .9rem; margin: .6rem 0; }
.soup dt { color: var(--body-text-color-subdued); }
.soup dd { margin: 0; min-width: 0; }
.soup-verdict {
  font-size: 1.08rem; font-weight: 600; padding: .75rem 1rem; border-radius: 8px; margin: 0 0 .7rem;
  background: var(--background-fill-secondary); border-left: 4px solid var(--border-color-primary);
}
.soup-verdict::first-letter { text-transform: uppercase; }
.soup-verdict.better { border-color: var(--good); }
.soup-verdict.worse { border-color: var(--bad); }
.soup-verdict.even { border-color: var(--color-accent); }
.soup-error {
  padding: .75rem 1rem; border-radius: 8px; margin: 0 0 .8rem; background: var(--background-fill-secondary);
  border-left: 4px solid var(--bad) !important;
}
.soup-error dl { margin: .3rem 0 0; }
.soup-report {
  width: 100%; height: 78vh; min-height: 26rem; border: 1px solid var(--border-color-primary); border-radius: 8px;
}
.soup-guesses { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem; }
.soup-guess { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: .8rem 1rem; }
.soup-guess h4 { margin: 0 0 .5rem; font-weight: 600; }
.soup-guess li { display: grid; grid-template-columns: 1fr max-content; padding: .2rem 0; column-gap: .8rem; }
.soup-guess li b { font-weight: 500; }
.soup-guess .soup-bar { grid-column: 1 / -1; }
"""
