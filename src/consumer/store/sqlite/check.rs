//! Check of a SQLite file, which changes nothing.

use std::path::Path;

use super::reader::open;
use super::refuse_directory;
use crate::process::checks::{Finding, disk_space, may_write};
use crate::units::ByteCount;

/// Free space for about 100,000 events.
const ROOM: ByteCount = ByteCount::from_bytes(128 << 20);

pub(in crate::consumer::store) fn check(path: &Path) -> Vec<Finding> {
    let (about, shown) = ("database", path.display());
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = if path.exists() { may_write_file(path) } else { Ok(()) };
    let mut findings = vec![match writable.and_then(|()| may_write(directory)) {
        Err(why) => {
            Finding::failed(about, format!("{why}; check as the consumer's user, or name another file in store.url"))
        }
        Ok(()) if !directory.exists() => {
            Finding::failed(about, format!("there is no directory {}; create it", directory.display()))
        }
        Ok(()) if !path.exists() => Finding::ok(about, format!("{shown} is missing; `run` creates it")),
        Ok(()) if path.metadata().is_ok_and(|about| about.len() == 0) => {
            Finding::ok(about, format!("{shown} is empty; `run` creates its tables"))
        }
        Ok(()) => match open(path) {
            Ok(_) => Finding::ok(about, format!("{shown} has the tables of this version")),
            Err(error) => Finding::failed(about, error),
        },
    }];
    findings.extend(disk_space(directory, ROOM));
    findings
}

fn may_write_file(path: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    refuse_directory(path)?;
    let allowed = access(path, Access::READ_OK | Access::WRITE_OK);
    allowed.map_err(|error| format!("cannot write to {}: {}", path.display(), std::io::Error::from(error)))
}
