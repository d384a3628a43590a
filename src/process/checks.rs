//! Findings of `check`: one line each on standard output, with the remedy if something is wrong. `run` logs them at its start.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::units::ByteCount;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub grade: Grade,
    /// Subject: `kafka`, `limit wan-down`.
    pub about: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    pub fn ok(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Ok, about: about.into(), text: text.to_string() }
    }

    pub fn warning(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Warning, about: about.into(), text: text.to_string() }
    }

    pub fn failed(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Failed, about: about.into(), text: text.to_string() }
    }

    pub fn is_problem(&self) -> bool {
        self.grade != Grade::Ok
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Failed => "FAILED",
        };
        write!(f, "{grade:<8} {}: {}", self.about, self.text)
    }
}

/// Compares the free space of a directory's file system with what may be written there; `None` if it is unknown.
pub fn disk_space(directory: &Path, needed: ByteCount) -> Option<Finding> {
    let there = directory.ancestors().find(|path| path.exists() || path.as_os_str().is_empty())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let file_system = rustix::fs::statvfs(there).ok()?;
    let free = ByteCount::from_bytes(file_system.f_bavail.saturating_mul(file_system.f_frsize));
    let shown = directory.display();
    Some(if free < needed {
        Finding::warning("disk", format!("{free} are free for {shown}, where up to {needed} may be written; make room"))
    } else {
        Finding::ok("disk", format!("{free} are free for {shown}"))
    })
}

/// Checks that this process may create files in a directory, or the directory itself; an error names the path that forbids it.
pub fn may_write(directory: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    let there = directory.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("cannot write to {}: {}", there.display(), std::io::Error::from(error)))
}

/// Returns what keeps a service's user from its files; nothing if there is no such user. Those in `hidden` directories the service
/// does not see at all.
pub fn unreadable_files(user: Option<&User>, hidden: &[&str], files: &[PathBuf]) -> Vec<Finding> {
    let Some(user) = user else { return Vec::new() };
    // The directories of a link, and those of its target.
    let paths: BTreeSet<PathBuf> =
        files.iter().flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]).flatten().collect();
    let (gone, seen): (Vec<_>, Vec<_>) =
        paths.iter().partition(|path| hidden.iter().any(|directory| path.starts_with(directory)));
    let closed =
        |path: &&PathBuf| path.ancestors().skip(1).find(|directory| user.lacks(0o1, directory)).map(Path::to_owned);
    let closed: BTreeSet<PathBuf> = seen.iter().filter_map(closed).collect();
    let name = &user.name;
    let of_hidden = |file: &PathBuf| format!("the unit hides {}: move it, as to /etc/highwater", file.display());
    let of_directory = |directory: &PathBuf| {
        let directory = directory.display();
        format!("{name} may not look into {directory}: chmod o+x {directory}, or name files elsewhere")
    };
    let of_file = |file: &PathBuf| {
        let file = file.display();
        format!("{name} may not read {file}: chgrp {name} {file} && chmod 640 {file}")
    };
    let unreadable = files.iter().filter(|file| user.lacks(0o4, file)).map(of_file);
    let texts = gone.into_iter().map(of_hidden).chain(closed.iter().map(of_directory)).chain(unreadable);
    texts.map(|text| Finding::failed("service", text)).collect()
}

/// Returns what keeps a unit from a directory, by its properties as `systemctl show` prints them.
pub fn unwritable_directory(directory: &Path, unit: &str, properties: &str) -> Option<Finding> {
    let property = |name: &str| properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if property("ProtectSystem") != Some("strict") {
        return None;
    }
    let named = property("ReadWritePaths").into_iter().flat_map(str::split_whitespace);
    let named = named.map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
    let own = property("StateDirectory").into_iter().flat_map(str::split_whitespace);
    let own = own.map(|name| Path::new("/var/lib").join(name.split(':').next().unwrap_or(name)));
    if named.chain(own).any(|path| directory.starts_with(path)) {
        return None;
    }
    let directory = directory.display();
    let remedy = format!("systemctl edit {unit}, with [Service] and ReadWritePaths={directory}");
    Some(Finding::failed("service", format!("the unit may not write to {directory}: {remedy}")))
}

#[derive(Clone, Debug)]
pub struct User {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl User {
    /// Finds a user in the texts of /etc/passwd and /etc/group.
    pub fn find(name: &str, passwd: &str, group: &str) -> Option<Self> {
        fn fields(line: &str) -> Vec<&str> {
            line.split(':').collect()
        }
        let of_user = |fields: Vec<&str>| match *fields {
            [user, _, uid, gid, ..] if user == name => Some((uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?)),
            _ => None,
        };
        let of_member = |fields: Vec<&str>| match *fields {
            [_, _, gid, members] if members.split(',').any(|member| member == name) => gid.parse::<u32>().ok(),
            _ => None,
        };
        let (uid, gid) = passwd.lines().map(fields).find_map(of_user)?;
        let groups = group.lines().map(fields).filter_map(of_member).chain([gid]).collect();
        Some(Self { name: name.to_owned(), uid, groups })
    }

