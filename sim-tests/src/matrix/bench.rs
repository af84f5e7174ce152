//! Where executables of the unchanged tree and of a mutant come from.

use super::switch::{self, Switched};
use super::tree::{self, Copy, Target, target_of};
use crate::mutants::{self, Mutant};
use crate::runner::Executable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An executable, and what is chosen in it.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(super) executable: Executable,
    /// The number of a mutant, 0 for none; `None`: there is nothing to choose.
    number: Option<u32>,
}

impl Subject {
    /// The variable that chooses.
    pub(super) fn choice(&self) -> Option<(String, String)> {
        let number = self.number?;
        Some((switch::VARIABLE.into(), number.to_string()))
    }
}

/// Gives executables of the unchanged tree and of mutants. Errors: a stale replacement, or a tree that
/// does not compile.
pub trait Bench: Sync {
    /// The tree.
    fn root(&self) -> &Path;

    /// An executable of the unchanged tree.
    fn clean(&self, target: &Target) -> Result<Subject, String>;

    /// Executables of a mutant.
    fn mutated(&self, mutant: &Mutant, targets: &[Target]) -> Result<Vec<Subject>, String>;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One tree that holds all mutants that can be chosen at run time; each test is built once, when it
/// is first asked for.
pub struct Switch {
    copy: Copy,
    numbers: BTreeMap<&'static str, u32>,
    built: Mutex<BTreeMap<Target, Executable>>,
}

impl Switch {
    /// Makes the tree, in a directory. Errors: a file that cannot be read, written or parsed.
    pub fn new(source: &Path, place: &Path) -> Result<Switch, String> {
        let Switched { files, numbers } = switched(source)?;
        let copy = Copy::new(source, place, true);
        let texts = files
            .iter()
            .map(|(file, text)| (file.as_str(), text.as_str()));
        copy.bring_up(texts)?;
        Ok(Switch {
            copy,
            numbers,
            built: Mutex::default(),
        })
    }

    /// Whether a mutant can be chosen.
    pub fn has(&self, mutant: &Mutant) -> bool {
        self.numbers.contains_key(mutant.id)
    }

    /// Has the compiler look at all of them, without building anything. Errors: one does not compile.
    pub fn check(&self) -> Result<(), String> {
        self.copy.check()
    }

    fn built(&self, targets: &[Target], number: u32) -> Result<Vec<Subject>, String> {
        let mut built = lock(&self.built);
        let missing = targets.iter().filter(|t| !built.contains_key(*t)).cloned();
        let missing: Vec<Target> = missing.collect();
        if !missing.is_empty() {
            let all = self.copy.build(&missing)?.into_iter();
            built.extend(all.map(|executable| (target_of(&executable), executable)));
        }
        let subject = |target| Subject {
            executable: built[target].clone(),
            number: Some(number),
        };
        Ok(targets.iter().map(subject).collect())
    }
}

/// All mutants of a tree that can be put behind the switch.
pub(super) fn switched(source: &Path) -> Result<Switched, String> {
    let read = |file: &str| {
        let path = source.join(file);
        std::fs::read_to_string(&path).map_err(|e| tree::said(&path, e))
    };
    switch::switched(mutants::all(), read)
}

impl Bench for Switch {
    fn root(&self) -> &Path {
        &self.copy.source
    }

    fn clean(&self, target: &Target) -> Result<Subject, String> {
        let mut one = self.built(std::slice::from_ref(target), 0)?;
        one.pop().ok_or_else(|| format!("{target:?} is not built"))
    }

    fn mutated(&self, mutant: &Mutant, targets: &[Target]) -> Result<Vec<Subject>, String> {
        match self.numbers.get(mutant.id) {
            Some(number) => self.built(targets, *number),
            None => Err("it cannot be chosen at run time".into()),
        }
    }
}

/// A copy of the tree that holds one mutant at a time, and is built for each.
pub struct Alone {
    copy: Copy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The mutant that is in the copy now.
    present: Option<&'static str>,
    /// Executables of the unchanged tree.
    clean: BTreeMap<Target, Executable>,
}

impl Alone {
    /// Makes the copy, in a directory. Errors: a file that cannot be read or written.
    pub fn new(source: &Path, place: &Path) -> Result<Alone, String> {
        let copy = Copy::new(source, place, false);
        copy.bring_up([])?;
        Ok(Alone {
            copy,
            state: Mutex::default(),
        })
    }

    /// Has the compiler look at a mutant, without building anything. Errors: it does not compile.
    pub fn check(&self, mutant: &Mutant) -> Result<(), String> {
        self.put(&mut lock(&self.state), mutant)?;
        self.copy.check()
    }

    /// Makes a mutant the present one.
    fn put(&self, state: &mut State, mutant: &Mutant) -> Result<(), String> {
        if state.present == Some(mutant.id) {
            return Ok(());
        }
        let source = &self.copy.source;
        let files = mutant.apply(|file| std::fs::read_to_string(source.join(file)))?;
        let texts = files.iter().map(|(file, text)| (*file, text.as_str()));
        self.copy.bring_up(texts)?;
        state.present = Some(mutant.id);
        Ok(())
    }

    fn keep(&self, state: &mut State, target: &Target) -> Result<(), String> {
        self.copy.bring_up([])?;
        state.present = None;
        let built = self.copy.build(std::slice::from_ref(target))?;
        for mut executable in built {
            let kept: PathBuf = self.copy.kept()?.join(format!("{}-{}", target.0, target.1));
            // A new file: the old one may be what another run is executing.
            let _ = std::fs::remove_file(&kept);
            std::fs::copy(&executable.path, &kept).map_err(|e| tree::said(&kept, e))?;
            executable.path = kept;
            state.clean.insert(target.clone(), executable);
        }
        Ok(())
    }
}

impl Bench for Alone {
    fn root(&self) -> &Path {
        &self.copy.source
    }

    fn clean(&self, target: &Target) -> Result<Subject, String> {
        let mut state = lock(&self.state);
        if !state.clean.contains_key(target) {
            self.keep(&mut state, target)?;
        }
        Ok(Subject {
            executable: state.clean[target].clone(),
            number: None,
        })
    }

    fn mutated(&self, mutant: &Mutant, targets: &[Target]) -> Result<Vec<Subject>, String> {
        let mut state = lock(&self.state);
        self.put(&mut state, mutant)?;
        let executables = self.copy.build(targets)?.into_iter();
        let subject = |executable| Subject {
            executable,
            number: None,
        };
        Ok(executables.map(subject).collect())
    }
}
