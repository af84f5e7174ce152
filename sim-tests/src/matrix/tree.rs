//! The copy of the tree that is changed, and what is built from it.

use crate::mutants::Mutant;
use crate::runner::{self, Build, Executable};
use std::collections::BTreeMap;
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

/// A test executable's package and target (`lib` for unit tests).
pub(super) type Target = (String, String);

/// A copy of the tree with a target directory of its own, below the target directory of this very
/// program. Cargo's incremental builds live from one mutant, and one run, to the next.
pub struct Tree {
    source: PathBuf,
    copy: PathBuf,
    /// Executables of the unchanged tree, kept.
    clean: BTreeMap<Target, Executable>,
    /// Files that the present mutant changes.
    changed: Vec<&'static str>,
}

impl Tree {
    /// Brings the copy up to date. Errors name the file.
    pub fn new(source: &Path, place: &Path) -> Result<Tree, String> {
        let tree = Tree {
            source: source.into(),
            copy: place.join("tree"),
            clean: BTreeMap::new(),
            changed: Vec::new(),
        };
        std::fs::create_dir_all(&tree.copy).map_err(|e| said(&tree.copy, e))?;
        for name in COPIED {
            mirror(&tree.source.join(name), &tree.copy.join(name))?;
        }
        Ok(tree)
    }

    /// Names of a package's integration tests in the tree.
    pub(super) fn tests(&self, package: &str) -> Result<Vec<String>, String> {
        let tests = self.source.join(directory(package)).join("tests");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&tests).map_err(|e| said(&tests, e))? {
            let path = entry.map_err(|e| said(&tests, e))?.path();
            let is_test =
                path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").exists();
            if let Some(stem) = path.file_stem().and_then(OsStr::to_str).filter(|_| is_test) {
                names.push(stem.to_string());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Puts a bug in. Errors: a replacement is stale.
    pub(super) fn mutate(&mut self, mutant: &Mutant) -> Result<(), String> {
        let source = &self.source;
        let files = mutant.apply(|file| std::fs::read_to_string(source.join(file)))?;
        for (file, text) in files {
            self.changed.push(file);
            let path = self.copy.join(file);
            std::fs::write(&path, text).map_err(|e| said(&path, e))?;
        }
        Ok(())
    }

    /// Takes it out again.
    pub(super) fn restore(&mut self) -> Result<(), String> {
        for file in std::mem::take(&mut self.changed) {
            mirror(&self.source.join(file), &self.copy.join(file))?;
        }
        Ok(())
    }

    /// Whether a target's tests, or some of them, are of the real world: explorers, sockets that fill.
    fn is_real(&self, target: &Target) -> bool {
        let (package, name) = target;
        let tests = self.source.join(directory(package)).join("tests");
        let mut texts = vec![tests.join(format!("{name}.rs"))];
        if let Ok(entries) = std::fs::read_dir(tests.join(name)) {
            texts.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        let texts = texts.iter().filter_map(|p| std::fs::read_to_string(p).ok());
        let real = |text: String| text.contains("not(madsim)") || text.contains("SIMULATED");
        texts.into_iter().any(real)
    }

    /// Builds test executables from the copy as it is now, each for its world. Errors: it does not
    /// compile.
    pub(super) fn build(&self, targets: &[Target]) -> Result<Vec<Executable>, String> {
        let (real, simulated): (Vec<Target>, Vec<Target>) =
            targets.iter().cloned().partition(|t| self.is_real(t));
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
        let integration = targets.iter().filter(|t| t.1 != "lib");
        let place = if simulated {
            "../target"
        } else {
            "../target-real"
        };
        let what = Build {
            root: self.copy.clone(),
            target: self.copy.join(place),
            simulated,
            release: false,
            packages: packages.map(|p| p.to_string()).collect(),
            tests: Some(integration.map(|t| t.1.clone()).collect()),
            lib: targets.iter().any(|t| t.1 == "lib"),
        };
        let built = runner::build(&what)?.into_iter();
        let all: Vec<Executable> = built.filter(|e| targets.contains(&target_of(e))).collect();
        match targets
            .iter()
            .find(|t| !all.iter().any(|e| target_of(e) == **t))
        {
            Some((package, target)) => Err(format!("there is no test {package}/{target}")),
            None => Ok(all),
        }
    }

    /// An executable of the unchanged tree; the bug is taken out for it and put in again.
    pub(super) fn clean(&mut self, target: &Target, mutant: &Mutant) -> Result<Executable, String> {
        if !self.clean.contains_key(target) {
            self.restore()?;
            let kept = self.keep(std::slice::from_ref(target));
            self.mutate(mutant)?;
            kept?;
        }
        Ok(self.clean[target].clone())
    }

    /// Builds executables of the unchanged tree and keeps copies of them.
    pub(super) fn keep(&mut self, targets: &[Target]) -> Result<Vec<Executable>, String> {
        let place = self.copy.join("../clean");
        std::fs::create_dir_all(&place).map_err(|e| said(&place, e))?;
        let missing: Vec<Target> = targets
            .iter()
            .filter(|t| !self.clean.contains_key(*t))
            .cloned()
            .collect();
        if !missing.is_empty() {
            for mut executable in self.build(&missing)? {
                let target = target_of(&executable);
                let kept = place.join(format!("{}-{}", target.0, target.1));
                // A new file: the old one may be what another run is executing.
                let _ = std::fs::remove_file(&kept);
                std::fs::copy(&executable.path, &kept).map_err(|e| said(&kept, e))?;
                executable.path = kept;
                self.clean.insert(target, executable);
            }
        }
        Ok(targets.iter().map(|t| self.clean[t].clone()).collect())
    }
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
        "lib"
    } else {
        &executable.target
    };
    (executable.package.clone(), target.into())
}

fn said(path: &Path, error: io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Makes `to` equal to `from`. Files that are equal already keep their times, by which cargo judges
/// what is to be built.
fn mirror(from: &Path, to: &Path) -> Result<(), String> {
    if from.is_dir() {
        std::fs::create_dir_all(to).map_err(|e| said(to, e))?;
        let names = |dir: &Path| -> Result<Vec<std::ffi::OsString>, String> {
            let entries = std::fs::read_dir(dir).map_err(|e| said(dir, e))?;
            let name = |entry: io::Result<std::fs::DirEntry>| entry.map(|e| e.file_name());
            entries.map(|e| name(e).map_err(|e| said(dir, e))).collect()
        };
        let wanted = names(from)?;
        for name in &wanted {
            mirror(&from.join(name), &to.join(name))?;
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
    let contents = std::fs::read(from).map_err(|e| said(from, e))?;
    if std::fs::read(to).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    std::fs::write(to, contents).map_err(|e| said(to, e))
}
