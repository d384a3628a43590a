//! Renders the SVG with a font of its own, so that it looks the same on every host.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

const SCALE: f32 = 2.0;
/// Pixels of the largest picture, which takes 256 MB.
const PIXELS_MAX: f32 = 64e6;

/// Inter 4.1, reduced to Latin letters and signs; its licence is beside it.
static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(include_bytes!("font/Inter-Regular.ttf").to_vec());
    fonts.load_font_data(include_bytes!("font/Inter-SemiBold.ttf").to_vec());
    Arc::new(fonts)
});

#[derive(Debug, thiserror::Error)]
pub enum PngError {
    #[error("the picture is not readable: {0}")]
    Svg(#[from] resvg::usvg::Error),
    #[error("a picture of {width} × {height} pixels is too large")]
    TooLarge { width: f32, height: f32 },
    #[error("the picture cannot be encoded: {0}")]
    Encoding(String),
}

pub fn png(svg: &str) -> Result<Vec<u8>, PngError> {
    let options = Options { font_family: "Inter".to_owned(), fontdb: Arc::clone(&FONTS), ..Options::default() };
    let tree = Tree::from_str(svg, &options)?;
    let (width, height) = (tree.size().width() * SCALE, tree.size().height() * SCALE);
    let too_large = || PngError::TooLarge { width, height };
    if width * height > PIXELS_MAX {
        return Err(too_large());
    }
    let mut pixels = Pixmap::new(width.ceil() as u32, height.ceil() as u32).ok_or_else(too_large)?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| PngError::Encoding(error.to_string()))
}
