//! Shortens text to a width, in columns of a terminal or pixels of a drawing, as `width_of` measures it.

pub(super) fn shortened(text: &str, width: f64, width_of: impl Fn(&str) -> f64) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    beginning(text.chars(), width - width_of("…"), width_of).trim_end().to_owned() + "…"
}

/// Cuts out the middle: names of links often differ at their end.
pub(super) fn shortened_name(name: &str, width: f64, width_of: impl Fn(&str) -> f64) -> String {
    if width_of(name) <= width {
        return name.to_owned();
    }
    let room = width - width_of("…");
    let end: String = beginning(name.chars().rev(), room / 2.0, &width_of).chars().rev().collect();
    beginning(name.chars(), room - width_of(&end), &width_of) + "…" + &end
}

fn beginning(chars: impl Iterator<Item = char>, width: f64, width_of: impl Fn(&str) -> f64) -> String {
    let mut kept = String::new();
    for c in chars {
        kept.push(c);
        if width_of(&kept) > width {
            kept.pop();
            break;
        }
    }
    kept
}
