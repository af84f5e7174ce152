//! The simulated name space: what names mean now, and what they mean after a power failure.

use super::SimDiskOptions;
use super::inode::Inode;
use super::rng::Rng;
use crate::disk::parent;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(super) type Shared = Arc<Mutex<Inode>>;

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Entry {
    Dir,
    File(Shared),
}

/// A change of names that no directory sync has made durable yet.
enum Change {
    Mkdir(String),
    Create(String, Shared),
    /// To a name, from whichever the file has.
    Rename(String, Shared),
    Remove(String, Shared),
}

impl Change {
    /// The directory whose sync makes it durable.
    fn dir(&self) -> &str {
        match self {
            Change::Mkdir(name)
            | Change::Create(name, _)
            | Change::Remove(name, _)
            | Change::Rename(name, _) => parent(name),
        }
    }

    fn apply(self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Change::Mkdir(name) => {
                names.insert(name, Entry::Dir);
            }
            Change::Create(name, file) => {
                names.insert(name, Entry::File(file));
            }
            // Under whatever name it was: a rename before this one may have been lost.
            Change::Rename(to, file) => {
                names.retain(|_, entry| !is(Some(&*entry), &file));
                names.insert(to, Entry::File(file));
            }
            Change::Remove(name, file) => {
                if is(names.get(&name), &file) {
                    names.remove(&name);
                }
            }
        }
    }
}

fn is(entry: Option<&Entry>, file: &Shared) -> bool {
    matches!(entry, Some(Entry::File(present)) if Arc::ptr_eq(present, file))
}

/// The directory tree; keys are full names, "" (the root) is not stored.
#[derive(Default)]
pub(super) struct Names {
    pub(super) now: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn file(&self, name: &str) -> Option<&Shared> {
        match self.now.get(name) {
            Some(Entry::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn is_dir(&self, name: &str) -> bool {
        name.is_empty() || matches!(self.now.get(name), Some(Entry::Dir))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&String, &Shared)> {
        self.now.iter().filter_map(|(name, entry)| match entry {
            Entry::File(file) => Some((name, file)),
            Entry::Dir => None,
        })
    }

    /// The names directly inside a directory.
    pub(super) fn list(&self, dir: &str) -> Vec<String> {
        self.now
            .keys()
            .filter(|name| parent(name) == dir)
            .map(|name| name[dir.len()..].trim_start_matches('/').to_string())
            .collect()
    }

    fn change(&mut self, change: impl Fn() -> Change) {
        change().apply(&mut self.now);
        self.pending.push(change());
    }

    pub(super) fn create_dir(&mut self, name: &str) {
        if !self.is_dir(name) {
            self.create_dir(parent(name));
            self.change(|| Change::Mkdir(name.to_string()));
        }
    }

    pub(super) fn create(&mut self, name: &str) -> Shared {
        let file = Shared::default();
        self.change(|| Change::Create(name.to_string(), file.clone()));
        file
    }

    pub(super) fn rename(&mut self, to: &str, file: &Shared) {
        self.change(|| Change::Rename(to.to_string(), file.clone()));
    }

    pub(super) fn remove(&mut self, name: &str, file: &Shared) {
        self.change(|| Change::Remove(name.to_string(), file.clone()));
    }

    pub(super) fn sync_dir(&mut self, dir: &str) {
        for change in std::mem::take(&mut self.pending) {
            if change.dir() == dir {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Each change that was not synced happened or did not; files of lost directories are lost.
    pub(super) fn power_fail(&mut self, rng: &mut Rng, options: &SimDiskOptions) {
        let keep = match rng.below(4) {
            0 => 0.0,
            1 => 1.0,
            _ => 0.5,
        };
        for change in std::mem::take(&mut self.pending) {
            if rng.chance(keep) {
                change.apply(&mut self.durable);
            }
        }
        let mut kept: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.durable) {
            let dir = parent(&name);
            if dir.is_empty() || matches!(kept.get(dir), Some(Entry::Dir)) {
                kept.insert(name, entry);
            }
        }
        self.now = kept.clone();
        self.durable = kept;
        let files: Vec<Shared> = self.files().map(|(_, file)| file.clone()).collect();
        for file in files {
            super::lock(&file).power_fail(rng, options);
        }
    }

    /// The tree as it is now, with everything written durable.
    pub(super) fn frozen_copy(&self) -> Names {
        let copy = |entry: &Entry| match entry {
            Entry::Dir => Entry::Dir,
            Entry::File(file) => {
                let mut inode = super::lock(file).clone();
                inode.forget();
                inode.sync(false);
                Entry::File(Arc::new(Mutex::new(inode)))
            }
        };
        let now: BTreeMap<String, Entry> = self
            .now
            .iter()
            .map(|(name, entry)| (name.clone(), copy(entry)))
            .collect();
        Names {
            durable: now.clone(),
            now,
            pending: Vec::new(),
        }
    }
}
