//! Diagrams as SVG, without a library: scales with round ticks, panels, lines, marks with intervals, stacked bars.
//!
//! A drawing is text that stands alone in a file, on white ([`Ground::Paper`]), or inside a page whose style sheet
//! colours it, dark or light ([`Ground::Page`], with [`PAGE_STYLE`]). State: none. Does not belong here: what is drawn.

mod bars;
mod mark;
mod panel;
mod scale;
mod svg;

pub use bars::{Bar, stacked_bars};
pub use mark::Mark;
pub use panel::Panel;
pub use scale::{Scale, tick_label};
pub use svg::{Anchor, Ground, PAGE_STYLE, Svg, escape};
