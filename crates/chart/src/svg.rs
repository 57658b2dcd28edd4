//! The drawing itself: elements one after the other.

use std::fmt::Write as _;

/// What a drawing lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A file of its own, on white.
    Paper,
    /// A page with [`PAGE_STYLE`]: no background, as wide as there is room.
    Page,
}

/// Style sheet of the drawings in a page: CSS variables `--ink`, `--faint`, `--grid`, and a colour per series.
pub const PAGE_STYLE: &str = "svg{width:100%;height:auto;display:block;font:11px system-ui,sans-serif}\
svg text{fill:var(--ink)}svg .faint{fill:var(--faint)}svg .grid{stroke:var(--grid);fill:none}\
svg .frame{stroke:var(--faint);fill:none}";

/// Which end of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A drawing in the making, pixels from the upper left corner.
#[derive(Clone, Debug)]
pub struct Svg {
    text: String,
    ground: Ground,
}

impl Svg {
    /// Begins a drawing; `title` is what a screen reader says.
    #[must_use]
    pub fn new(width: f64, height: f64, ground: Ground, title: &str) -> Self {
        let mut svg = Self {
            text: String::new(),
            ground,
        };
        let size = match ground {
            Ground::Paper => {
                format!(" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\"")
            }
            Ground::Page => String::new(),
        };
        svg.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\"{size} role=\"img\" aria-label=\"{}\">",
            escape(title)
        ));
        if ground == Ground::Paper {
            svg.put("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
        }
        svg
    }

    /// What it lies on.
    #[must_use]
    pub fn ground(&self) -> Ground {
        self.ground
    }

    /// The style of lines behind the data.
    #[must_use]
    pub fn grid_style(&self) -> &'static str {
        match self.ground {
            Ground::Paper => "stroke=\"#e5e5e5\" fill=\"none\"",
            Ground::Page => "class=\"grid\"",
        }
    }

    /// The style of frames.
    #[must_use]
    pub fn frame_style(&self) -> &'static str {
        match self.ground {
            Ground::Paper => "stroke=\"#999999\" fill=\"none\"",
            Ground::Page => "class=\"frame\"",
        }
    }

    /// Appends an element as it is.
    pub fn put(&mut self, element: &str) {
        self.text.push_str(element);
        self.text.push('\n');
    }

    /// A text; `style` is more attributes.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str, style: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.put(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>"
        ));
    }

    /// A text that reads upwards, its middle at the place.
    pub fn upwards(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escape(text);
        self.put(&format!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{text}</text>"
        ));
    }

    /// A path of straight lines through points; `style` is its attributes, `title` what is said of it when it is pointed at.
    pub fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, style: &str, title: &str) {
        let mut path = String::new();
        for (index, (x, y)) in points.into_iter().enumerate() {
            // Writing to a string cannot fail.
            _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        if path.is_empty() {
            return;
        }
        let title = title_of(title);
        self.put(&if title.is_empty() {
            format!("<path d=\"{path}\" fill=\"none\" {style}/>")
        } else {
            format!("<path d=\"{path}\" fill=\"none\" {style}>{title}</path>")
        });
    }

    /// The whole drawing.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.put("</svg>");
        self.text
    }
}

/// A `<title>` element, or nothing.
pub(crate) fn title_of(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(title))
    }
}

/// Text for HTML and SVG, in elements and between double quotes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays_text() {
        let mut svg = Svg::new(10.0, 10.0, Ground::Page, "a \"b\" <c>");
        svg.text((1.0, 2.0), Anchor::End, "x < y & z", "");
        svg.line([(0.0, 0.0), (1.0, 1.0)], "class=\"s1\"", "<script>");
        svg.line([], "", "nothing");
        let text = svg.finish();
        assert!(text.contains("aria-label=\"a &quot;b&quot; &lt;c&gt;\""), "{text}");
        assert!(text.contains(">x &lt; y &amp; z</text>"), "{text}");
        assert!(
            text.contains("<title>&lt;script&gt;</title></path>") && !text.contains("nothing"),
            "{text}"
        );
        assert!(text.ends_with("</svg>\n"));
    }
}
