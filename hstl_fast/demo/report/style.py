"""The style sheet of the report: light and dark, wide and narrow, on screen and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f4ef; --card: #fffefb; --ink: #1d2429; --soft: #5d676f; --line: #dfdad0;
  --accent: #0d7377; --accent-rgb: 13 115 119; --warm: #b8501a; --warm-rgb: 214 108 46; --on-accent: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11161a; --card: #182026; --ink: #e9e6df; --soft: #9aa6ae; --line: #2b353c;
    --accent: #53c9c3; --accent-rgb: 70 190 184; --warm: #f2a266; --warm-rgb: 236 146 84; --on-accent: #0b1416;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main, header > div { max-width: 70rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem); }
h1 { font-size: clamp(2rem, 6vw, 3.4rem); line-height: 1.05; letter-spacing: -.03em; margin: 0 0 .6rem; }
h2 { font-size: 1.45rem; letter-spacing: -.015em; line-height: 1.2; margin: 0 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: 0 0 1rem; max-width: 46rem; }
section { margin: 3.6rem 0; }
.soft, figcaption, caption { color: var(--soft); }
.tile b, td, .bar, .log { font-variant-numeric: tabular-nums; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }

header { background: var(--card); border-bottom: 1px solid var(--line); overflow: hidden; }
header > div { padding-top: clamp(2rem, 6vw, 4rem); }
.eyebrow { color: var(--accent); font-weight: 600; margin: 0 0 .5rem; }
.lead { font-size: clamp(1.05rem, 2.2vw, 1.25rem); }
.procession { display: flex; justify-content: space-between; align-items: flex-end; gap: 2%; margin-top: 1.5rem; }
.procession .body { flex: 1 1 0; max-width: 9.5rem; color: var(--accent); }

.body {
  display: block; width: 100%; aspect-ratio: 44 / 64; background: currentColor;
  -webkit-mask: var(--film) 0 0 / calc(var(--frames) * 100%) 100% no-repeat;
  mask: var(--film) 0 0 / calc(var(--frames) * 100%) 100% no-repeat;
  animation: walk calc(var(--frames) * var(--frame)) steps(var(--frames), jump-none) infinite;
}
.body.still { animation: none; }
@keyframes walk { to { -webkit-mask-position: 100% 0; mask-position: 100% 0; } }
@media (prefers-reduced-motion: reduce) { .body { animation: none; } }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr)); gap: 1px;
  margin: 2.5rem 0 1.2rem;
  background: var(--line); border: 1px solid var(--line); border-radius: .8rem; overflow: hidden; }
.tile { background: var(--card); padding: 1.1rem 1.25rem; }
.tile b { display: block; font-size: 2.1rem; font-weight: 650; letter-spacing: -.03em; line-height: 1.15; }
.tile b small { font-size: .55em; font-weight: 500; letter-spacing: 0; }
.tile span { color: var(--soft); font-size: .92rem; line-height: 1.4; display: block; margin-top: .3rem; }
.note { border-left: 4px solid var(--warm); padding: .1rem 0 .1rem 1rem; max-width: 46rem; }

.people { display: grid; gap: 1rem; margin-top: 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(var(--walks) * 5.4rem)), 1fr)); }
.person { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: .8rem .9rem .7rem; }
.person h3 { display: flex; justify-content: space-between; gap: .5rem; }
.person h3 span { font-weight: 400; color: var(--soft); }
.walks { display: grid; grid-template-columns: repeat(var(--walks), 1fr); gap: .35rem; }
figure { margin: 0; }
.walks figure { text-align: center; font-size: .78rem; line-height: 1.3; }
.walks figcaption span { display: block; }
.walks .known .body, .axis .body { color: var(--accent); }
.walks .wrong .body { color: var(--warm); }
.verdict { color: var(--ink); font-weight: 600; }
.wrong .verdict, td.wrong { color: var(--warm); }

.grids { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 1.6rem 1rem; margin-top: 1.4rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.heat { --cell: 2.15rem; --figure: 1.4rem; border-collapse: separate; border-spacing: 2px; font-size: .7rem; }
.heat.dense { --cell: 1.35rem; --figure: 1rem; }
.heat caption { text-align: left; padding: 0 0 .3rem .1rem; font-size: 1rem; color: var(--ink); font-weight: 600; }
.heat caption span { color: var(--soft); font-weight: 400; }
.heat th { font-weight: 400; color: var(--soft); padding: 0; text-align: center; vertical-align: bottom;
  line-height: 1.1; }
.heat th.side { vertical-align: middle; text-align: right; }
.heat .body { width: var(--figure); margin: 0 auto; }
.heat th.side .body { margin: 0; }
.heat tbody td { width: var(--cell); min-width: var(--cell); height: var(--cell); text-align: center; padding: 0;
  border-radius: .3rem; background: rgb(var(--accent-rgb) / var(--near)); }
.heat td.dark { color: var(--on-accent); }
.heat td.self { outline: 2.5px solid var(--ink); outline-offset: -1px; }
.heat td.missed { color: var(--ink); background: rgb(var(--warm-rgb)); }
@media (prefers-color-scheme: dark) { .heat td.missed { color: var(--on-accent); } }
.key { display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; font-size: .88rem; color: var(--soft); margin-top: 1rem; }
.key i.self { outline: 2.5px solid var(--ink); outline-offset: -2px; }
.key i { display: inline-block; width: 1.3em; height: 1em; border-radius: .2em; vertical-align: -.1em;
  margin-right: .4em; }

.levels { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.7rem, 1fr)); gap: 1rem;
  margin-top: 1.4rem; }
.level { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: .9rem 1rem; }
.level { display: flex; flex-direction: column; }
.level h3 { margin: 0; }
.level p { font-size: .85rem; line-height: 1.4; margin: 0 0 .7rem; }
.level h3 span { display: block; font-weight: 400; font-size: .85rem; color: var(--soft); }
.cut { margin-top: auto; display: grid; grid-template-columns: 44fr 52fr; gap: .5rem; }
.cut > div { position: relative; }
.cut .body { color: var(--ink); opacity: .82; }
.band, .score { position: absolute; left: 0; }
.band { width: 100%; background: rgb(var(--accent-rgb) / .22); border-top: 1px solid var(--paper); }
.band:nth-child(odd) { background: rgb(var(--warm-rgb) / .2); }
.score { background: var(--accent); border-radius: 0 .2rem .2rem 0; }
.score b { position: absolute; left: calc(100% + .3rem); top: 50%; transform: translateY(-50%); font-size: .72rem;
  font-weight: 500; white-space: nowrap; }
.scores { border-left: 1px solid var(--soft); margin-right: 2.6rem; }
.band.fine { border: 0; }
.chance { position: absolute; top: -.2rem; bottom: -.2rem; border-left: 1px dashed var(--soft); }

.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 2rem;
  margin-top: 1.2rem; }
.bar { margin: 0 0 1rem; }
.bar .track { position: relative; height: 1.7rem; margin-top: .2rem; background: rgb(var(--accent-rgb) / .1);
  border-radius: .3rem; }
.bar .fill { position: absolute; inset: 0 auto 0 0; background: var(--soft); border-radius: .3rem; }
.bar.fast .fill { background: var(--accent); }
.bar .round { position: absolute; top: 50%; width: .55rem; height: .55rem; margin: -.275rem; border-radius: 50%;
  background: var(--card); border: 2px solid var(--ink); }
.bar div:first-child, .log div:first-child { display: flex; justify-content: space-between; gap: 1rem; }
.log { margin: 0 0 1rem; }
.log .track { position: relative; height: 1.1rem; margin-top: .2rem; border-bottom: 1px solid var(--line);
  background: repeating-linear-gradient(90deg, var(--line) 0 1px, transparent 1px calc(100% / 6));
  border-right: 1px solid var(--line); }
.log .mark { position: absolute; top: .1rem; width: .9rem; height: .9rem; margin-left: -.45rem; border-radius: 50%;
  background: var(--soft); }
.log.fast .mark { background: var(--accent); }
.log .limit { position: absolute; top: 0; bottom: 0; border-left: 2px dashed var(--warm); }
.decades { display: flex; justify-content: space-between; font-size: .75rem; color: var(--soft);
  margin: -.8rem 0 .8rem; }

table.plain { border-collapse: collapse; width: 100%; font-size: .92rem; }
table.plain th, table.plain td { text-align: left; padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
table.plain th { font-weight: 600; }
table.facts th { font-weight: 400; color: var(--soft); white-space: nowrap; width: 1%; }
table.facts td { overflow-wrap: anywhere; }
details { margin-top: 1.4rem; }
summary { cursor: pointer; font-weight: 600; color: var(--accent); }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
  overflow-x: auto; margin: 0 0 1rem; }
ul { padding-left: 1.2rem; max-width: 46rem; }
li { margin: 0 0 .5rem; }
footer { border-top: 1px solid var(--line); color: var(--soft); font-size: .88rem; padding: 1.2rem 0 2.5rem; }
@media (max-width: 40rem) {
  section { margin: 2.6rem 0; }
  .person { padding: .7rem .6rem .6rem; }
  .walks figure { font-size: .7rem; }
}
@media (max-width: 27rem) { .kind { min-height: 2.6em; } }
@media print { .body { animation: none; } section, .level, .person { break-inside: avoid; } }
"""
