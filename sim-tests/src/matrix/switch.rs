//! All bugs in one tree, behind one switch that is read when a program starts.
//!
//! A bug whose replacements all lie inside bodies of functions needs no build of its own. Each of
//! these bodies is kept once as it is and once per bug, and the number in [`VARIABLE`] chooses:
//!
//! ```text
//!   fn f(…) -> T { match crate::mutant_switch::number() { 17 => {…}, 40 => {…}, _ => {…} } }
//! ```
//!
//! Anything else (a constant, a signature, a `const fn`, a function that returns `impl Trait`, a
//! macro) has to be put into a tree alone.

use crate::mutants::{Edit, Mutant};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use syn::visit::{self, Visit};

/// The environment variable that chooses: a bug's number, 0 or nothing for the tree as it is.
pub(super) const VARIABLE: &str = "HOLDFAST_MUTANT";

/// The tree with the bugs behind the switch.
pub(super) struct Switched {
    /// Texts of the files that differ from the tree, by path from the root.
    pub(super) files: BTreeMap<String, String>,
    /// The bugs behind the switch, by id: their numbers.
    pub(super) numbers: BTreeMap<&'static str, u32>,
}

/// What is appended to the root of each crate that has a bug.
fn reader() -> String {
    format!(
        "
#[doc(hidden)]
#[allow(missing_docs, clippy::all)]
pub(crate) mod mutant_switch {{
    static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    pub(crate) fn number() -> u32 {{
        let read = || std::env::var(\"{VARIABLE}\").ok()?.parse().ok();
        *NUMBER.get_or_init(|| read().unwrap_or(0))
    }}
}}
"
    )
}

/// A body: its file, and which of that file's it is.
type Body = (String, usize);
/// The bodies that one bug changes, each with its new text.
type Changes = BTreeMap<Body, String>;

/// Puts all the bugs that allow it behind the switch; they are numbered from 1. `read` gives a
/// file's text. Errors: a file cannot be read or is not Rust.
pub(super) fn switched(
    mutants: impl Iterator<Item = &'static Mutant>,
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<Switched, String> {
    let mut sources: BTreeMap<&str, Source> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut versions: BTreeMap<Body, Vec<(u32, String)>> = BTreeMap::new();
    for (mutant, number) in mutants.zip(1..) {
        for edit in mutant.edits {
            if !sources.contains_key(edit.file) {
                sources.insert(edit.file, Source::parse(edit.file, read(edit.file)?)?);
            }
        }
        if let Some(changes) = changes(mutant, &sources) {
            numbers.insert(mutant.id, number);
            for (body, text) in changes {
                versions.entry(body).or_default().push((number, text));
            }
        }
    }
    let mut files = BTreeMap::new();
    for (name, source) in &sources {
        let mut text = source.text.clone();
        // From the end, so that what is in front of it stays where it is.
        for (at, body) in source.bodies.iter().enumerate().rev() {
            let Some(versions) = versions.get(&(name.to_string(), at)) else {
                continue;
            };
            let mut chosen = String::from("{ match crate::mutant_switch::number() {\n");
            for (number, text) in versions {
                let _ = writeln!(chosen, "{number} => {text}");
            }
            let _ = write!(chosen, "_ => {} }} }}", &source.text[body.clone()]);
            text.replace_range(body.clone(), &chosen);
        }
        if text != source.text {
            files.insert(name.to_string(), text);
        }
    }
    let mut roots: Vec<String> = files.keys().filter_map(|file| root_of(file)).collect();
    roots.dedup();
    for root in roots {
        let text = match files.remove(&root) {
            Some(text) => text,
            None => read(&root)?,
        };
        files.insert(root, text + &reader());
    }
    Ok(Switched { files, numbers })
}

/// The root of the crate that a file belongs to; none for a program's.
fn root_of(file: &str) -> Option<String> {
    let (package, path) = file.split_once("/src/")?;
    let is_library = path != "main.rs" && !path.starts_with("bin/");
    is_library.then(|| format!("{package}/src/lib.rs"))
}

/// A replacement, and where in the file it is made.
type Place<'a> = (Range<usize>, &'a Edit);

/// The bodies that a bug changes; `None`: it changes something else too.
fn changes(mutant: &Mutant, sources: &BTreeMap<&str, Source>) -> Option<Changes> {
    let mut by_body: BTreeMap<Body, Vec<Place<'_>>> = BTreeMap::new();
    for edit in mutant.edits {
        root_of(edit.file)?;
        let source = &sources[edit.file];
        // A replacement may stand in what another one of the same bug has put there.
        let mut found = source.text.match_indices(edit.before);
        let (start, end) = (found.next()?.0, found.next().is_none());
        let place = start..start + edit.before.len();
        let inside = |body: &Range<usize>| body.start < place.start && place.end < body.end;
        let body = source.bodies.iter().position(inside).filter(|_| end)?;
        let edits = by_body.entry((edit.file.into(), body)).or_default();
        edits.push((place, edit));
    }
    let mut changes = Changes::new();
    for ((file, at), mut edits) in by_body {
        edits.sort_by_key(|(place, _)| place.start);
        if edits.windows(2).any(|two| two[0].0.end > two[1].0.start) {
            return None;
        }
        let source = &sources[file.as_str()];
        let body = source.bodies[at].clone();
        let mut text = source.text[body.clone()].to_string();
        for (place, edit) in edits.iter().rev() {
            let place = place.start - body.start..place.end - body.start;
            text.replace_range(place, edit.after);
        }
        // What ends this function and begins another is no body.
        syn::parse_str::<syn::Block>(&text).ok()?;
        changes.insert((file, at), text);
    }
    Some(changes)
}

/// A file, and the bodies of functions that may be chosen among, in their order.
struct Source {
    text: String,
    bodies: Vec<Range<usize>>,
}

impl Source {
    fn parse(name: &str, text: String) -> Result<Source, String> {
        let parsed = syn::parse_file(&text).map_err(|e| format!("{name}: {e}"))?;
        let mut bodies = Bodies::default();
        bodies.visit_file(&parsed);
        let mut bodies = bodies.0;
        bodies.sort_by_key(|body| body.start);
        Ok(Source { text, bodies })
    }
}

/// The outermost bodies.
#[derive(Default)]
struct Bodies(Vec<Range<usize>>);

impl Bodies {
    fn take(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let opaque = matches!(&signature.output, syn::ReturnType::Type(_, kind) if is_opaque(kind));
        if signature.constness.is_none() && !opaque {
            let braces = block.brace_token.span;
            let (open, close) = (braces.open().byte_range(), braces.close().byte_range());
            self.0.push(open.start..close.end);
        }
    }
}

/// Each body would be a type of its own.
fn is_opaque(kind: &syn::Type) -> bool {
    struct Opaque(bool);
    impl Visit<'_> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    opaque.visit_type(kind);
    opaque.0
}

impl<'a> Visit<'a> for Bodies {
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.take(&function.sig, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.take(&function.sig, &function.block);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.take(&function.sig, block);
        }
    }

    fn visit_item(&mut self, item: &'a syn::Item) {
        // Inside a macro's rules nothing is an item yet.
        if !matches!(item, syn::Item::Macro(_)) {
            visit::visit_item(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
use std::fmt;
const LIMIT: u32 = 3;
const fn fixed() -> u32 { 4 + 0 }
fn many() -> impl Iterator<Item = u32> { (0..5).map(|n| n + 1) }
mod inner {
    impl Thing {
        fn plain(&self) -> u32 {
            fn nested() -> u32 { 6 }
            nested() + 1
        }
        fn other(&self) {}
    }
}
";

    const fn bug(id: &'static str, edits: &'static [Edit]) -> Mutant {
        Mutant {
            id,
            star: false,
            what: "",
            seen: "",
            edits,
            tests: &[],
        }
    }

    const fn edit(before: &'static str, after: &'static str) -> Edit {
        Edit {
            file: "a/src/thing.rs",
            before,
            after,
        }
    }

    static BUGS: [Mutant; 7] = [
        bug("constant", &[edit("u32 = 3", "u32 = 4")]),
        bug("nested", &[edit("{ 6 }", "{ 7 }")]),
        bug("plain", &[edit("nested() + 1", "nested() + 2")]),
        bug("const fn", &[edit("4 + 0", "4 + 1")]),
        bug("opaque", &[edit("n + 1", "n + 2")]),
        bug("half", &[edit("6 }", "7 }"), edit("= 3", "= 4")]),
        bug("unbalanced", &[edit("nested() + 1", "1 } fn more() { 2;")]),
    ];

    fn read(file: &str) -> Result<String, String> {
        match file {
            "a/src/thing.rs" => Ok(TEXT.into()),
            "a/src/lib.rs" => Ok("mod thing;\n".into()),
            other => Err(other.into()),
        }
    }

    #[test]
    fn bodies_are_chosen_among_and_nothing_else_is() {
        let switched = switched(BUGS.iter(), read).unwrap();
        let numbers: Vec<_> = switched.numbers.into_iter().collect();
        assert_eq!(numbers, [("nested", 2), ("plain", 3)]);
        let files: Vec<&String> = switched.files.keys().collect();
        assert_eq!(files, ["a/src/lib.rs", "a/src/thing.rs"]);
        assert!(switched.files["a/src/lib.rs"].contains("mod mutant_switch {"));

        let text = &switched.files["a/src/thing.rs"];
        let (head, body) = TEXT.split_once("fn plain(&self) -> u32 ").unwrap();
        let body = &body[..body.find("fn other").unwrap()];
        let spaces = body.len() - body.trim_end().len();
        let body = body.trim_end();
        let tail = &TEXT[head.len() + "fn plain(&self) -> u32 ".len() + body.len()..];
        assert!(spaces > 0 && text.starts_with(head) && text.ends_with(tail));
        for (arm, version) in [
            ("2 => ", body.replace("{ 6 }", "{ 7 }")),
            ("3 => ", body.replace("+ 1", "+ 2")),
            ("_ => ", body.into()),
        ] {
            assert!(text.contains(&format!("{arm}{version}")), "{arm}: {text}");
        }
        syn::parse_file(text).unwrap();
    }

    #[test]
    fn a_program_has_no_root_to_read_the_variable_in() {
        assert_eq!(root_of("kv/src/bin/kvctl/main.rs"), None);
        assert_eq!(root_of("kv/src/main.rs"), None);
        assert_eq!(
            root_of("raft/world/src/net/wire.rs").unwrap(),
            "raft/world/src/lib.rs"
        );
    }

    #[test]
    fn nearly_all_of_todays_bugs_are_behind_the_switch() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let switched = super::super::bench::switched(&root).unwrap();
        let all = crate::mutants::all().count();
        assert!(
            switched.numbers.len() * 20 >= all * 19,
            "{:?}",
            switched.numbers
        );
    }
}
