//! Detects a file's encoding by its first bytes. UTF-16 becomes UTF-8; the error for a packed file names the command to unpack it.

use std::io::{self, Cursor, Read};

use super::text::as_argument;

pub(super) fn text(mut reader: Box<dyn Read>, file: &str) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    (&mut reader).take(8).read_to_end(&mut head)?;
    if let Some(message) = packed(&head, file) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let unit: Option<fn([u8; 2]) -> u16> = match head[..] {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes),
        // Without a byte order mark, Latin letters have one zero byte.
        [a, 0, b, 0, ..] if a > 0 && b > 0 => Some(u16::from_le_bytes),
        [0, a, 0, b, ..] if a > 0 && b > 0 => Some(u16::from_be_bytes),
        _ => None,
    };
    let whole = Cursor::new(head).chain(reader);
    Ok(match unit {
        Some(unit) => Box::new(Utf16 { reader: whole, unit, units: Vec::new(), odd: None, text: Cursor::default() }),
        None => Box::new(whole),
    })
}

fn packed(head: &[u8], file: &str) -> Option<String> {
    let unpacked = |what: &str, command: &str| {
        Some(format!("is {what}; unpack it first: `{command} {} | highwater-agent replay - ...`", as_argument(file)))
    };
    match head {
        [0x1f, 0x8b, ..] => unpacked("compressed with gzip", "zcat"),
        [b'B', b'Z', b'h', ..] => unpacked("compressed with bzip2", "bzcat"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => unpacked("compressed with xz", "xzcat"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unpacked("compressed with zstd", "zstdcat"),
        [b'P', b'K', 3, 4, ..] => {
            unpacked("a zip archive, or a spreadsheet, which its program can save as CSV", "unzip -p")
        }
        [0xd0, 0xcf, 0x11, 0xe0, ..] => Some("is a spreadsheet of Excel's; save it as CSV there".to_owned()),
        _ => None,
    }
}

struct Utf16<R> {
    reader: R,
    unit: fn([u8; 2]) -> u16,
    units: Vec<u16>,
    odd: Option<u8>,
    text: Cursor<Vec<u8>>,
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.text.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.decode()? {
                return Ok(read);
            }
        }
    }
}

impl<R: Read> Utf16<R> {
    fn decode(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 8192];
        let kept = usize::from(self.odd.is_some());
        bytes[0] = self.odd.take().unwrap_or_default();
        let read = self.reader.read(&mut bytes[kept..])?;
        let mut pairs = bytes[..kept + read].chunks_exact(2);
        self.units.extend((&mut pairs).map(|pair| (self.unit)([pair[0], pair[1]])));
        self.odd = pairs.remainder().first().copied().filter(|_| read > 0);
        // The second half of a surrogate pair may be in the next block.
        let waits = self.units.last().copied().filter(|unit| read > 0 && (0xd800..0xdc00).contains(unit));
        self.units.truncate(self.units.len() - usize::from(waits.is_some()));
        let units = std::mem::replace(&mut self.units, waits.into_iter().collect());
        let text: String =
            char::decode_utf16(units).map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        self.text = Cursor::new(text.into_bytes());
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow(Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn read(bytes: Vec<u8>) -> String {
        let mut read = String::new();
        text(Box::new(Slow(Cursor::new(bytes))), "in.csv").unwrap().read_to_string(&mut read).unwrap();
        read
    }

    #[test]
    fn utf_16_is_read_in_either_order_of_bytes_with_its_mark_or_without() {
        let wanted = "timestamp,näme 😀\n1,2\n";
        let bytes = |mark: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("{mark}{wanted}").encode_utf16().flat_map(order).collect()
        };
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(bytes("\u{feff}", order)), format!("\u{feff}{wanted}"));
            assert_eq!(read(bytes("", order)), wanted);
        }
        let cut = bytes("", u16::to_le_bytes);
        assert_eq!(read(cut[..cut.len() - 1].to_vec()), wanted.trim_end_matches('\n'));
    }

    #[test]
    fn utf_8_stays_and_what_is_short_too() {
        for wanted in ["", "t", "t,v", "timestamp,value\n1,2\n", "\u{feff}timestamp,näme\n"] {
            assert_eq!(read(wanted.as_bytes().to_vec()), wanted);
        }
    }

    #[test]
    fn what_is_packed_is_named_with_what_unpacks_it() {
        let heads: [(&[u8], &str); 6] = [
            (b"\x1f\x8b\x08\0", "gzip; unpack it first: `zcat in.csv |"),
            (b"BZh9", "`bzcat in.csv |"),
            (b"\xfd7zXZ\0", "`xzcat in.csv |"),
            (b"\x28\xb5\x2f\xfd", "`zstdcat in.csv |"),
            (b"PK\x03\x04", "`unzip -p in.csv |"),
            (b"\xd0\xcf\x11\xe0", "save it as CSV"),
        ];
        for (head, wanted) in heads {
            let error = text(Box::new(Cursor::new(head.to_vec())), "in.csv").map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
