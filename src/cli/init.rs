//! `init`: a configuration for this host, made from the shipped file, which explains each key.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::Args;

use super::FlagOfKey;
use crate::cli::output;
use crate::process::exit::Failure;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct InitFlags {
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
}

pub(crate) struct Template(String);

impl Template {
    pub(crate) fn new(shipped: &str) -> Self {
        Self(shipped.to_owned())
    }

    /// Sets a key that the shipped file shows in the table `table`; an empty name is the top level.
    pub(crate) fn set(&mut self, table: &str, key: &str, value: &str) {
        let lines: Vec<&str> = self.0.lines().collect();
        let is = |line: &str, what: &str| line.trim_start_matches('#').starts_with(what);
        let header = format!("[{table}]");
        let begin = if table.is_empty() { Some(0) } else { lines.iter().position(|line| is(line, &header)) };
        let begin = begin.expect("the shipped file shows the table");
        let at = lines[begin..].iter().position(|line| is(line, &format!("{key} = ")));
        let at = begin + at.expect("the shipped file shows the key");
        let value = format!("{key} = {}", toml::Value::String(value.to_owned()));
        let line = |(number, line): (usize, &&str)| match number {
            number if number == at => value.clone(),
            number if number == begin && !table.is_empty() => header.clone(),
            _ => (*line).to_owned(),
        };
        self.0 = lines.iter().enumerate().map(line).map(|line| line + "\n").collect();
    }

    pub(crate) fn set_flags(&mut self, flags: &[FlagOfKey<'_>]) {
        for (_, path, value) in flags {
            if let Some(value) = value {
                let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
                self.set(table, key, value);
            }
        }
    }

    /// Replaces the lines from the one that begins with `begin` to the one before that which begins with `end`.
    pub(crate) fn replace(&mut self, begin: &str, end: &str, text: &str) {
        let place = |line: &str| self.0.find(&format!("\n{line}")).expect("the shipped file has the line") + 1;
        let (begin, end) = (place(begin), place(end));
        self.0.replace_range(begin..end, text);
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl InitFlags {
    /// Writes a new file and its directory; `-` is standard output. Only its owner may read a file that holds a secret.
    pub(crate) fn write(self, path: &Path, text: &str, holds_secret: bool) -> Result<(), Failure> {
        if path == Path::new("-") {
            return output::print(text);
        }
        self.create(path, text, holds_secret).map_err(|error| {
            let path = path.display();
            Failure::failed(match error.kind() {
                ErrorKind::AlreadyExists => {
                    format!("{path} exists; --force overwrites it, -c FILE names another one, -c - prints it")
                }
                ErrorKind::PermissionDenied => {
                    format!("{path} cannot be written: {error}; use sudo, or name another file with -c")
                }
                _ => format!("{path} cannot be written: {error}; name another file with -c"),
            })
        })
    }

    fn create(self, path: &Path, text: &str, holds_secret: bool) -> io::Result<()> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let mode = if holds_secret { 0o600 } else { 0o644 };
        if self.force {
            // The old file stays whole until the new one is; a link stays a link.
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            let mut name = path.clone().into_os_string();
            name.push(".new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&name)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            return fs::rename(name, path);
        }
        // `create_new` also refuses a link that leads nowhere.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_value_goes_below_its_table_and_everything_else_stays() {
        let mut template = Template::new("#a = \"x\"  # of all\n[t]\n#a = \"y\"\n#[u]\n#a = \"z\"\n# end\n");
        template.set("u", "a", "5\"5");
        assert_eq!(template.text(), "#a = \"x\"  # of all\n[t]\n#a = \"y\"\n[u]\na = '5\"5'\n# end\n");
        template.set("", "a", "1");
        template.set("t", "a", "2");
        assert_eq!(template.text(), "a = \"1\"\n[t]\na = \"2\"\n[u]\na = '5\"5'\n# end\n");
        template.replace("[t]", "# end", "[v]\n");
        assert_eq!(template.text(), "a = \"1\"\n[v]\n# end\n");
    }

    #[test]
    fn no_file_is_overwritten_unasked_and_a_secret_is_not_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("new/agent.toml"), directory.path().join("link"));
        let (careful, forced) = (InitFlags { force: false }, InitFlags { force: true });
        careful.write(&file, "first", false).unwrap();
        let error = careful.write(&file, "second", false).unwrap_err().to_string();
        assert!(error.contains("exists; --force overwrites it"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        symlink(&file, &link).unwrap();
        assert!(careful.write(&link, "second", false).is_err());
        forced.write(&link, "third", true).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), link.is_symlink()), ("third", true));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let nowhere = directory.path().join("nowhere");
        symlink("gone", &nowhere).unwrap();
        assert!(careful.write(&nowhere, "x", false).is_err() && !directory.path().join("gone").exists());
    }
}
