//! SVG without scripts or references, in the colours of Okabe and Ito, which people with any colour vision can tell apart.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::axis::Axis;
use super::ellipsis::{shortened, shortened_name};
use super::time_axis::TimeAxis;
use crate::text::escape_control;

/// Colours of a picture. An SVG without a theme follows the browser's `prefers-color-scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Theme {
    Light,
    Dark,
}

#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) title: String,
    pub(crate) description: String,
    body: String,
}

/// A rectangle for values: `x` and `y` take places along its axes, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

pub(crate) const TITLE_PX: f64 = 17.0;
pub(crate) const TEXT_PX: f64 = 12.0;
const FONTS: &str = "Inter,system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,sans-serif";

/// Names, with the colours on light and on dark ground.
pub(super) const COLOURS: [(&str, &str, &str); 10] = [
    ("ground", "#ffffff", "#15181d"),
    ("ink", "#1d2330", "#e8eaee"),
    ("muted", "#5b6472", "#a0a8b5"),
    ("grid", "#e4e7ec", "#2b313a"),
    ("hole", "#c3c9d2", "#4b535f"),
    ("rx", "#0072b2", "#56b4e9"),
    ("tx", "#007a5a", "#2fc79d"),
    ("total", "#aa4a86", "#dd8fbf"),
    ("warning", "#e69f00", "#e69f00"),
    ("critical", "#d55e00", "#ee7733"),
];

impl Area {
    pub(crate) fn x(&self, place: f64) -> f64 {
        self.left + place * self.width
    }

    pub(crate) fn y(&self, place: f64) -> f64 {
        self.top + (1.0 - place) * self.height
    }

    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

impl Drawing {
    pub(crate) fn new(width: f64, title: String) -> Self {
        Self { width, height: 0.0, title, description: String::new(), body: String::new() }
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (x, y) = (number(x), number(y));
        let _ = writeln!(self.body, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\"{anchor}>{}</text>", escaped(text));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
        let _ = writeln!(self.body, "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"{class}\"/>");
    }

    pub(crate) fn rectangle(&mut self, area: Area, class: &str, tip: &str) {
        let [x, y, width, height] = [area.left, area.top, area.width, area.height].map(number);
        let _ = write!(self.body, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" class=\"{class}\"");
        let _ = match tip {
            "" => writeln!(self.body, "/>"),
            tip => writeln!(self.body, "><title>{}</title></rect>", escaped(tip)),
        };
    }

    pub(crate) fn path(&mut self, data: &str, class: &str) {
        if !data.is_empty() {
            let _ = writeln!(self.body, "<path d=\"{data}\" class=\"{class}\"/>");
        }
    }

    pub(crate) fn begin_group(&mut self, label: &str) {
        let _ = writeln!(self.body, "<g role=\"group\" aria-label=\"{}\">", escaped(label));
    }

    pub(crate) fn end_group(&mut self) {
        self.body.push_str("</g>\n");
    }

    pub(crate) fn value_grid(&mut self, area: Area, axis: &Axis) {
        for tick in &axis.ticks {
            let y = area.y(axis.scale.place(tick.value));
            self.line((area.left, y), (area.right(), y), "grid");
            self.text((area.left - 8.0, y + 4.0), "tick", Anchor::End, &tick.label);
        }
        if !axis.unit.is_empty() {
            self.text((area.left - 8.0, area.top - 12.0), "tick", Anchor::End, axis.unit);
        }
    }

    pub(crate) fn time_grid(&mut self, area: Area, axis: &TimeAxis, labels: bool) {
        let ticks = axis.ticks((area.width / 72.0) as usize);
        for tick in ticks {
            let x = area.x(axis.place(tick.at));
            self.line((x, area.top), (x, area.bottom()), "grid");
            if labels {
                let x = x.clamp(area.left + 2.0, area.right() - 2.0);
                self.text((x, area.bottom() + 17.0), "tick", Anchor::Middle, &tick.label);
                if let Some(below) = &tick.below {
                    self.text((x, area.bottom() + 32.0), "tick strong", Anchor::Middle, below);
                }
            }
        }
        self.line((area.left, area.bottom()), (area.right(), area.bottom()), "axis");
    }

    pub(crate) fn finish(self, theme: Option<Theme>) -> String {
        let (width, height) = (number(self.width), number(self.height));
        let mut out = String::with_capacity(self.body.len() + 4_000);
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"hw\" role=\"img\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" aria-label=\"{}\">",
            escaped(&self.title)
        );
        let _ = writeln!(out, "<title>{}</title>", escaped(&self.title));
        let _ = writeln!(out, "<desc>{}</desc>", escaped(&self.description));
        let _ = writeln!(out, "<style>\n{}</style>", style(theme));
        out.push_str(
            "<defs><pattern id=\"hw-hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" class=\"hatch\"/></pattern></defs>\n",
        );
        let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" class=\"ground\"/>");
        out.push_str(&self.body);
        out.push_str("</svg>\n");
        out
    }
}

