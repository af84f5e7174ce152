//! Events for the trace of a simulation; nothing in production.

/// The node an event happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Replica group; 0 is the controllers'.
    pub group: u64,
    /// Member of the group; 0 for a client.
    pub node: u64,
}

/// One event: what happened where, with named numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub site: Site,
    /// What: "sync", "send", "receive", "vote", "commit", "apply", "ownership", …
    pub kind: &'static str,
    /// Details in a fixed order.
    pub fields: Vec<(&'static str, u64)>,
}

/// Whether anybody listens: what only prepares events is skipped in production.
pub const LISTENING: bool = cfg!(madsim);

/// Tells the harness of an event. Compiled to nothing in production.
#[inline]
pub fn observe(site: Site, kind: &'static str, fields: &[(&'static str, u64)]) {
    #[cfg(madsim)]
    sink::emit(Event {
        site,
        kind,
        fields: fields.to_vec(),
    });
    #[cfg(not(madsim))]
    let _ = (site, kind, fields);
}

/// Counts that a rare window was hit: `world::mark!("text")`. Nothing in production. An ensemble of
/// simulated runs passes only when it hit every mark, so that a fault that no longer reaches what it
/// is for is noticed. A name stands at one place only.
#[macro_export]
macro_rules! mark {
    ($name:literal) => {
        $crate::observe::marked($name)
    };
}

/// See [`mark!`](crate::mark).
#[inline]
pub fn marked(name: &'static str) {
    #[cfg(madsim)]
    sink::marked(name);
    #[cfg(not(madsim))]
    let _ = name;
}

/// Where the harness listens.
#[cfg(madsim)]
pub mod sink {
    use super::Event;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    type Listener = Box<dyn FnMut(Event)>;

    thread_local! {
        static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
        static MARKS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Sets (or removes) the listener of this thread's simulation. It must not emit itself.
    pub fn listen(listener: Option<Listener>) {
        LISTENER.with(|l| *l.borrow_mut() = listener);
    }

    /// How often each mark was hit on this thread since the last [`clear_marks`].
    pub fn marks() -> BTreeMap<&'static str, u64> {
        MARKS.with(|m| m.borrow().clone())
    }

    /// Counts from zero.
    pub fn clear_marks() {
        MARKS.with(|m| m.borrow_mut().clear());
    }

    pub(super) fn marked(name: &'static str) {
        let _ = MARKS.try_with(|m| *m.borrow_mut().entry(name).or_default() += 1);
    }

    pub(super) fn emit(event: Event) {
        LISTENER.with(|l| {
            if let Some(listen) = l.borrow_mut().as_mut() {
                listen(event);
            }
        });
    }
}
