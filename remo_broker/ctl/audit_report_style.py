"""The report's style: light or dark by the reader's setting; colours also differ in lightness."""

from __future__ import annotations

STYLE = """
:root{--ground:#fff;--text:#1b1f24;--faint:#57606a;--line:#d0d7de;--panel:#f6f8fa;--bad:#b3261e;--link:#0550ae;--new:#6639ba;
--c0:#0b5394;--c1:#e08b00;--c2:#3d8b40;--c3:#8e63b5;--c4:#00838f;--c5:#a0522d;--c6:#8c959f;
--l1:#dcecfb;--l2:#b3d7f7;--l3:#84bdf0;--l4:#56a0e4}
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--text:#e6edf3;--faint:#9aa4ae;--line:#30363d;--panel:#161b22;
--bad:#ff7b72;--link:#79c0ff;--new:#d2a8ff;--c0:#58a6ff;--c1:#f0b429;--c2:#7ee787;--c3:#d2a8ff;--c4:#56d4dd;--c5:#e3a57b;--c6:#8b949e;
--l1:#10253c;--l2:#163d63;--l3:#1c558a;--l4:#2570b3}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1.5rem;background:var(--ground);color:var(--text);
font:16px/1.5 system-ui,"Liberation Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 .5rem}header p,section>p{color:var(--faint);margin:.25rem 0 .75rem}
a{color:var(--link)}nav{display:flex;flex-wrap:wrap;gap:1rem}
a:focus-visible,summary:focus-visible,.wide:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--ground);padding:.5rem}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.numbers{display:flex;flex-wrap:wrap;gap:1rem;margin:1.5rem 0 0}
.numbers div{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1.25rem;min-width:8rem}
.numbers dt{color:var(--faint)}.numbers dd{margin:0;font-size:1.6rem;font-variant-numeric:tabular-nums}
.numbers .bad dd,.bad{color:var(--bad)}.numbers .new dd,em{color:var(--new)}em{font-style:normal;font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:1rem;list-style:none;padding:0;margin:.5rem 0}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin-right:.4rem}
.c0{fill:var(--c0);background:var(--c0)}.c1{fill:var(--c1);background:var(--c1)}.c2{fill:var(--c2);background:var(--c2)}
.c3{fill:var(--c3);background:var(--c3)}.c4{fill:var(--c4);background:var(--c4)}.c5{fill:var(--c5);background:var(--c5)}
.c6{fill:var(--c6);background:var(--c6)}.denied{fill:var(--bad);background:var(--bad)}
svg{width:100%;height:auto}svg text{fill:var(--faint);font-size:12px}svg line{stroke:var(--line)}
@media(max-width:40rem){svg text{font-size:24px}svg .least{display:none}}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:normal}
td{font-variant-numeric:tabular-nums}thead th{color:var(--faint);font-weight:600;border-bottom-width:2px}
tbody th{font-weight:600}.number{text-align:right;white-space:nowrap}.when{white-space:nowrap}.none{color:var(--faint)}
.names{min-width:14rem;overflow-wrap:anywhere}
.calendar{width:auto}.calendar td{text-align:center;min-width:4rem;border:2px solid var(--ground)}
.calendar th{white-space:nowrap;border:0}.l1{background:var(--l1)}.l2{background:var(--l2)}.l3{background:var(--l3)}.l4{background:var(--l4)}
.calendar .edge{box-shadow:inset 0 0 0 2px var(--bad)}
details>summary{cursor:pointer}section>details{margin-top:.5rem}
@media print{.skip,nav{display:none}section{break-inside:avoid-page}}
""".replace("\n", "")
