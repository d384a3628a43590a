//! The table of links: what is known of each, and what changed. Pure.

use super::{Came, Left, LinkChange, LinkInfo};
use crate::agent::watch::Selection;
use crate::units::BitRate;

/// All links, watched or not (one that is not may be renamed into the selection), and the changes not yet reported.
#[derive(Debug)]
pub(super) struct LinkTable {
    selection: Selection,
    /// In the order of their ifindex.
    entries: Vec<Entry>,
    changes: Vec<LinkChange>,
    /// How many changes there were at the last [`LinkTable::mark`].
    changes_before: usize,
}

#[derive(Debug)]
struct Entry {
    link: LinkInfo,
    watched: bool,
    /// Seen since the last [`LinkTable::mark`].
    seen: bool,
}

impl LinkTable {
    pub(super) fn new(selection: Selection) -> Self {
        Self { selection, entries: Vec::new(), changes: Vec::new(), changes_before: 0 }
    }

    /// Notes a link as it is now. Its speed, which takes a file to read, is asked only if it is watched.
    pub(super) fn put(&mut self, mut link: LinkInfo, speed: impl FnOnce(&str) -> Option<BitRate>) {
        let watched = self.selection.watches(&link);
        if watched {
            link.speed = speed(&link.name);
        }
        let at = match self.position(link.ifindex) {
            // A kind never changes: this is another link, which got the number of one that went unnoticed.
            Ok(at) if self.entries[at].link.kind != link.kind => {
                self.remove(link.ifindex);
                Err(at)
            }
            found => found,
        };
        match at {
            Err(at) => {
                if watched {
                    self.changes.push(LinkChange::Added(link.clone(), Came::Appeared));
                }
                self.entries.insert(at, Entry { link, watched, seen: true });
            }
            Ok(at) => {
                let entry = &mut self.entries[at];
                entry.seen = true;
                let was_watched = std::mem::replace(&mut entry.watched, watched);
                let renamed = entry.link.name != link.name;
                let change = match (was_watched, watched) {
                    (true, true) => (entry.link != link).then(|| LinkChange::Changed(link.clone())),
                    (false, true) => {
                        let old = std::mem::take(&mut entry.link.name);
                        let came = if renamed { Came::RenamedFrom(old) } else { Came::Released };
                        Some(LinkChange::Added(link.clone(), came))
                    }
                    (true, false) => {
                        let left = if renamed { Left::RenamedTo(link.name.clone()) } else { Left::Enslaved };
                        Some(LinkChange::Removed(link.ifindex, left))
                    }
                    (false, false) => None,
                };
                entry.link = link;
                self.changes.extend(change);
            }
        }
    }

    /// Notes that a link is gone.
    pub(super) fn remove(&mut self, ifindex: u32) {
        let Ok(at) = self.position(ifindex) else { return };
        if self.entries.remove(at).watched {
            self.changes.push(LinkChange::Removed(ifindex, Left::Gone));
        }
    }

    /// Begins a reading of the whole table: what is not [`put`](Self::put) or [`keep`](Self::keep)t before
    /// [`sweep`](Self::sweep) is gone.
    pub(super) fn mark(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.seen = false);
        self.changes_before = self.changes.len();
    }

    /// Nothing new is known of this link, but that it is still there.
    pub(super) fn keep(&mut self, ifindex: u32) {
        if let Ok(at) = self.position(ifindex) {
            self.entries[at].seen = true;
        }
    }

    /// Ends a reading of the whole table. Those gone are reported before what was put since the mark, so that a name is free
    /// again before another link takes it.
    pub(super) fn sweep(&mut self) {
        let put = self.changes.len() - self.changes_before;
        let changes = &mut self.changes;
        self.entries.retain(|entry| {
            if !entry.seen && entry.watched {
                changes.push(LinkChange::Removed(entry.link.ifindex, Left::Gone));
            }
            entry.seen
        });
        self.changes[self.changes_before..].rotate_left(put);
    }

    /// Whether this link is known and watched.
    pub(super) fn watches(&self, ifindex: u32) -> bool {
        self.position(ifindex).is_ok_and(|at| self.entries[at].watched)
    }

    /// What is known of a link.
    pub(super) fn get(&self, ifindex: u32) -> Option<&LinkInfo> {
        self.position(ifindex).ok().map(|at| &self.entries[at].link)
    }

    /// Links that were neither put nor kept since the mark.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &LinkInfo> {
        self.entries.iter().filter(|entry| !entry.seen).map(|entry| &entry.link)
    }

    /// The ifindex of each watched link, ascending.
    pub(super) fn watched(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter(|entry| entry.watched).map(|entry| entry.link.ifindex)
    }

    /// How many links there are, watched or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Hands over the changes.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<LinkChange>) {
        changes.append(&mut self.changes);
    }

    fn position(&self, ifindex: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&ifindex, |entry| entry.link.ifindex)
    }
}
