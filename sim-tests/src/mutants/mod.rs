//! Known bugs, each as a small textual replacement that puts it back into today's tree.
//!
//! `cargo run -p sim-tests --bin kill-matrix` puts them back one at a time, on a copy, and demands
//! that the tests notice. `tests/mutants_apply.rs` keeps the replacements in step with the tree.
//!
//! Ids: E election, R replication, Q reads, L log, N network, S state and snapshots, C sessions,
//! H shards, V values in pieces, B controllers: bugs that real systems or many student implementations had, with where they were
//! seen. W01 to W12: the wounds of earlier implementations, each of which a named test must close.
//! X: the shortcuts of this very design that would lose data, put in by hand.

mod controller;
mod election;
mod fed;
mod found;
mod log;
mod net;
mod own;
mod own_kv;
mod reads;
mod replication;
mod sessions;
mod shards;
mod state;
mod values;
mod wounds;

/// A bug.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Short name.
    pub id: &'static str,
    /// It shows only under an exact interleaving.
    pub star: bool,
    /// What is wrong.
    pub what: &'static str,
    /// Where it was seen, or which rule it breaks.
    pub seen: &'static str,
    /// What puts it back.
    pub edits: &'static [Edit],
    /// Tests most likely to notice, the cheapest first: `package/target::beginning of a name`,
    /// with the target `lib` for unit tests. None: it is known and open.
    pub tests: &'static [&'static str],
}

/// A textual replacement.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// What stands there, exactly once.
    pub before: &'static str,
    /// What it becomes.
    pub after: &'static str,
}

/// An edit as one line.
const fn edit(file: &'static str, before: &'static str, after: &'static str) -> Edit {
    Edit {
        file,
        before,
        after,
    }
}

const FAMILIES: &[&[Mutant]] = &[
    election::MUTANTS,
    replication::MUTANTS,
    reads::MUTANTS,
    log::MUTANTS,
    fed::MUTANTS,
    net::MUTANTS,
    state::MUTANTS,
    sessions::MUTANTS,
    shards::MUTANTS,
    controller::MUTANTS,
    wounds::MUTANTS,
    own::MUTANTS,
    found::MUTANTS,
    own_kv::MUTANTS,
    values::MUTANTS,
];

/// All of them, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

impl Mutant {
    /// Its files with the replacements made. `read` gives a file's present text.
    ///
    /// Errors: a file that cannot be read, or in which what is to be replaced does not stand exactly
    /// once; they name the mutant and the file.
    pub fn apply(
        &self,
        read: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let mut files: Vec<(&'static str, String)> = Vec::new();
        for edit in self.edits {
            let known = files.iter().position(|(file, _)| *file == edit.file);
            let at = match known {
                Some(at) => at,
                None => {
                    let text =
                        read(edit.file).map_err(|e| format!("{}: {}: {e}", self.id, edit.file))?;
                    files.push((edit.file, text));
                    files.len() - 1
                }
            };
            let text = &mut files[at].1;
            let count = text.matches(edit.before).count();
            if count != 1 || edit.before == edit.after {
                return Err(format!(
                    "{}: {}: what is to be replaced occurs {count} times, expected once:\n{}",
                    self.id, edit.file, edit.before
                ));
            }
            *text = text.replacen(edit.before, edit.after, 1);
        }
        Ok(files)
    }
}
