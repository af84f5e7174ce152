//! Who gets a server's connections.
//!
//! Clients have `max_connections`. Beyond them there are `reserve` more, which only members of the
//! server's own group may keep: clients that stay for ever cannot lock them out, and a group whose
//! members do not reach each other has no leader.
//!
//! Who is who is known from the hello. Until then a connection has a place for `hello_timeout`, and
//! while all places are taken, only until a newcomer needs it. So a flood of connections that say
//! nothing cannot hold the places for ever, not even by coming back: each newcomer has the time in
//! which `reserve` others connect, at least, to say its hello.

use super::{Hello, Limits};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// The places of a server's connections.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

/// Those that are taken.
#[derive(Default)]
struct Taken {
    /// In order of arrival.
    places: BTreeMap<u64, Place>,
    /// How many of them are clients'.
    clients: usize,
}

struct Place {
    /// None until it is started.
    task: Option<AbortHandle>,
    guest: Guest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// It has not said hello.
    Unknown,
    /// A client, or a member of another group.
    Client,
    /// A member of the server's own group.
    Member,
}

impl Guest {
    pub(super) fn of(peer: &Hello, own: &Hello) -> Guest {
        match own.group.is_some() && peer.group == own.group && peer.node != 0 {
            true => Guest::Member,
            false => Guest::Client,
        }
    }
}

/// How a new connection found a place.
pub(super) enum Entry {
    /// There was one.
    Free,
    /// It has that of another, which is ended.
    Freed,
    /// There is none.
    None,
}

impl Taken {
    fn leave(&mut self, number: u64) -> Option<AbortHandle> {
        let Place { task, guest } = self.places.remove(&number)?;
        self.clients -= usize::from(guest == Guest::Client);
        task
    }

    /// Ends the connection that has owed its hello longest.
    fn leave_unknown(&mut self) -> Option<AbortHandle> {
        let unknown = |(_, place): &(&u64, &Place)| place.guest == Guest::Unknown;
        let (number, _) = self.places.iter().find(unknown)?;
        self.leave(*number)
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, whose task is started if there is one. Numbers go up.
    pub(super) fn take(
        &self,
        number: u64,
        limits: &Limits,
        start: impl FnOnce(Seat) -> AbortHandle,
    ) -> Entry {
        let mut taken = self.lock();
        let full = taken.places.len() >= limits.max_connections + limits.reserve;
        let late = match full {
            true => taken.leave_unknown(),
            false => None,
        };
        if full && late.is_none() {
            return Entry::None;
        }
        let (task, guest) = (None, Guest::Unknown);
        taken.places.insert(number, Place { task, guest });
        drop(taken);
        // Not under the lock: a runtime that shuts down drops the new task, and its seat, at once.
        let places = self.clone();
        let task = start(Seat { number, places });
        match self.lock().places.get_mut(&number) {
            Some(place) => place.task = Some(task),
            // All were ended meanwhile, or it has ended already.
            None => task.abort(),
        }
        match late {
            None => Entry::Free,
            Some(task) => {
                task.abort();
                Entry::Freed
            }
        }
    }
}

/// All of them; ends the connections when dropped.
#[derive(Default)]
pub(super) struct Open(pub(super) Places);

impl Drop for Open {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut *self.0.lock());
        for task in taken.places.into_values().filter_map(|place| place.task) {
            task.abort();
        }
    }
}

/// The place of one connection; given back when dropped, however the connection ended.
pub(super) struct Seat {
    number: u64,
    places: Places,
}

impl Seat {
    /// The connection has said who it is. False when there is no place for another of its kind.
    pub(super) fn keep(&self, guest: Guest, limits: &Limits) -> bool {
        let mut taken = self.places.lock();
        if guest == Guest::Client && taken.clients >= limits.max_connections {
            return false;
        }
        // Its place may have been given away at this very moment.
        let Some(place) = taken.places.get_mut(&self.number) else {
            return false;
        };
        place.guest = guest;
        taken.clients += usize::from(guest == Guest::Client);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.lock().leave(self.number);
    }
}
