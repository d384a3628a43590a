//! The table of links: what is known of each, and what changed. Pure.

use super::{Came, Left, LinkChange, LinkInfo, Speed};
use crate::agent::watch::Selection;

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
    pub(super) fn put(&mut self, mut link: LinkInfo, speed: impl FnOnce(&str) -> Speed) {
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

#[cfg(test)]
mod tests {
    use super::super::LinkKind;
    use super::*;
    use crate::units::BitRate;

    fn link(ifindex: u32, name: &str) -> LinkInfo {
        LinkInfo::new(ifindex, name, LinkKind::Physical)
    }

    fn table() -> LinkTable {
        LinkTable::new(Selection::new(&["eth*".to_owned(), "*".to_owned()], &["old*".to_owned()], &[]))
    }

    fn put(table: &mut LinkTable, link: LinkInfo) -> Vec<LinkChange> {
        table.put(link, |_| Speed::default());
        changes(table)
    }

    fn changes(table: &mut LinkTable) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        table.take_changes(&mut changes);
        changes
    }

    #[test]
    fn tells_what_changed_and_nothing_else() {
        let mut table = table();
        let eth0 = link(2, "eth0");
        assert_eq!(put(&mut table, eth0.clone()), [LinkChange::Added(eth0.clone(), Came::Appeared)]);
        assert_eq!(put(&mut table, eth0.clone()), []);
        let down = LinkInfo { up: false, ..eth0 };
        assert_eq!(put(&mut table, down.clone()), [LinkChange::Changed(down)]);
        let renamed = link(2, "wan");
        assert_eq!(put(&mut table, renamed.clone()), [LinkChange::Changed(renamed)]);
        table.remove(2);
        assert_eq!(changes(&mut table), [LinkChange::Removed(2, Left::Gone)]);
        table.remove(2);
        assert_eq!(changes(&mut table), []);
    }

    #[test]
    fn a_rename_out_of_the_selection_and_into_it() {
        let mut table = table();
        put(&mut table, link(2, "eth0"));
        assert_eq!(put(&mut table, link(2, "old0")), [LinkChange::Removed(2, Left::RenamedTo("old0".into()))]);
        assert!(!table.watches(2));
        let back = link(2, "eth7");
        let came = Came::RenamedFrom("old0".into());
        assert_eq!(put(&mut table, back.clone()), [LinkChange::Added(back, came)]);
    }

    #[test]
    fn a_bonds_slave_leaves_and_returns() {
        let mut table = table();
        put(&mut table, link(2, "wan0"));
        let slave = LinkInfo { enslaved: true, ..link(2, "wan0") };
        assert_eq!(put(&mut table, slave), [LinkChange::Removed(2, Left::Enslaved)]);
        assert_eq!(put(&mut table, link(2, "wan0")), [LinkChange::Added(link(2, "wan0"), Came::Released)]);
    }

    #[test]
    fn another_kind_is_another_link() {
        let mut table = table();
        put(&mut table, link(2, "eth0"));
        let other = LinkInfo { kind: LinkKind::Bond, ..link(2, "eth0") };
        let expected = [LinkChange::Removed(2, Left::Gone), LinkChange::Added(other.clone(), Came::Appeared)];
        assert_eq!(put(&mut table, other), expected);
    }

    #[test]
    fn a_whole_reading_finds_what_is_gone_and_tells_it_first() {
        let mut table = table();
        table.put(link(2, "eth0"), |_| Speed::default());
        table.mark();
        table.put(link(3, "eth0"), |_| Speed::default());
        table.sweep();
        let (first, second) = (link(2, "eth0"), link(3, "eth0"));
        assert_eq!(
            changes(&mut table),
            [
                LinkChange::Added(first, Came::Appeared),
                LinkChange::Removed(2, Left::Gone),
                LinkChange::Added(second, Came::Appeared),
            ]
        );
        table.mark();
        assert_eq!(table.unseen().count(), 1);
        table.keep(3);
        table.sweep();
        assert_eq!(changes(&mut table), []);
    }

    #[test]
    fn speed_is_asked_of_watched_links_only() {
        let mut table = table();
        table.put(link(2, "old0"), |_| panic!("nobody watches it"));
        table.put(link(3, "eth0"), |name| {
            assert_eq!(name, "eth0");
            Speed::both(Some(BitRate::from_bps(1)))
        });
        assert!(matches!(&changes(&mut table)[..], [LinkChange::Added(link, _)] if link.speed.rx.is_some()));
    }

    proptest::proptest! {
        /// Whoever follows the changes knows the watched links, whatever happened.
        #[test]
        fn the_changes_add_up(steps in proptest::collection::vec((0u8..4, 1u32..5, 0usize..4, 0u8..4), 0..60)) {
            const NAMES: [&str; 4] = ["eth0", "eth1", "old0", "wan0"];
            let mut table = table();
            let mut known = std::collections::BTreeMap::new();
            for (what, ifindex, name, state) in steps {
                let mut link = link(ifindex, NAMES[name]);
                (link.up, link.enslaved) = (state & 1 == 0, state & 2 == 0);
                match what {
                    0 => table.remove(ifindex),
                    1 => {
                        table.mark();
                        table.put(link, |_| Speed::default());
                        table.sweep();
                        assert_eq!(table.len(), 1);
                    }
                    _ => table.put(link, |_| Speed::default()),
                }
                for change in changes(&mut table) {
                    match change {
                        LinkChange::Added(link, _) => assert!(known.insert(link.ifindex, link).is_none()),
                        LinkChange::Changed(link) => assert!(known.insert(link.ifindex, link).is_some()),
                        LinkChange::Removed(ifindex, _) => assert!(known.remove(&ifindex).is_some()),
                    }
                }
                assert!(known.keys().copied().eq(table.watched()));
                assert!(known.values().all(|link| table.get(link.ifindex) == Some(link)));
            }
        }
    }
}