fn style(theme: Option<Theme>) -> String {
    let mut out = format!(
        ".hw text{{font-family:{FONTS};font-size:{TEXT_PX}px}}\n\
         .hw .title{{font-size:{TITLE_PX}px;font-weight:600}}\n\
         .hw .head{{font-weight:600}}\n\
         .hw .tick{{font-size:11px}}\n\
         .hw .strong{{font-weight:600}}\n\
         .hw .halo{{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}}\n\
         .hw .grid,.hw .axis,.hw .hatch{{stroke-width:1px}}\n\
         .hw .hatch{{stroke-width:1.5px}}\n\
         .hw .hatched{{fill:url(#hw-hatch)}}\n\
         .hw .limit{{stroke-width:1.5px;stroke-dasharray:6 4;fill:none}}\n\
         .hw .mark{{stroke-width:1px;fill:none}}\n\
         .hw .p50{{fill-opacity:.8}}\n\
         .hw .p95{{fill-opacity:.45}}\n\
         .hw .max{{fill-opacity:.22}}\n\
         .hw .edge{{fill:none;stroke-width:1.25px;stroke-linejoin:round}}\n\
         .hw .thin{{stroke-width:.6px}}\n\
         .hw .over{{fill-opacity:.22}}\n\
         .hw .tip{{fill:none;pointer-events:all}}\n"
    );
    let colour = |theme: Theme| {
        let mut css = String::new();
        for (name, light, dark) in COLOURS {
            let value = if theme == Theme::Light { light } else { dark };
            let _ = match name {
                "ground" => writeln!(css, ".hw .ground{{fill:{value}}}\n.hw .halo{{stroke:{value}}}"),
                "ink" => writeln!(css, ".hw text{{fill:{value}}}\n.hw .limit,.hw .mark{{stroke:{value}}}"),
                "muted" => writeln!(css, ".hw .muted,.hw .tick{{fill:{value}}}\n.hw .axis{{stroke:{value}}}"),
                "grid" => writeln!(css, ".hw .grid{{stroke:{value}}}"),
                "hole" => writeln!(css, ".hw .hatch{{stroke:{value}}}"),
                name => writeln!(css, ".hw .{name}{{fill:{value}}}\n.hw .{name}-edge{{stroke:{value}}}"),
            };
        }
        css
    };
    match theme {
        Some(theme) => out.push_str(&colour(theme)),
        None => {
            out.push_str(&colour(Theme::Light));
            let _ = writeln!(out, "@media (prefers-color-scheme:dark){{\n{}}}", colour(Theme::Dark));
        }
    }
    out
}

pub(crate) fn direction_class(direction: &str) -> &'static str {
    match direction {
        "rx" => "rx",
        "tx" => "tx",
        _ => "total",
    }
}

pub(crate) fn number(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    if tenths == 0.0 { "0".to_owned() } else { tenths.to_string() }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape_control(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML takes these not even escaped.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Estimates the width, rounded up: a viewer may use another font.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        ' ' | '.' | ',' | ':' | ';' | '\'' | 'i' | 'j' | 'l' | '|' | 'I' | '!' => 0.29,
        'f' | 't' | 'r' | '/' | '(' | ')' | '[' | ']' => 0.38,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.92,
        'A'..='Z' => 0.7,
        '0'..='9' | 'a'..='z' => 0.6,
        '-' | '_' | '·' => 0.46,
        c if c.is_ascii() => 0.66,
        _ => 0.75,
    };
    text.chars().map(em).sum::<f64>() * size * 1.03
}

pub(crate) fn fitted(text: &str, size: f64, width: f64) -> String {
    shortened(text, width, |text| text_width(text, size))
}

pub(crate) fn fitted_name(name: &str, size: f64, width: f64) -> String {
    shortened_name(name, width, |text| text_width(text, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_name_keeps_both_its_ends_and_fits() {
        let names = ["gateway-042 enp65s0f0np0.100 rx", "gateway-042 enp65s0f0np0.200 rx"];
        let shown = names.map(|name| fitted_name(name, TEXT_PX, 120.0));
        assert_ne!(shown[0], shown[1]);
        for name in &shown {
            assert!(
                name.starts_with("gatewa") && name.ends_with(" rx") && text_width(name, TEXT_PX) <= 120.0,
                "{name}"
            );
        }
        assert_eq!(fitted_name("eth0", TEXT_PX, 120.0), "eth0");
        assert_eq!(fitted_name(names[0], TEXT_PX, 0.0), "…");
        assert_eq!(fitted(names[0], TEXT_PX, 60.0).chars().last(), Some('…'));
    }
}
