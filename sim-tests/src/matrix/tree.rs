//! A copy of the tree, and what is built from it.

use crate::runner::{self, Build, Executable};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// What is copied, from the root of the repository.
const COPIED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "raft",
    "ctrler",
    "kv",
    "sim-tests",
];

/// A test executable's package and target ([`LIB`] or [`LIB_REAL`] for unit tests).
pub(super) type Target = (String, String);
/// Unit tests in the simulated world.
pub(super) const LIB: &str = "lib";
/// The same in the real one: of what the simulated one has not, as tokio's budgets.
pub(super) const LIB_REAL: &str = "lib-real";

/// A copy of the tree, beside target directories of its own. Cargo's incremental builds live from one
/// mutant, and one run, to the next.
pub(super) struct Copy {
    /// The tree.
    pub(super) source: PathBuf,
    place: PathBuf,
    release: bool,
}

impl Copy {
    /// A copy in a directory, and whether it is built with optimisation. Nothing is copied yet.
    pub(super) fn new(source: &Path, place: &Path, release: bool) -> Copy {
        Copy {
            source: source.into(),
            place: place.into(),
            release,
        }
    }

    fn root(&self) -> PathBuf {
        self.place.join("tree")
    }

    /// Where executables may be kept.
    pub(super) fn kept(&self) -> Result<PathBuf, String> {
        let kept = self.place.join("clean");
        std::fs::create_dir_all(&kept).map_err(|e| said(&kept, e))?;
        Ok(kept)
    }

    /// Makes the copy equal to the tree, but for these files. Errors name the file.
    pub(super) fn bring_up<'a>(
        &self,
        changed: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), String> {
        let changed: Vec<(PathBuf, &str)> = changed
            .into_iter()
            .map(|(file, text)| (self.source.join(file), text))
            .collect();
        let (source, root) = (&self.source, self.root());
        std::fs::create_dir_all(&root).map_err(|e| said(&root, e))?;
        for name in COPIED {
            mirror(&source.join(name), &root.join(name), &changed)?;
        }
        Ok(())
    }

    /// Has the compiler look at the libraries of the copy. Errors: it does not compile.
    pub(super) fn check(&self) -> Result<(), String> {
        runner::check(&self.root(), &self.place.join("target-check"))
    }

    /// Builds test executables from the copy as it is now, each for its world. Errors: it does not
    /// compile.
    pub(super) fn build(&self, targets: &[Target]) -> Result<Vec<Executable>, String> {
        let (real, simulated): (Vec<Target>, Vec<Target>) = targets
            .iter()
            .cloned()
            .partition(|target| is_real(&self.source, target));
        let mut all = Vec::new();
        for (targets, simulated) in [(simulated, true), (real, false)] {
            if !targets.is_empty() {
                all.extend(self.build_for(&targets, simulated)?);
            }
        }
        Ok(all)
    }

    fn build_for(&self, targets: &[Target], simulated: bool) -> Result<Vec<Executable>, String> {
        // Always the same selection of packages, so that they are built with the same features.
        let packages = runner::PACKAGES.iter().chain(&["raft-protocol"]);
        let is_lib = |t: &Target| t.1 == LIB || t.1 == LIB_REAL;
        let integration = targets.iter().filter(|t| !is_lib(t));
        let target = if simulated { "target" } else { "target-real" };
        let what = Build {
            root: self.root(),
            target: self.place.join(target),
            simulated,
            release: self.release,
            packages: packages.map(|p| p.to_string()).collect(),
            tests: Some(integration.map(|t| t.1.clone()).collect()),
            lib: targets.iter().any(is_lib),
        };
        let mut built = runner::build(&what)?;
        for executable in built.iter_mut().filter(|e| e.lib && !simulated) {
            (executable.lib, executable.target) = (false, LIB_REAL.into());
        }
        let built = built.into_iter();
        let all: Vec<Executable> = built.filter(|e| targets.contains(&target_of(e))).collect();
        match targets
            .iter()
            .find(|t| !all.iter().any(|e| target_of(e) == **t))
        {
            Some((package, target)) => Err(format!("there is no test {package}/{target}")),
            None => Ok(all),
        }
    }
}

/// Names of a package's integration tests in the tree.
pub(super) fn tests(root: &Path, package: &str) -> Result<Vec<String>, String> {
    let tests = root.join(directory(package)).join("tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&tests).map_err(|e| said(&tests, e))? {
        let path = entry.map_err(|e| said(&tests, e))?.path();
        let is_test = path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").exists();
        if let Some(stem) = path.file_stem().and_then(OsStr::to_str).filter(|_| is_test) {
            names.push(stem.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a target's tests, or some of them, are of the real world: explorers, sockets that fill.
fn is_real(root: &Path, target: &Target) -> bool {
    let (package, name) = target;
    if name == LIB_REAL {
        return true;
    }
    let tests = root.join(directory(package)).join("tests");
    let mut texts = vec![tests.join(format!("{name}.rs"))];
    if let Ok(entries) = std::fs::read_dir(tests.join(name)) {
        texts.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let texts = texts.iter().filter_map(|p| std::fs::read_to_string(p).ok());
    let real = |text: String| text.contains("not(madsim)") || text.contains("SIMULATED");
    texts.into_iter().any(real)
}

/// Where a package stands in the tree.
fn directory(package: &str) -> &str {
    match package {
        "raft-protocol" => "raft/protocol",
        "world" => "raft/world",
        other => other,
    }
}

pub(super) fn target_of(executable: &Executable) -> Target {
    let target = if executable.lib {
        LIB
    } else {
        &executable.target
    };
    (executable.package.clone(), target.into())
}

pub(super) fn said(path: &Path, error: io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Makes `to` equal to `from`, but for files that have another text. Files that are equal already keep
/// their times, by which cargo judges what is to be built.
fn mirror(from: &Path, to: &Path, changed: &[(PathBuf, &str)]) -> Result<(), String> {
    if from.is_dir() {
        std::fs::create_dir_all(to).map_err(|e| said(to, e))?;
        let names = |dir: &Path| -> Result<Vec<std::ffi::OsString>, String> {
            let entries = std::fs::read_dir(dir).map_err(|e| said(dir, e))?;
            let name = |entry: io::Result<std::fs::DirEntry>| entry.map(|e| e.file_name());
            entries.map(|e| name(e).map_err(|e| said(dir, e))).collect()
        };
        let wanted = names(from)?;
        for name in &wanted {
            mirror(&from.join(name), &to.join(name), changed)?;
        }
        for name in names(to)?.iter().filter(|n| !wanted.contains(n)) {
            let old = to.join(name);
            let gone = match old.is_dir() {
                true => std::fs::remove_dir_all(&old),
                false => std::fs::remove_file(&old),
            };
            gone.map_err(|e| said(&old, e))?;
        }
        return Ok(());
    }
    if !from.exists() {
        return Ok(());
    }
    let contents = match changed.iter().find(|(file, _)| file == from) {
        Some((_, text)) => text.as_bytes().to_vec(),
        None => std::fs::read(from).map_err(|e| said(from, e))?,
    };
    if std::fs::read(to).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    std::fs::write(to, contents).map_err(|e| said(to, e))
}
