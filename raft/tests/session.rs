//! The session table, rule by rule.

use bytes::Bytes;
use raft::At;
use raft::session::{
    EXPIRY_MS, MAX_REPLY, MAX_SESSIONS, MAX_TABLE_BYTES, MIN_IDLE_MS, Refusal, Seq, Table, Verdict,
    WINDOW_BYTES, WINDOW_REPLIES, incoming, outgoing,
};
use raft::store::Rows;

fn at(time_ms: u64) -> At {
    At {
        index: 1,
        term: 1,
        time_ms,
    }
}

fn reply(seq: u64) -> Bytes {
    Bytes::from(format!("reply {seq}"))
}

struct Bench {
    rows: Rows,
    table: Table,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            rows: Rows::in_memory(),
            table: Table::new(b"t/"),
        }
    }

    fn open(&mut self, ms: u64) -> Result<u64, Refusal> {
        self.table.open(&mut self.rows, at(ms)).unwrap()
    }

    fn judge(&mut self, ms: u64, session: u64, seq: u64, acked: u64) -> Verdict {
        self.table
            .judge(
                &mut self.rows,
                at(ms),
                Seq {
                    session,
                    seq,
                    acked,
                },
            )
            .unwrap()
    }

    fn store(&mut self, ms: u64, session: u64, seq: u64, acked: u64, reply: &Bytes) {
        let seq = Seq {
            session,
            seq,
            acked,
        };
        self.table
            .store(&mut self.rows, at(ms), seq, reply)
            .unwrap();
    }

    /// A whole write, as a machine does it.
    fn write(&mut self, ms: u64, session: u64, seq: u64, acked: u64) -> Verdict {
        let verdict = self.judge(ms, session, seq, acked);
        if verdict == Verdict::Execute {
            self.store(ms, session, seq, acked, &reply(seq));
        }
        verdict
    }

    fn sessions(&mut self) -> usize {
        self.table.sessions(&self.rows).unwrap()
    }

    fn bytes(&mut self) -> u64 {
        self.table.reply_bytes(&self.rows).unwrap()
    }
}

use Verdict::{Execute, Refused, Repeat};

#[test]
fn the_table_row_by_row() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    assert_eq!(s, 1);
    for seq in 1..=5 {
        assert_eq!(t.write(0, s, seq, 0), Execute);
    }
    // Pruned through 2 by the highest acked ever sent, not by the latest.
    assert_eq!(t.write(0, s, 6, 2), Execute);
    assert_eq!(t.write(0, s, 7, 1), Execute);

    assert_eq!(t.write(0, 99, 1, 0), Refused(Refusal::SessionExpired));
    assert_eq!(t.write(0, s, 3, 0), Repeat(reply(3)));
    assert_eq!(t.write(0, s, 7, 0), Repeat(reply(7)));
    assert_eq!(t.write(0, s, 2, 0), Refused(Refusal::Stale));
    assert_eq!(t.write(0, s, 1, 0), Refused(Refusal::Stale));
    assert_eq!(t.write(0, s, 9, 0), Refused(Refusal::Gap(7)));
    assert_eq!(t.write(0, s, 8, 8), Refused(Refusal::Malformed));
    assert_eq!(t.write(0, s, 0, 0), Refused(Refusal::Malformed));
    assert_eq!(t.write(0, s, 8, 7), Execute);
    assert_eq!(t.write(0, s, 7, 0), Refused(Refusal::Stale));
    assert_eq!(
        t.write(0, s, u64::MAX, u64::MAX - 1),
        Refused(Refusal::Gap(8))
    );
}

#[test]
fn a_gap_has_no_effect() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    t.write(0, s, 1, 0);
    let before = t.rows.digest();
    assert_eq!(t.write(5_000, s, 3, 1), Refused(Refusal::Gap(1)));
    assert_eq!(t.rows.digest(), before);
    assert_eq!(t.write(0, s, 1, 0), Repeat(reply(1)));
}

#[test]
fn a_judged_write_that_the_machine_refuses_consumes_nothing() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    t.write(0, s, 1, 0);
    let before = t.rows.digest();
    assert_eq!(t.judge(9, s, 2, 1), Execute);
    assert_eq!(t.rows.digest(), before);
    assert_eq!(t.write(9, s, 2, 1), Execute);
}

