//! How the page looks: light and dark by the reader's choice, wide and narrow.

/// The style sheet.
pub(super) const CSS: &str = r#"
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --line: #dde1e7; --text: #1b2430; --soft: #586474;
  --good: #14703f; --good-soft: #dff3e7; --neutral: #2e62a6; --neutral-soft: #e2ecf9;
  --warning: #9a6200; --warning-soft: #fdf0d3; --bad: #b42318; --bad-soft: #fde4e1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b212a; --line: #323b48; --text: #e6eaf0; --soft: #a0abba;
    --good: #58c98b; --good-soft: #173626; --neutral: #7fb0f2; --neutral-soft: #1d3049;
    --warning: #e8b04b; --warning-soft: #3a2d12; --bad: #ff8d82; --bad-soft: #43201d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem .75rem; padding-top: 1.25rem; }
h1 { font-size: 1.4rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.05rem; margin: 0 0 .75rem; }
h3 { font-size: .9rem; margin: 1rem 0 .5rem; color: var(--soft); overflow-wrap: anywhere; }
p { margin: 0; }
.by, .none, .when, .reason, .key { color: var(--soft); }
header .reason { flex-basis: 100%; }
code, time { font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .87em; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin: 1rem 0; }
.summary {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem;
  background: none; border: 0; padding: 0;
}
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; overflow-wrap: anywhere; }
.card h2 { font-size: .8rem; font-weight: 600; color: var(--soft); margin-bottom: .25rem; }
.card p { color: var(--soft); }
.card p.big { font-size: 1.25rem; font-weight: 600; line-height: 1.3; color: var(--text); }
.card.good { border-left: 4px solid var(--good); }
.card.neutral { border-left: 4px solid var(--neutral); }
.card.warning { border-left: 4px solid var(--warning); }
.card.bad { border-left: 4px solid var(--bad); }
.pill { display: inline-block; padding: 0 .5em; border-radius: 1em; font-size: .85em; font-weight: 600; white-space: nowrap; }
.pill.good { color: var(--good); background: var(--good-soft); }
.pill.neutral { color: var(--neutral); background: var(--neutral-soft); }
.pill.warning { color: var(--warning); background: var(--warning-soft); }
.pill.bad { color: var(--bad); background: var(--bad-soft); }
.line { display: grid; grid-template-columns: max-content 1fr; gap: .4rem .75rem; align-items: center; }
.row { color: var(--soft); font-size: .87rem; }
.bar { position: relative; height: 1.1rem; background: var(--page); border-radius: 3px; overflow: hidden; }
.bar span { position: absolute; top: 0; bottom: 0; min-width: 2px; }
.bar .apart { box-shadow: inset 1px 0 var(--card); }
.good { --tone: var(--good); }
.neutral { --tone: var(--neutral); }
.warning { --tone: var(--warning); }
.bad { --tone: var(--bad); }
.bar span, .dot { background: var(--tone); }
.ends { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: .8rem; color: var(--soft); }
.key { font-size: .8rem; margin-top: .75rem; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin: 0 .4em 0 1em; }
.dot:first-child { margin-left: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); white-space: nowrap; }
th { border-top: 0; color: var(--soft); font-size: .8rem; font-weight: 600; }
td .reason { white-space: normal; min-width: 14rem; max-width: 30rem; font-size: .87em; overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
progress { width: 10rem; accent-color: var(--neutral); vertical-align: middle; }
ul { list-style: none; margin: 0; padding: 0; }
.messages { max-height: 32rem; overflow-y: auto; }
.messages li { border-left: 3px solid var(--tone); padding: .1rem 0 .1rem .75rem; margin: 0 0 .9rem; overflow-wrap: anywhere; }
.messages li:last-child { margin-bottom: 0; }
.level { color: var(--tone); font-weight: 600; }
.when { font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .25rem 0 0; font-size: .9rem; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.messages dl { font-size: .82rem; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--neutral); }
footer { padding-bottom: 2rem; color: var(--soft); font-size: .85rem; }
nav { display: flex; gap: 1rem; margin-top: .25rem; }
a { color: var(--neutral); }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .ends span { display: none; }
}
"#;
