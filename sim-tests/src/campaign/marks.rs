//! The coverage marks: every `world::mark!` of the sources, by name.
//!
//! An ensemble of runs passes only when nothing failed *and* every mark was hit. A test keeps this
//! list and the sources equal.

use std::collections::BTreeMap;

/// All marks that a campaign must hit, in order.
pub const EXPECTED: &[&str] = &[
    "abstention: it ends",
    "append: a stale leader is told of the higher term",
    "append: begins below what is compacted",
    "append: dropped unread, the log in memory is full",
    "append: need-snapshot is answered",
    "append: refused, the logs differ",
    "apply: the overlay is at its hard limit",
    "birth: it waits for a member",
    "client: a gap is repaired at once",
    "client: a late answer to an earlier attempt settles a number",
    "client: a number whose caller gave up becomes a filler",
    "client: a session ends under a write, its outcome is unknown",
    "client: told that its session expired",
    "compaction: the log behind a snapshot in transfer is kept",
    "config: a repeated or late entering is refused",
    "config: entered while a copy given away is not swept yet",
    "config: entering is refused, something is owed",
    "crash: a vote is on disk and never left",
    "crash: a write that was under way is lost",
    "crash: a write that was under way is there",
    "ctrler: a configuration not known here is asked of the leader",
    "ctrler: a group joins again",
    "ctrler: a report older than the record",
    "ctrler: the last group leaves",
    "heartbeat: acknowledged entries are lost",
    "heartbeat: need-snapshot is answered",
    "identity: a lower boot number is refused",
    "identity: a start that was met is not in the disk's past",
    "identity: an emptied directory is refused",
    "identity: the same boot number with another nonce is refused",
    "install: a suffix of the log is kept",
    "leader: deposed with proposals under way",
    "leader: it begins with entries of earlier terms not committed",
    "log: a conflicting suffix is replaced",
    "log: a reset hides older segments",
    "log: a segment is missing in the middle",
    "log: a torn tail is cut",
    "log: damage is found, the node abstains",
    "log: it lies behind the state, and restarts there",
    "log: old segments are purged",
    "log: several writes share a sync",
    "move: a late freeze",
    "move: a late release",
    "move: a session arrives with its shard",
    "move: a value travels in pieces",
    "move: frozen twice",
    "move: rows at a wrong cursor",
    "move: rows of a shard that is not arriving",
    "mover: a chunk is refused, the pull begins anew",
    "mover: a member that does not lead answers",
    "mover: asked by a group that is ahead",
    "mover: asked for a shard that is gone",
    "mover: the controllers' record says that a shard has arrived",
    "pre-vote: refused",
    "read: a follower is refused",
    "read: asked of a leader before its term has committed anything",
    "read: leadership is lost while it waits",
    "read: waits until its index is applied",
    "session: a gap",
    "session: a stale number",
    "session: dropped after an hour",
    "session: the stored reply is given again",
    "session: unknown",
    "shard: Held, then Leaving",
    "shard: Held, then Serving",
    "shard: Serving, then Held",
    "shard: asked for while it arrives",
    "shard: it comes back before its old copy is swept",
    "shard: written while it leaves, before the freeze",
    "snapshot: a transfer is replaced by another",
    "snapshot: a transfer resumes",
    "snapshot: an offer is not wanted",
    "snapshot: its sender is deposed",
    "snapshot: overtaken by the log after it was received",
    "store: a flush ends during an install",
    "store: a rewrite gives way to a flush",
    "store: no room for a spool",
    "store: the generation is switched by an install",
    "store: the state file is rewritten",
    "store: the state is lost",
    "store: the state was condemned before the restart",
    "vote: refused",
];

/// Marks that the campaign cannot be asked to hit, and the test that does: limits of thousands (it has
/// few clients), what only a faulty server or a rotten disk says, races of some milliseconds.
pub const ELSEWHERE: &[(&str, &str)] = &[
    (
        "client: a write waits for the next session",
        "kv/tests/client_stream.rs::expiry_reports_what_was_sent_as_unknown_and_moves_only_what_was_not",
    ),
    (
        "client: told that its number is stale",
        "kv/tests/client_stream.rs::what_follows_each_answer",
    ),
    (
        "install: the log behind it is dropped",
        "sim-tests/tests/raft_scenarios/wounds.rs::a_snapshot_does_not_keep_a_tail_of_another_term",
    ),
    (
        "log: the newest segment is unused, its header torn",
        "raft/tests/log_damage.rs::an_unused_newest_segment_without_a_header_is_a_torn_tail",
    ),
    (
        "session: dropped to make room",
        "raft/tests/session.rs::a_full_table_drops_closed_then_longest_idle_then_none",
    ),
    (
        "session: its window is full",
        "raft/tests/session.rs::the_window_counts_replies",
    ),
    (
        "store: a rewrite is cancelled by an install",
        "raft/tests/store_install.rs::an_install_cancels_a_rewrite",
    ),
    (
        "store: a switch is refused, the state is past it",
        "raft/tests/store_install.rs::current_never_moves_to_a_lower_stamp",
    ),
];

/// Those that a small ensemble may miss: they need a fault in one particular moment, or much time.
/// A night of seeds must hit them too.
pub const RARE: &[&str] = &[
    "apply: the overlay is at its hard limit",
    "client: a late answer to an earlier attempt settles a number",
    "config: a repeated or late entering is refused",
    "config: entering is refused, something is owed",
    "heartbeat: acknowledged entries are lost",
    "identity: the same boot number with another nonce is refused",
    "install: a suffix of the log is kept",
    "log: a reset hides older segments",
    "log: a segment is missing in the middle",
    "move: a late freeze",
    "move: a value travels in pieces",
    "move: rows at a wrong cursor",
    "move: rows of a shard that is not arriving",
    "mover: a chunk is refused, the pull begins anew",
    "session: a stale number",
    "session: dropped after an hour",
    "snapshot: overtaken by the log after it was received",
    "store: no room for a spool",
    "store: the state was condemned before the restart",
];

/// Marks that every ensemble must hit and that were not hit.
pub fn missed(hits: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let hit = |mark: &str| hits.get(mark).is_some_and(|count| *count > 0);
    let missed = |mark: &&str| !RARE.contains(mark) && !hit(mark);
    EXPECTED.iter().copied().filter(missed).collect()
}