/// Write 1 is lost, write 2 arrives first: remembering only the highest number would call write
/// 1's re-send a duplicate.
#[test]
fn an_overtaken_write_is_not_taken_for_a_duplicate() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    assert_eq!(t.write(0, s, 2, 0), Refused(Refusal::Gap(0)));
    assert_eq!(t.write(0, s, 1, 0), Execute);
    assert_eq!(t.write(0, s, 2, 0), Execute);
    assert_eq!(t.write(0, s, 1, 0), Repeat(reply(1)));
}

/// A retry that comes after its session is gone must not make the session anew.
#[test]
fn a_late_retry_after_expiry_is_not_executed() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    assert_eq!(t.write(10, s, 1, 0), Execute);
    // Exactly an hour is not longer than an hour.
    t.table
        .expire(&mut t.rows, at(10 + EXPIRY_MS), 100)
        .unwrap();
    assert_eq!(t.sessions(), 1);
    t.table
        .expire(&mut t.rows, at(11 + EXPIRY_MS), 100)
        .unwrap();
    assert_eq!(t.sessions(), 0);
    assert_eq!(t.rows.len(), 1, "only the table's own row is left");
    assert_eq!(
        t.write(12 + EXPIRY_MS, s, 1, 0),
        Refused(Refusal::SessionExpired)
    );
    // Nor does another client get the number.
    assert_eq!(t.open(12 + EXPIRY_MS), Ok(s + 1));
}

