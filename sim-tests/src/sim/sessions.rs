//! Exactly once, judged at log positions: a session travels with its shard, so its writes are one
//! sequence over all groups.

use super::invariants::field;
use super::trace;
use std::collections::BTreeMap;

/// A place in a group's log.
type Place = (u64, u64);

/// A session of a shard.
#[derive(Default)]
struct Session {
    /// Where it was opened.
    opened: Option<Place>,
    /// Where each of its writes took effect, from number 1.
    writes: Vec<Place>,
    /// Where it was dropped, or a write was told that it is gone.
    gone: Option<Place>,
}

/// Installs the checks. I9: each number takes effect once, after the one before it; a session's
/// number is given once. I10: no write takes effect in a session that was never opened, or after
/// it was dropped or one was told that it is gone.
pub(super) fn install() {
    let mut sessions: BTreeMap<(u64, u64), Session> = BTreeMap::new();
    trace::check(move |_, event| {
        let group = event.site.group;
        if !matches!(event.kind, "open" | "expired" | "serve") {
            return;
        }
        let name = (field(event, "shard"), field(event, "session"));
        let place = (group, field(event, "index"));
        let session = sessions.entry(name).or_default();
        match event.kind {
            "open" => {
                let first = *session.opened.get_or_insert(place);
                assert!(
                    first == place,
                    "I9: session {} of shard {} is given twice (group, index)",
                    name.1,
                    name.0
                );
            }
            "expired" => {
                session.gone.get_or_insert(place);
            }
            _ => session.write(name, place, field(event, "seq")),
        }
    });
}

impl Session {
    fn write(&mut self, (shard, session): (u64, u64), place: Place, seq: u64) {
        assert!(
            self.opened.is_some(),
            "I10: write {seq} takes effect in session {session} of shard {shard}, which nobody opened"
        );
        let known = usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX);
        match self.writes.get(known) {
            Some(first) => assert!(
                *first == place,
                "I9: write {seq} of session {session} of shard {shard} takes effect twice (group, \
                 index)"
            ),
            None => {
                let last = self.writes.len() as u64;
                assert!(
                    last + 1 == seq,
                    "I9: write {seq} of session {session} of shard {shard} follows write {last}"
                );
                assert!(
                    self.gone.is_none(),
                    "I10: write {seq} takes effect in session {session} of shard {shard}, gone since \
                     (group, index) {:?}",
                    self.gone
                );
                self.writes.push(place);
            }
        }
    }
}
