//! Marks of points: their shape tells what their colour may not.

use crate::Svg;
use crate::svg::title_of;

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Round.
    Circle,
    /// Upright square.
    Square,
    /// Pointing up.
    Triangle,
    /// Square on its corner.
    Diamond,
    /// Pointing down.
    Wedge,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Circle, Self::Square, Self::Triangle, Self::Diamond, Self::Wedge];

    /// Draws it; `size` is about its half width.
    pub fn draw(self, svg: &mut Svg, (x, y): (f64, f64), size: f64, style: &str, title: &str) {
        let (near, far) = (0.9 * size, 1.15 * size);
        let path = match self {
            Self::Circle => {
                let title = title_of(title);
                svg.put(&format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size:.1}\" {style}>{title}</circle>"
                ));
                return;
            }
            Self::Square => format!(
                "M{:.1} {:.1}h{:.1}v{:.1}h{:.1}z",
                x - near,
                y - near,
                2.0 * near,
                2.0 * near,
                -2.0 * near
            ),
            Self::Triangle => format!("M{x:.1} {:.1}l{far:.1} {:.1}h{:.1}z", y - far, 1.9 * far, -2.0 * far),
            Self::Diamond => format!(
                "M{x:.1} {:.1}l{far:.1} {far:.1}l{:.1} {far:.1}l{:.1} {:.1}z",
                y - far,
                -far,
                -far,
                -far
            ),
            Self::Wedge => format!("M{x:.1} {:.1}l{far:.1} {:.1}h{:.1}z", y + far, -1.9 * far, -2.0 * far),
        };
        let title = title_of(title);
        svg.put(&format!("<path d=\"{path}\" {style}>{title}</path>"));
    }
}
