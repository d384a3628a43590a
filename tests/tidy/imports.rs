//! The graph of imports, read from the source.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Source;

/// A module that names something of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
}

impl Import {
    fn of(from: &str, to: &str) -> Self {
        let segments = |path: &str| path.split("::").map(str::to_owned).collect();
        Self { from: segments(from), to: segments(to) }
    }

    /// Returns whether it leads from something in `from` to something in `to`, both below `crate`.
    pub(super) fn leads(&self, from: &str, to: &str) -> bool {
        let Self { from: begins, to: ends } = Self::of(from, to);
        self.from.starts_with(&begins) && self.to.starts_with(&ends)
    }
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} imports {}", self.from.join("::"), self.to.join("::"))
    }
}

/// Returns what the code of `sources` imports of each other, tests aside.
pub(super) fn imports(sources: &[Source]) -> Vec<Import> {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let mut imports = BTreeSet::new();
    for source in sources {
        let mut paths = Paths::default();
        paths.visit_file(&source.code());
        for path in paths.0 {
            let Some(to) = resolve(&path, &source.module, &modules) else { continue };
            if to != source.module {
                imports.insert(Import { from: source.module.clone(), to });
            }
        }
    }
    imports.into_iter().collect()
}

/// Returns the module that `path`, written in `module`, leads into.
fn resolve(path: &[String], module: &[String], modules: &BTreeSet<&[String]>) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let (mut found, rest) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &path[supers..]),
        _ => return None,
    };
    for segment in rest {
        found.push(segment.clone());
        if !modules.contains(found.as_slice()) {
            found.pop();
            break;
        }
    }
    Some(found)
}

/// The paths that a file names, in `use` and elsewhere.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.0.push(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    /// The arguments of a macro are no syntax yet: every `a::b` in them counts.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 2;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.0.push(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => self.0.push(std::mem::take(&mut path)),
            }
        }
        self.0.push(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

/// Returns the circles among the files and folders that are siblings, each with the imports that make it.
pub(super) fn circles(imports: &[Import]) -> Vec<String> {
    let mut folders: BTreeMap<&[String], Vec<(&str, &str, &Import)>> = BTreeMap::new();
    for import in imports {
        let common = import.from.iter().zip(&import.to).take_while(|(from, to)| from == to).count();
        // A folder's own file defines the vocabulary of all that is in it: it is no sibling of theirs.
        if let (Some(from), Some(to)) = (import.from.get(common), import.to.get(common)) {
            folders.entry(&import.from[..common]).or_default().push((from, to, import));
        }
    }
    let mut found = Vec::new();
    for edges in folders.values() {
        let reach = |from: &str| {
            let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(at) = next.pop() {
                let further = edges.iter().filter(|(begin, ..)| *begin == at).map(|(_, end, _)| (*end).to_owned());
                next.extend(further.filter(|end| reached.insert(end.clone())));
            }
            reached
        };
        let reached: BTreeMap<&str, BTreeSet<String>> = edges.iter().map(|(from, ..)| (*from, reach(from))).collect();
        let meet = |a: &str, b: &str| {
            reached.get(a).is_some_and(|all| all.contains(b)) && reached.get(b).is_some_and(|all| all.contains(a))
        };
        found.extend(edges.iter().filter(|(from, to, _)| meet(from, to)).map(|(.., import)| import.to_string()));
    }
    found
}