    /// Returns true if the mode of an existing path denies this user a right: 4 to read, 1 to look into a directory.
    fn lacks(&self, right: u32, path: &Path) -> bool {
        path.metadata().is_ok_and(|about| {
            let class = if about.uid() == self.uid {
                6
            } else if self.groups.contains(&about.gid()) {
                3
            } else {
                0
            };
            about.mode() >> class & right == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_writes_to_its_own_directory_and_to_those_that_are_named() {
        let found = |directory: &str, properties: &str| {
            unwritable_directory(Path::new(directory), "hw-agent", properties).map(|finding| finding.text)
        };
        let strict = "ProtectSystem=strict\nReadWritePaths=-/srv/other /srv/hw\nStateDirectory=hw\n";
        for directory in ["/var/lib/hw", "/var/lib/hw/state", "/srv/hw", "/srv/other/state"] {
            assert_eq!(found(directory, strict), None);
        }
        assert_eq!(found("/srv/hw2", "ProtectSystem=full\nReadWritePaths=\nStateDirectory=hw\n"), None);
        assert_eq!(found("/srv/hw2", ""), None, "there is no such unit");
        let remedy = "systemctl edit hw-agent, with [Service] and ReadWritePaths=/srv/hw2";
        assert_eq!(found("/srv/hw2", strict), Some(format!("the unit may not write to /srv/hw2: {remedy}")));
    }

    #[test]
    fn room_and_rights_are_those_of_the_nearest_directory() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        assert!(!disk_space(&deep, ByteCount::from_bytes(1)).unwrap().is_problem());
        assert!(disk_space(&deep, ByteCount::from_bytes(u64::MAX)).unwrap().is_problem());
        assert_eq!(may_write(&deep), Ok(()));
        std::fs::write(directory.path().join("a"), "").unwrap();
        assert!(may_write(&deep).unwrap_err().ends_with("is no directory"));
    }

    #[test]
    fn root_is_told_what_the_services_user_may_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        set(directory.path(), 0o755);
        let file = directory.path().join("secret");
        std::fs::write(&file, "").unwrap();
        let about = file.metadata().unwrap();
        let (ours, our_group, other) = (about.uid(), about.gid(), 4_000_000);
        let remedy = |passwd: &str, group: &str, mode: u32| {
            set(&file, mode);
            let files = [file.clone(), directory.path().join("missing")];
            let findings = unreadable_files(User::find("hw", passwd, group).as_ref(), &[], &files);
            assert!(findings.len() < 2 && findings.iter().all(Finding::is_problem), "{findings:?}");
            findings.into_iter().next().map(|finding| finding.text)
        };
        let [stranger, owner, in_group] = [(other, other), (ours, other), (other, our_group)]
            .map(|(uid, gid)| format!("root:x:{other}:0::/:/bin/sh\nhw:x:{uid}:{gid}::/nonexistent:/bin/false\n"));
        let member = format!("adm:x:{other}:root\nsecrets:x:{our_group}:root,hw\n");
        for (passwd, group, mode, may_read) in [
            (&stranger, "", 0o640, false),
            (&stranger, "", 0o644, true),
            (&in_group, "", 0o640, true),
            (&in_group, "", 0o604, false),
            (&stranger, &*member, 0o640, true),
            (&stranger, "secrets:x:0:hwx\n", 0o640, false),
            (&owner, "", 0o600, true),
            (&owner, &*member, 0o044, false),
        ] {
            assert_eq!(remedy(passwd, group, mode).is_none(), may_read, "{passwd}{group}{mode:o}");
        }
        let said = remedy(&stranger, "", 0o600).unwrap();
        let file = file.display();
        assert_eq!(said, format!("hw may not read {file}: chgrp hw {file} && chmod 640 {file}"));
        assert_eq!(remedy("root:x:0:0::/:/bin/sh\n", &member, 0o600), None, "there is no such user");
        let user = User::find("hw", &stranger, "");
        let hidden =
            unreadable_files(user.as_ref(), &[directory.path().to_str().unwrap()], &[directory.path().join("secret")]);
        assert!(hidden[0].text.ends_with("move it, as to /etc/highwater"), "{hidden:?}");
        set(directory.path(), 0o700);
        let said = remedy(&stranger, "", 0o644).unwrap();
        let directory = directory.path().display();
        assert_eq!(said, format!("hw may not look into {directory}: chmod o+x {directory}, or name files elsewhere"));
    }
}
