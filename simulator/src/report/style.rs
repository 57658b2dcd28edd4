//! Colours, shapes and the style sheet of a page.

use equipoise_chart::{Mark, PAGE_STYLE};

/// Colours that are told apart by most eyes, on light and on dark ground (after Okabe and Ito, and Tol).
const LIGHT: [&str; 10] = [
    "#b2182b", "#2166ac", "#1b8a3a", "#c77700", "#7b3fa0", "#0f8b8d", "#c2407f", "#6b5b2e", "#4d4d4d", "#5566dd",
];
const DARK: [&str; 10] = [
    "#ff7a6b", "#6fb1f2", "#62c97f", "#f2ae49", "#c595f0", "#4fd1c5", "#f48fb8", "#c9b36a", "#b8b8b8", "#9aa8ff",
];

/// The look of one arm wherever it is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(pub(crate) usize);

impl Look {
    /// Attributes of its lines.
    pub(crate) fn line(self) -> String {
        let dash = match self.0 / LIGHT.len() {
            0 => "",
            1 => " stroke-dasharray=\"5 3\"",
            2 => " stroke-dasharray=\"1.5 2.5\"",
            _ => " stroke-dasharray=\"8 3 2 3\"",
        };
        format!("class=\"l c{}\"{dash}", self.0 % LIGHT.len())
    }

    /// Attributes of its areas.
    pub(crate) fn area(self) -> String {
        format!("class=\"f{}\"", self.0 % LIGHT.len())
    }

    /// Its mark.
    pub(crate) fn mark(self) -> Mark {
        Mark::ALL[(self.0 + self.0 / LIGHT.len()) % Mark::ALL.len()]
    }

    /// Attributes of its mark.
    pub(crate) fn mark_style(self) -> String {
        format!("class=\"m f{}\"", self.0 % LIGHT.len())
    }
}

/// The style sheet.
pub(crate) fn style_sheet() -> String {
    let variables = |colours: [&str; 10], ink: &str, faint: &str, grid: &str, ground: &str, panel: &str| {
        let series: String = (0..)
            .zip(colours)
            .map(|(index, colour)| format!("--c{index}:{colour};"))
            .collect();
        format!("{series}--ink:{ink};--faint:{faint};--grid:{grid};--ground:{ground};--panel:{panel}")
    };
    let light = variables(LIGHT, "#1b1f24", "#667079", "#e4e7ea", "#f7f8f9", "#ffffff");
    let dark = variables(DARK, "#e6e9ec", "#98a2ab", "#30363d", "#0e1116", "#171b21");
    let classes: String = (0..LIGHT.len())
        .map(|index| format!(".c{index}{{stroke:var(--c{index})}}.f{index}{{fill:var(--c{index})}}"))
        .collect();
    format!(
        ":root{{color-scheme:light dark;{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{PAGE_STYLE}\n\
         {classes}\n.l{{stroke-width:1.7;stroke-linejoin:round}}.m{{stroke:var(--panel);stroke-width:.8}}\
         .fault{{fill:var(--faint);fill-opacity:.13}}.whisker{{stroke-width:1;opacity:.75}}.frontier{{stroke:var(--faint);stroke-dasharray:3 3}}\
         svg text.halo{{stroke:var(--panel);stroke-width:3;paint-order:stroke}}\n{LAYOUT}"
    )
}

const LAYOUT: &str = "*{box-sizing:border-box}\
body{margin:0 auto;padding:1rem;max-width:82rem;background:var(--ground);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:.3rem 0}h2{font-size:1.15rem;margin:0}\
p.note{margin:.1rem 0;color:var(--faint);font-size:.9rem;overflow-wrap:anywhere}\
details,section{background:var(--panel);border:1px solid var(--grid);border-radius:8px;padding:.8rem 1rem;margin:1rem 0}\
summary{cursor:pointer}summary h2{display:inline}\
.plots{display:grid;gap:1rem 1.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,23rem),1fr));margin-top:.8rem}\
figure{margin:0;min-width:0}figcaption{font-weight:600;font-size:.9rem;margin-bottom:.2rem}\
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;font-size:.85rem;margin:.5rem 0}\
.legend span{display:inline-flex;align-items:center;gap:.35rem}.legend svg{width:26px;height:14px;flex:none}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-size:.77rem;font-variant-numeric:tabular-nums;width:100%}\
th,td{padding:.25rem .27rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}\
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--panel)}\
thead th{color:var(--faint);font-weight:600}td .pm{color:var(--faint);font-size:.75em}td.best{font-weight:700}\
footer{color:var(--faint);font-size:.85rem}";
