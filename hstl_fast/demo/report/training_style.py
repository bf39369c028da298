"""Style rules of the training report, beside those of every report."""

STYLE = """
.rates { border-collapse: collapse; margin-top: 1.2rem; font-size: 1rem; }
.rates th, .rates td { padding: .5rem 1.4rem .5rem 0; text-align: right; border-bottom: 1px solid var(--line); }
.rates th:first-child { text-align: left; font-weight: 400; }
.rates thead th { color: var(--soft); font-weight: 400; font-size: .9rem; }
.rates tr.ours td { font-weight: 650; font-size: 1.15rem; color: var(--accent); }
.rates tr.ours th { font-weight: 650; }
.views caption { text-align: left; font-weight: 600; color: var(--ink); padding-bottom: .3rem; }
.views caption span { color: var(--soft); font-weight: 400; }
.views tbody td { font-size: .82rem; }
.views td.same { background: none; color: var(--soft); outline: 1px dashed var(--line); outline-offset: -2px; }
.chart h3 { display: flex; justify-content: space-between; gap: 1rem; }
.chart h3 span { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.plot { position: relative; height: 13rem; padding-left: 2.4rem; }
.plot svg { width: 100%; height: 100%; display: block; border-left: 1px solid var(--soft);
  border-bottom: 1px solid var(--soft); overflow: visible; }
.plot span { position: absolute; left: 0; width: 2rem; text-align: right; font-size: .75rem; color: var(--soft);
  line-height: 1; }
.plot .top { top: 0; } .plot .zero { bottom: 0; }
.chart polyline, .chart line, .tree polyline, .tree line { fill: none; vector-effect: non-scaling-stroke; }
.chart .raw { stroke: rgb(var(--accent-rgb) / .3); stroke-width: 1; }
.chart .mean { stroke: var(--accent); stroke-width: 2.5; stroke-linejoin: round; }
.chart .level { stroke: var(--warm); stroke-width: 1.5; stroke-dasharray: 5 4; }
.ticks { display: flex; justify-content: space-between; gap: 1rem; font-size: .78rem; color: var(--soft);
  padding-left: 2.4rem; margin: .3rem 0 0; max-width: none; }
.tree { display: grid; grid-template-columns: 11rem 1.6rem minmax(8rem, 24rem); gap: .6rem; margin-top: 1.4rem; }
.trunk, .strips { position: relative; }
.trunk .body { color: var(--ink); width: 100%; }
.tree svg { width: 100%; height: 100%; }
.tree polyline { stroke: var(--ink); stroke-width: 1.6; }
.tree .cut { stroke-width: 2; }
.line { position: absolute; left: 0; right: 0; border-top: 2.5px solid; margin-top: -1.25px; }
.line.c0 { border-color: var(--accent); } .line.c1 { border-color: var(--warm); border-top-style: dashed; }
.cut.c0 { stroke: var(--accent); } .cut.c1 { stroke: var(--warm); stroke-dasharray: 6 4; }
.strip { position: absolute; right: 0; transform: translateY(-50%); font-style: normal; font-size: .8rem;
  color: var(--soft); }
.key i.c0 { border-top: 2.5px solid var(--accent); height: 0; vertical-align: .3em; }
.key i.c1 { border-top: 2.5px dashed var(--warm); height: 0; vertical-align: .3em; }
.times .track { height: 1.1rem; }
@media (max-width: 40rem) { .tree { grid-template-columns: 7rem 1.2rem 1fr; } .rates th, .rates td {
  padding-right: .8rem; } }
"""
