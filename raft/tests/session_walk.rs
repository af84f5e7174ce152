//! A random walk over a session table beside a model that says the rules in other words; and
//! beside a twin whose cache is cleared all the time, as on a replica that restarts.

mod store_common;

use bytes::Bytes;
use raft::At;
use raft::session::{EXPIRY_MS, MAX_SESSIONS, Refusal, Seq, Table, Verdict, WINDOW_REPLIES};
use raft::store::Rows;
use std::collections::BTreeMap;
use store_common::{Dice, seeds};

/// Every reply a session ever made, and what its client acknowledged.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<u64, (Vec<Bytes>, u64, u64)>,
    opened: u64,
}

impl Model {
    fn judge(&self, seq: Seq) -> Verdict {
        use Verdict::{Execute, Refused, Repeat};
        let Some((replies, acked, _)) = self.sessions.get(&seq.session) else {
            return if seq.acked >= seq.seq {
                Refused(Refusal::Malformed)
            } else {
                Refused(Refusal::SessionExpired)
            };
        };
        let last = replies.len() as u64;
        match seq.seq {
            n if seq.acked >= n => Refused(Refusal::Malformed),
            n if n <= *acked => Refused(Refusal::Stale),
            n if n <= last => Repeat(replies[n as usize - 1].clone()),
            n if n > last + 1 => Refused(Refusal::Gap(last)),
            _ if last - seq.acked.max(*acked) >= WINDOW_REPLIES => Refused(Refusal::Window),
            _ => Execute,
        }
    }
}

fn walk(seed: u64) {
    let mut dice = Dice(seed);
    let (mut rows, mut twin_rows) = (Rows::in_memory(), Rows::in_memory());
    let (mut table, mut twin) = (Table::new(b"x"), Table::new(b"x"));
    let mut model = Model::default();
    let mut time_ms = 0;
    let mut executed = 0;
    for step in 0..4000 {
        time_ms += match dice.below(400) {
            0 => EXPIRY_MS / 2 + dice.below(EXPIRY_MS),
            _ => dice.below(200),
        };
        let at = At {
            index: step,
            term: 1,
            time_ms,
        };
        if dice.once_in(3) {
            twin.clear_cache();
        }
        match dice.below(40) {
            0 | 1 if model.sessions.len() < MAX_SESSIONS => {
                model.opened += 1;
                model
                    .sessions
                    .insert(model.opened, (Vec::new(), 0, time_ms));
                assert_eq!(table.open(&mut rows, at).unwrap(), Ok(model.opened));
                assert_eq!(twin.open(&mut twin_rows, at).unwrap(), Ok(model.opened));
            }
            2 => {
                table.expire(&mut rows, at, usize::MAX).unwrap();
                twin.expire(&mut twin_rows, at, usize::MAX).unwrap();
                model
                    .sessions
                    .retain(|_, (_, _, active)| time_ms - *active <= EXPIRY_MS);
            }
            _ => {
                let session = model.opened.saturating_sub(dice.below(4));
                let (last, acked) = match model.sessions.get(&session) {
                    Some((replies, acked, _)) => (replies.len() as u64, *acked),
                    None => (3, 0),
                };
                // Mostly the next write; else around what is known; acked seldom, so that the
                // window fills now and then.
                let number = if dice.once_in(5) {
                    (last + 3).saturating_sub(dice.below(8))
                } else {
                    last + 1
                };
                let acked = if dice.once_in(200) {
                    acked + dice.below(300)
                } else {
                    acked
                };
                let seq = Seq {
                    session,
                    seq: number,
                    acked,
                };
                let expected = model.judge(seq);
                assert_eq!(
                    table.judge(&mut rows, at, seq).unwrap(),
                    expected,
                    "{seq:?}"
                );
                assert_eq!(
                    twin.judge(&mut twin_rows, at, seq).unwrap(),
                    expected,
                    "{seq:?}"
                );
                if expected == Verdict::Execute && !dice.once_in(10) {
                    let reply = Bytes::from(vec![seed as u8; dice.below(50) as usize]);
                    table.store(&mut rows, at, seq, &reply).unwrap();
                    twin.store(&mut twin_rows, at, seq, &reply).unwrap();
                    let (replies, known, active) = model.sessions.get_mut(&session).unwrap();
                    *known = (*known).max(acked.min(replies.len() as u64));
                    replies.push(reply);
                    *active = time_ms;
                    executed += 1;
                } else if matches!(
                    expected,
                    Verdict::Repeat(_) | Verdict::Refused(Refusal::Window)
                ) {
                    let (replies, known, active) = model.sessions.get_mut(&session).unwrap();
                    *known = (*known).max(acked.min(replies.len() as u64));
                    *active = time_ms;
                }
            }
        }
        assert_eq!(rows.digest(), twin_rows.digest(), "seed {seed} step {step}");
        let stored: u64 = model
            .sessions
            .values()
            .flat_map(|(replies, acked, _)| &replies[*acked as usize..])
            .map(|reply| reply.len() as u64)
            .sum();
        assert_eq!(
            table.reply_bytes(&rows).unwrap(),
            stored,
            "seed {seed} step {step}"
        );
    }
    assert!(
        executed > 1000,
        "the walk hardly wrote anything: {executed}"
    );
}

#[test]
fn a_walk_agrees_with_the_model() {
    for seed in seeds(40) {
        walk(seed);
    }
}