#[test]
fn expiry_takes_the_longest_idle_first_and_a_bounded_number() {
    let mut t = Bench::new();
    let ids: Vec<u64> = (0..5).map(|_| t.open(0).unwrap()).collect();
    for (nth, id) in ids.iter().enumerate() {
        t.write(100 - nth as u64, *id, 1, 0);
    }
    let late = at(1000 + EXPIRY_MS);
    t.table.expire(&mut t.rows, late, 2).unwrap();
    assert_eq!(t.sessions(), 3);
    assert_eq!(
        t.write(late.time_ms, ids[4], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(
        t.write(late.time_ms, ids[3], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(t.write(late.time_ms, ids[0], 1, 0), Repeat(reply(1)));
    t.table.expire(&mut t.rows, late, 100).unwrap();
    assert_eq!(
        t.sessions(),
        1,
        "the repeat above showed that its client lives"
    );
}

#[test]
fn the_window_counts_replies() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    for seq in 1..=WINDOW_REPLIES {
        assert_eq!(t.write(0, s, seq, 0), Execute);
    }
    let next = WINDOW_REPLIES + 1;
    assert_eq!(t.write(0, s, next, 0), Refused(Refusal::Window));
    assert_eq!(t.write(0, s, next, 0), Refused(Refusal::Window));
    // The request's own acked makes room.
    assert_eq!(t.write(0, s, next, 1), Execute);
    assert_eq!(t.write(0, s, next + 1, 1), Refused(Refusal::Window));
    assert_eq!(t.write(0, s, next, 1), Repeat(reply(next)));
}

#[test]
fn the_window_counts_bytes() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    let big = Bytes::from(vec![7; MAX_REPLY]);
    let fit = (WINDOW_BYTES / MAX_REPLY) as u64;
    for seq in 1..=fit {
        assert_eq!(t.judge(0, s, seq, 0), Execute);
        t.store(0, s, seq, 0, &big);
    }
    assert_eq!(t.judge(0, s, fit + 1, 0), Refused(Refusal::Window));
    assert_eq!(t.judge(0, s, fit + 1, 1), Execute);
    assert_eq!(t.bytes(), WINDOW_BYTES as u64 - MAX_REPLY as u64);
    assert_eq!(t.judge(0, s, 2, 0), Repeat(big));
}

#[test]
fn pruning_deletes_rows() {
    let mut t = Bench::new();
    let s = t.open(0).unwrap();
    for seq in 1..=100 {
        assert_eq!(t.write(0, s, seq, seq - 1), Execute);
        // The table, the session, one reply.
        assert_eq!(t.rows.len(), 3);
    }
    assert_eq!(t.bytes(), reply(100).len() as u64);
}

#[test]
fn a_full_table_drops_closed_then_longest_idle_then_none() {
    let mut t = Bench::new();
    let ids: Vec<u64> = (0..MAX_SESSIONS as u64)
        .map(|_| t.open(1000).unwrap())
        .collect();
    for id in &ids {
        t.write(1000, *id, 1, 0);
    }
    // Everybody was active less than a minute ago.
    assert_eq!(t.open(1000 + MIN_IDLE_MS - 1), Err(Refusal::Busy));
    assert_eq!(t.sessions(), MAX_SESSIONS);
    // A closed one goes at any age.
    t.table.close(&mut t.rows, ids[7]).unwrap();
    assert!(t.open(1001).is_ok());
    assert_eq!(t.table.dropped(), [ids[7]]);
    assert_eq!(
        t.write(1001, ids[7], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(t.table.dropped(), []);
    assert_eq!(t.open(1001), Err(Refusal::Busy));
    // Then the longest idle, lowest id first among equals.
    t.write(2000, ids[0], 2, 0);
    assert!(t.open(1000 + MIN_IDLE_MS).is_ok());
    assert_eq!(
        t.write(2000, ids[1], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(t.write(2000, ids[0], 2, 0), Repeat(reply(2)));
    // Closed goes before longer idle.
    t.table.close(&mut t.rows, ids[9]).unwrap();
    assert!(t.open(1000 + MIN_IDLE_MS).is_ok());
    assert_eq!(
        t.write(2000, ids[9], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(t.write(2000, ids[2], 1, 0), Repeat(reply(1)));
    assert_eq!(t.sessions(), MAX_SESSIONS);
}

#[test]
fn a_heavy_table_makes_room_or_says_busy() {
    let mut t = Bench::new();
    let big = Bytes::from(vec![7; MAX_REPLY]);
    let each = (WINDOW_BYTES / MAX_REPLY) as u64;
    let idle = t.open(0).unwrap();
    let sessions: Vec<u64> = (0..MAX_TABLE_BYTES / WINDOW_BYTES)
        .map(|_| t.open(0).unwrap())
        .collect();
    for id in &sessions {
        for seq in 1..=each {
            assert_eq!(t.judge(0, *id, seq, 0), Execute);
            t.store(0, *id, seq, 0, &big);
        }
    }
    assert_eq!(t.bytes(), MAX_TABLE_BYTES as u64);
    assert_eq!(t.judge(1, idle, 1, 0), Refused(Refusal::Busy));
    assert_eq!(t.open(1), Err(Refusal::Busy));
    // A minute later one that holds bytes goes, and not the idle ones that hold none.
    assert_eq!(t.judge(MIN_IDLE_MS, idle, 1, 0), Execute);
    assert_eq!(t.sessions(), sessions.len());
    assert_eq!(
        t.judge(MIN_IDLE_MS, sessions[0], 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(t.judge(MIN_IDLE_MS, sessions[1], 1, 0), Repeat(big));
}

#[test]
fn a_table_moves_with_its_replies_and_ages() {
    let mut from = Bench::new();
    let (old, young) = (from.open(0).unwrap(), from.open(0).unwrap());
    from.write(1_000, old, 1, 0);
    from.write(3_000_000, young, 1, 0);
    let (left, arrived) = (3_600_000, 500);
    let mut to = Bench {
        rows: Rows::in_memory(),
        table: Table::new(b"other/"),
    };
    for (key, value) in from.rows.range(b"", b"", usize::MAX, usize::MAX).unwrap() {
        let suffix = &key[b"t/".len()..];
        let value = outgoing(suffix, &value, left).unwrap();
        let value = incoming(suffix, &value, arrived).unwrap();
        to.rows.put(&[b"other/", suffix].concat(), &value).unwrap();
    }
    to.table.clear_cache();
    // The old one was idle for all but a second of an hour, in a group younger than that.
    let expiry = arrived + EXPIRY_MS - (left - 1_000);
    to.table.expire(&mut to.rows, at(expiry), 9).unwrap();
    assert_eq!(to.sessions(), 2);
    to.table.expire(&mut to.rows, at(expiry + 1), 9).unwrap();
    assert_eq!(
        to.write(expiry, old, 1, 0),
        Refused(Refusal::SessionExpired)
    );
    assert_eq!(to.write(expiry, young, 1, 0), Repeat(reply(1)));
    assert_eq!(to.write(expiry, young, 2, 1), Execute);
    assert_eq!(to.open(expiry), Ok(young + 1));
}
