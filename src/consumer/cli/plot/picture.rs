use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use jiff::tz::TimeZone;

use crate::cli::output;
use crate::consumer::cli::common::Common;
use crate::consumer::plot::{Page, Theme, WIDTH_MIN, png};
use crate::process::exit::Failure;

#[derive(Args, Clone, Debug)]
pub(super) struct Picture {
    /// Write this file, .svg or .png, instead of drawing in the terminal
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PictureFile>,
    /// Colours of a file [default: light; of an SVG, its viewer's]
    #[arg(long, value_enum, value_name = "THEME")]
    theme: Option<Theme>,
    /// Columns of the terminal, or pixels of a file [default: 960]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=4_000))]
    width: Option<u16>,
    /// Time zone of the picture, as Europe/Paris [default: local time]
    #[arg(long, value_name = "ZONE", value_parser = crate::cli::time_zone)]
    time_zone: Option<TimeZone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PictureFile {
    path: PathBuf,
    is_png: bool,
}

const PIXELS: u16 = 960;
const PIXELS_MIN: u16 = 320;
const PAGE: Page = Page { columns: 80, rows: 40 };

impl Picture {
    pub(super) fn zone(&self) -> TimeZone {
        self.time_zone.clone().unwrap_or_else(TimeZone::system)
    }

    pub(super) fn page(&self) -> Result<Page, Failure> {
        let page = terminal().unwrap_or(PAGE);
        let columns = self.width.map_or(page.columns, usize::from);
        if columns < WIDTH_MIN {
            let what = if self.width.is_some() { "--width has" } else { "the terminal has" };
            return Err(Failure::failed(format!("{what} {columns} columns: a picture needs {WIDTH_MIN}")));
        }
        Ok(Page { columns, ..page })
    }

    pub(super) fn show(
        &self,
        common: &Common,
        svg: impl Fn(Option<Theme>, u32) -> String,
        text: impl Fn(Page) -> String,
    ) -> Result<(), Failure> {
        let Some(PictureFile { path, is_png }) = &self.output else {
            let text = text(self.page()?);
            let mut out = anstream::stdout().lock();
            return output::finished(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
        };
        let width = self.width.unwrap_or(PIXELS);
        if width < PIXELS_MIN {
            return Err(Failure::failed(format!("--width has {width} pixels: a file needs {PIXELS_MIN}")));
        }
        let file = match is_png {
            true => png(&svg(self.theme.or(Some(Theme::Light)), width.into())).map_err(Failure::failed)?,
            false => svg(self.theme, width.into()).into_bytes(),
        };
        fs::write(path, file).map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        common.note(&format!("wrote {}", path.display()));
        Ok(())
    }
}

pub(super) fn terminal() -> Option<Page> {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?;
    // A terminal whose size was never set reports 0.
    (size.ws_col > 0).then(|| Page { columns: size.ws_col.into(), rows: size.ws_row.max(1).into() })
}

impl FromStr for PictureFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("svg") => Ok(Self { path, is_png: false }),
            Some("png") => Ok(Self { path, is_png: true }),
            _ => Err("the name of a picture ends with .svg or .png".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_name_says() {
        let is_png = |text: &str| text.parse::<PictureFile>().map(|file| file.is_png);
        assert_eq!(is_png("out/rate.svg"), Ok(false));
        assert_eq!(is_png("Rate.PNG"), Ok(true));
        for text in ["rate", "rate.gif", ".svg", ""] {
            assert!(is_png(text).unwrap_err().contains(".png"), "{text}");
        }
    }
}
