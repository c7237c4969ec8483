"""The style sheet of the report page: one column, system fonts, a light and a dark theme."""

CSS = """
:root{--paper:#fff;--ink:#1c2430;--muted:#5b6675;--rule:#dde2e8;--soft:#f5f7f9;--link:#1f66a8}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--ink:#e8ecf1;--muted:#9aa6b4;
--rule:#2c343f;--soft:#191f27;--link:#7db8f0}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:908px;margin:0 auto;padding:56px 24px 96px}
header{margin-bottom:32px}
h1{font-size:34px;line-height:1.2;letter-spacing:-.015em;font-weight:680;margin:0 0 8px}
.lead{font-size:19px;line-height:1.5;color:var(--muted);margin:0;max-width:44em}
h2{font-size:21px;line-height:1.3;letter-spacing:-.008em;font-weight:640;margin:0 0 8px}
section{margin-top:52px;scroll-margin-top:16px}
section p{margin:0 0 10px;max-width:44em}
nav{margin-top:36px;padding:12px 0;border-top:1px solid var(--rule);
border-bottom:1px solid var(--rule);display:flex;flex-wrap:wrap;gap:4px 20px;font-size:14px}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
.figures{display:flex;flex-wrap:wrap;gap:28px 34px;align-items:flex-start;margin-top:18px}
figure{margin:0;max-width:100%;width:max(var(--w),320px)}
figure img{display:block;max-width:100%;height:auto;border-radius:2px}
figcaption{margin-top:8px;font-size:14px;line-height:1.5;color:var(--muted);max-width:46em}
.clips{display:flex;flex-wrap:wrap;gap:22px 26px;align-items:flex-end;margin-top:18px}
.clip{width:190px}.clip img{image-rendering:pixelated;max-width:100%}
.clip audio{display:block;width:100%;height:32px;margin-top:6px}.clip figcaption{margin-top:4px}
.scroll{overflow-x:auto;margin-top:14px}
table{border-collapse:collapse;font-size:14.5px;line-height:1.45;
font-variant-numeric:tabular-nums lining-nums}
caption{caption-side:bottom;text-align:left;color:var(--muted);font-size:14px;padding-top:10px}
th{font-weight:600;font-size:13px;color:var(--muted);text-align:left;white-space:nowrap;
border-bottom:1.5px solid var(--rule);padding:6px 22px 6px 0;vertical-align:bottom}
td{border-bottom:1px solid var(--rule);padding:6px 22px 6px 0;vertical-align:top}
.results th,.results td{padding-right:14px}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right;white-space:nowrap}
.results td:first-child{padding-right:36px;white-space:nowrap}
.results td:nth-child(2){font-weight:640}
.results th.n{text-align:center}
.groups th{white-space:normal}
.groups th,.groups td{padding-right:14px}
.groups td:first-child{white-space:nowrap}
@media (min-width:960px){.groups{width:max-content;max-width:calc(50vw + 406px)}}
.results td:nth-child(n+4){color:var(--muted)}
.results th:nth-child(2),.results td:nth-child(2){padding-right:8px}
details{margin-top:28px;border-top:1px solid var(--rule);padding-top:14px}
details+details{margin-top:14px}
section+details{margin-top:60px}
summary{cursor:pointer;font-weight:640}
details td{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:13px;
overflow-wrap:anywhere}
details td:first-child{color:var(--muted);white-space:nowrap}
@media (max-width:640px){main{padding:32px 16px 64px}h1{font-size:27px}.lead{font-size:17px}
section{margin-top:40px}.figures{gap:24px}
.wide picture{display:block;overflow-x:auto}.wide img{max-width:none;width:calc(var(--w)*.8)}}
@media print{main{max-width:none;padding:0}figure,tr{break-inside:avoid}nav{display:none}}
"""
