//! The client's stream of writes, row by row: what it sends next, and what each answer means.

use bytes::Bytes;
use kv::api::{Op, Outcome};
use kv::client::ClientError;
use kv::client::answer::{Answer, Trouble};
use kv::client::stream::{Attempt, Sending, Step, Stream, WINDOW};
use kv::client::ticket::{Ticket, WriteResult};
use raft::session::{Refusal, WINDOW_REPLIES};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    Gone,
}

/// A caller whose mind the test can read.
#[derive(Clone)]
struct Caller {
    state: Rc<Cell<State>>,
    told: Rc<RefCell<Option<WriteResult>>>,
}

impl Caller {
    fn new() -> Caller {
        Caller {
            state: Rc::new(Cell::new(State::Waiting)),
            told: Rc::default(),
        }
    }
    fn gives_up(&self) {
        self.state.set(State::Gone);
    }
    fn told(&self) -> Option<WriteResult> {
        self.told.borrow().clone()
    }
    fn is_told_unknown(&self) -> bool {
        matches!(self.told(), Some(Err(ClientError::Unknown(_))))
    }
}

impl Ticket for Caller {
    fn start(&self) -> bool {
        if self.state.get() == State::Waiting {
            self.state.set(State::Sent);
        }
        self.state.get() == State::Sent
    }
    fn take_back(&self) {
        if self.state.get() == State::Sent {
            self.state.set(State::Waiting);
        }
    }
    fn wanted(&self) -> bool {
        self.state.get() != State::Gone
    }
    fn finish(self, result: WriteResult) {
        assert!(self.told.borrow().is_none(), "told twice");
        *self.told.borrow_mut() = Some(result);
    }
}

fn put(n: u64) -> Vec<Op> {
    vec![Op::Put {
        key: Bytes::from(format!("k{n}")),
        value: Bytes::from_static(b"v"),
    }]
}

fn written() -> Answer {
    Answer::Written(vec![Outcome::Written { len: 1 }])
}

/// A stream with an open session 7, and `n` writes handed in and sent.
fn sent(n: u64) -> (Stream<Caller>, Vec<Caller>, Vec<Sending>) {
    let mut stream = Stream::default();
    let callers: Vec<Caller> = (1..=n)
        .map(|i| {
            let caller = Caller::new();
            stream.submit(put(i), caller.clone());
            caller
        })
        .collect();
    assert_eq!(stream.step(), Step::Open);
    assert_eq!(stream.step(), Step::Idle, "one Open at a time");
    assert_eq!(stream.opened(stream.epoch(), Answer::Session(7)), None);
    let out = sends(&mut stream);
    assert_eq!(numbers(&out), (1..=n.min(WINDOW)).collect::<Vec<_>>());
    (stream, callers, out)
}

fn sends(stream: &mut Stream<Caller>) -> Vec<Sending> {
    match stream.step() {
        Step::Send(out) => out,
        other => panic!("expected something to send, got {other:?}"),
    }
}

fn numbers(out: &[Sending]) -> Vec<u64> {
    out.iter().map(|s| s.attempt.seq).collect()
}

#[test]
fn a_session_is_opened_only_when_there_is_something_to_write() {
    let mut stream: Stream<Caller> = Stream::default();
    assert_eq!(stream.step(), Step::Idle);
    stream.submit(put(1), Caller::new());
    assert_eq!(stream.step(), Step::Open);
}

#[test]
fn what_follows_each_answer() {
    // (answer, trouble is handed back, the number is sent again, the caller is told,
    //  the write counts as possibly executed)
    let wrong_group = Trouble::WrongGroup {
        config: 3,
        owner: None,
    };
    let rows: Vec<(Answer, bool, bool, &str, bool)> = vec![
        (written(), false, false, "ok", true),
        (
            Answer::Refused(Refusal::SessionExpired),
            false,
            false,
            "unknown",
            true,
        ),
        (
            Answer::Refused(Refusal::Stale),
            false,
            false,
            "unknown",
            true,
        ),
        (Answer::Refused(Refusal::Gap(0)), false, true, "", false),
        (Answer::Refused(Refusal::Window), true, true, "", false),
        (Answer::Refused(Refusal::Busy), true, true, "", false),
        (Answer::Invalid("no".into()), false, true, "invalid", true),
        (Answer::Full("no room".into()), false, true, "", true),
        (Answer::Trouble(wrong_group), true, true, "", false),
        (
            Answer::Trouble(Trouble::NotLeader(None)),
            true,
            true,
            "",
            false,
        ),
        (
            Answer::Trouble(Trouble::NotLeader(Some((2, "b:1".into())))),
            true,
            true,
            "",
            false,
        ),
        (
            Answer::Trouble(Trouble::Busy("full")),
            true,
            true,
            "",
            false,
        ),
        (
            Answer::Trouble(Trouble::Unreachable("x".into())),
            true,
            true,
            "",
            false,
        ),
        (Answer::Trouble(Trouble::Unknown), true, true, "", true),
        (
            Answer::Trouble(Trouble::Silent("x".into())),
            true,
            true,
            "",
            true,
        ),
        (
            Answer::Trouble(Trouble::Unreadable("x".into())),
            true,
            true,
            "",
            true,
        ),
        (Answer::Value(None), true, true, "", true),
    ];
    for (answer, trouble, again, told, maybe) in rows {
        let (mut stream, callers, out) = sent(1);
        let handed_back = stream.answer(out[0].attempt, answer.clone());
        assert_eq!(handed_back.is_some(), trouble, "{answer:?}");
        let is = match callers[0].told() {
            None => "",
            Some(Ok(_)) => "ok",
            Some(Err(ClientError::Unknown(_))) => "unknown",
            Some(Err(ClientError::Invalid(_))) => "invalid",
            Some(Err(ClientError::Full(_))) => "full",
            Some(Err(ClientError::Unavailable(_))) => "unavailable",
        };
        assert_eq!(is, told, "{answer:?}");
        assert_eq!(callers[0].state.get() == State::Sent, maybe, "{answer:?}");
        if trouble {
            assert_eq!(stream.step(), Step::Idle, "halted: {answer:?}");
            stream.resume();
        }
        // Another caller comes, so that the stream has a reason to go on.
        stream.submit(put(2), Caller::new());
        let expired = answer == Answer::Refused(Refusal::SessionExpired);
        if expired {
            assert_eq!(stream.step(), Step::Open);
            continue;
        }
        let expected = if again { vec![1, 2] } else { vec![2] };
        assert_eq!(numbers(&sends(&mut stream)), expected, "{answer:?}");
    }
}

#[test]
fn acked_is_the_highest_number_below_which_all_are_answered() {
    let (mut stream, _callers, out) = sent(3);
    for (answered, acked) in [(2, 0), (1, 2), (3, 3)] {
        stream.answer(out[answered - 1].attempt, written());
        stream.submit(put(9), Caller::new());
        let next = sends(&mut stream);
        assert_eq!(next[0].acked, acked, "after the answer to {answered}");
    }
}

#[test]
fn at_most_a_window_is_unanswered() {
    let (mut stream, _callers, out) = sent(WINDOW + 10);
    assert_eq!(stream.step(), Step::Idle);
    // The server refuses what it could not keep a reply for.
    assert!(out.len() as u64 <= WINDOW_REPLIES);
    // An answer in the middle makes no room: its number is still above acked.
    stream.answer(out[5].attempt, written());
    assert_eq!(stream.step(), Step::Idle);
    stream.answer(out[0].attempt, written());
    let next = sends(&mut stream);
    assert_eq!(numbers(&next), [WINDOW + 1]);
    assert_eq!(next[0].acked, 1);
}

#[test]
fn large_writes_are_bounded_by_bytes() {
    let mut stream = Stream::default();
    for _ in 0..4 {
        let value = Bytes::from(vec![0; 7 << 20]);
        stream.submit(
            vec![Op::Put {
                key: Bytes::from_static(b"k"),
                value,
            }],
            Caller::new(),
        );
    }
    assert_eq!(stream.step(), Step::Open);
    stream.opened(1, Answer::Session(7));
    let out = sends(&mut stream);
    assert_eq!(numbers(&out), [1, 2], "16 MiB hold two of 7 MiB");
    stream.answer(out[0].attempt, written());
    assert_eq!(numbers(&sends(&mut stream)), [3]);
}

#[test]
fn after_trouble_everything_unanswered_is_sent_again_in_order_with_the_newest_acked() {
    let (mut stream, callers, out) = sent(4);
    stream.answer(out[0].attempt, written());
    stream.answer(out[2].attempt, written());
    assert!(
        stream
            .answer(out[1].attempt, Answer::Trouble(Trouble::Unknown))
            .is_some()
    );
    stream.resume();
    let again = sends(&mut stream);
    assert_eq!(numbers(&again), [2, 4]);
    assert!(again.iter().all(|s| s.acked == 1));
    assert_eq!(
        again[0].ops, out[1].ops,
        "the same write under the same number"
    );
    // An older attempt's refusal means nothing now; its success settles the number.
    assert_eq!(
        stream.answer(out[3].attempt, Answer::Refused(Refusal::Gap(1))),
        None
    );
    assert_eq!(stream.step(), Step::Idle);
    assert_eq!(stream.answer(out[1].attempt, written()), None);
    assert!(callers[1].told().is_some_and(|r| r.is_ok()));
    // The second answer to the same number is dropped.
    assert_eq!(stream.answer(again[0].attempt, written()), None);
    stream.answer(again[1].attempt, written());
    assert!(callers.iter().all(|c| matches!(c.told(), Some(Ok(_)))));
}

#[test]
fn gaps_are_repaired_at_once_but_not_for_ever() {
    let (mut stream, _callers, mut out) = sent(2);
    for _ in 0..3 {
        let second = out
            .iter()
            .find(|s| s.attempt.seq == 2)
            .expect("2 is under way")
            .attempt;
        assert_eq!(
            stream.answer(second, Answer::Refused(Refusal::Gap(0))),
            None
        );
        out = sends(&mut stream);
        assert_eq!(numbers(&out), [1, 2]);
    }
    assert!(
        stream
            .answer(out[1].attempt, Answer::Refused(Refusal::Gap(0)))
            .is_some()
    );
    assert_eq!(stream.step(), Step::Idle, "pauses");
    stream.resume();
    let out = sends(&mut stream);
    assert_eq!(numbers(&out), [1, 2]);
    // Progress forgives.
    stream.answer(out[0].attempt, written());
    assert_eq!(
        stream.answer(out[1].attempt, Answer::Refused(Refusal::Gap(1))),
        None
    );
    assert_eq!(numbers(&sends(&mut stream)), [2]);
}

#[test]
fn expiry_reports_what_was_sent_as_unknown_and_moves_only_what_was_not() {
    let (mut stream, callers, out) = sent(3);
    // 3 was never sent: its link was down. 1 and 2 were.
    stream.answer(
        out[2].attempt,
        Answer::Trouble(Trouble::Unreachable("down".into())),
    );
    stream.resume();
    assert_eq!(
        stream.answer(out[0].attempt, Answer::Refused(Refusal::SessionExpired)),
        None
    );
    assert!(callers[0].is_told_unknown() && callers[1].is_told_unknown());
    assert_eq!(callers[2].told(), None);
    assert_eq!(stream.step(), Step::Open);
    stream.opened(stream.epoch(), Answer::Session(8));
    let next = sends(&mut stream);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].ops, out[2].ops);
    let Attempt { session, seq, .. } = next[0].attempt;
    assert_eq!((session, seq, next[0].acked), (8, 1, 0));
    // Answers of the old session are not taken for answers of the new one.
    assert_eq!(stream.answer(out[0].attempt, written()), None);
    assert_eq!(callers[2].told(), None);
}

#[test]
fn a_caller_that_gave_up_before_its_write_left() {
    // Before it had a number: it never gets one.
    let (mut stream, _callers, _out) = sent(1);
    let (gone, stays) = (Caller::new(), Caller::new());
    stream.submit(put(2), gone.clone());
    stream.submit(put(3), stays.clone());
    gone.gives_up();
    let out = sends(&mut stream);
    assert_eq!((numbers(&out), &*out[0].ops), (vec![2], &put(3)));

    // After it had one, but before anything left: the number is used by a write that does
    // nothing, so that the later ones are not stuck behind a hole.
    let (mut stream, callers, out) = sent(2);
    for sending in &out {
        stream.answer(
            sending.attempt,
            Answer::Trouble(Trouble::Unreachable("down".into())),
        );
    }
    callers[0].gives_up();
    stream.resume();
    let again = sends(&mut stream);
    assert_eq!(numbers(&again), [1, 2]);
    assert!(again[0].ops.is_empty(), "a filler");
    assert_eq!(*again[1].ops, put(2));
    stream.answer(again[0].attempt, Answer::Written(vec![]));
    stream.answer(again[1].attempt, written());
    assert_eq!(callers[0].told(), None);
    assert!(callers[1].told().is_some_and(|r| r.is_ok()));
}

#[test]
fn a_caller_that_gave_up_after_its_write_left_stalls_nobody() {
    let (mut stream, callers, out) = sent(2);
    callers[0].gives_up();
    stream.answer(
        out[0].attempt,
        Answer::Trouble(Trouble::Silent("lost".into())),
    );
    stream.resume();
    let again = sends(&mut stream);
    assert_eq!(numbers(&again), [1, 2]);
    assert_eq!(
        again[0].ops, out[0].ops,
        "it may have been executed: no other write may be 1"
    );
}

#[test]
fn while_nobody_waits_nothing_is_tried_and_the_next_write_takes_the_rest_along() {
    let (mut stream, callers, out) = sent(1);
    stream.answer(
        out[0].attempt,
        Answer::Trouble(Trouble::Silent("lost".into())),
    );
    callers[0].gives_up();
    stream.resume();
    assert_eq!(stream.step(), Step::Idle);
    assert!(stream.at_rest());
    stream.submit(put(2), Caller::new());
    assert_eq!(numbers(&sends(&mut stream)), [1, 2]);
}

#[test]
fn an_invalid_write_does_not_stop_those_behind_it() {
    let (mut stream, callers, out) = sent(2);
    stream.answer(out[0].attempt, Answer::Invalid("too large".into()));
    assert_eq!(
        callers[0].told(),
        Some(Err(ClientError::Invalid("too large".into())))
    );
    let again = sends(&mut stream);
    assert_eq!(numbers(&again), [1, 2]);
    assert!(again[0].ops.is_empty());
    // A server that refuses even that ends the session; nothing is sent twice.
    stream.answer(again[0].attempt, Answer::Invalid("empty".into()));
    assert!(callers[1].is_told_unknown());
}

/// A full disk says nothing of another copy of the write: one may have been executed before, or may be
/// yet. A write without operations uses its number, and what is answered to that is what was executed.
#[test]
fn a_write_is_given_up_for_a_full_disk_when_its_number_was_used_by_one_that_does_nothing() {
    let full = || Answer::Full("no room".into());
    let nothing = || Answer::Written(Vec::new());
    let given_up = Some(Err(ClientError::Full("no room".into())));
    let done = Some(Ok(vec![Outcome::Written { len: 1 }]));
    for (answer, told) in [(nothing(), &given_up), (written(), &done)] {
        let (mut stream, callers, out) = sent(1);
        assert_eq!(stream.answer(out[0].attempt, full()), None);
        assert_eq!(callers[0].told(), None, "another copy may be executed yet");
        let again = sends(&mut stream);
        assert_eq!(numbers(&again), [1]);
        assert!(again[0].ops.is_empty());
        stream.answer(again[0].attempt, answer);
        assert_eq!(&callers[0].told(), told);
    }

    // The same after an attempt without an answer, and with one still on its way; the one behind it
    // would meet the same disk.
    let (mut stream, callers, out) = sent(2);
    let silent = Answer::Trouble(Trouble::Silent("lost".into()));
    assert!(stream.answer(out[0].attempt, silent).is_some());
    stream.resume();
    let again = sends(&mut stream);
    assert_eq!(numbers(&again), [1, 2]);
    assert_eq!(stream.answer(again[0].attempt, full()), None);
    let third = sends(&mut stream);
    assert_eq!(stream.answer(again[1].attempt, full()), None, "old news");
    assert_eq!(stream.step(), Step::Idle);
    assert_eq!(numbers(&third), [1, 2]);
    assert!(third.iter().all(|sending| sending.ops.is_empty()));
    stream.answer(out[1].attempt, written());
    assert_eq!(callers[1].told(), done, "a late answer tells as much");
    stream.answer(third[0].attempt, nothing());
    assert_eq!(callers[0].told(), given_up);

    // What stores nothing is no matter of the disk.
    let (mut stream, callers, out) = sent(1);
    let delete = vec![Op::Delete { key: "k".into() }];
    let deleter = Caller::new();
    stream.submit(delete, deleter.clone());
    sends(&mut stream);
    stream.answer(out[0].attempt, full());
    let again = sends(&mut stream);
    let stored: Vec<usize> = again.iter().map(|sending| sending.ops.len()).collect();
    assert_eq!(stored, [0, 1]);
    for sending in &again {
        stream.answer(sending.attempt, nothing());
    }
    assert_eq!(callers[0].told(), given_up);
    assert_eq!(deleter.told(), Some(Ok(Vec::new())));

    // A session that ends before leaves the outcome unknown.
    let (mut stream, callers, out) = sent(1);
    stream.answer(out[0].attempt, full());
    let again = sends(&mut stream);
    let expired = Answer::Refused(Refusal::SessionExpired);
    stream.answer(again[0].attempt, expired);
    assert!(callers[0].is_told_unknown());
}

#[test]
fn a_lost_open_is_asked_again_and_a_late_answer_is_used() {
    let mut stream = Stream::default();
    stream.submit(put(1), Caller::new());
    assert_eq!(stream.step(), Step::Open);
    let first = stream.epoch();
    let trouble = Answer::Trouble(Trouble::Silent("lost".into()));
    assert!(stream.opened(first, trouble.clone()).is_some());
    assert_eq!(stream.step(), Step::Idle);
    stream.resume();
    assert_eq!(stream.step(), Step::Open);
    assert_eq!(
        stream.opened(first, trouble),
        None,
        "an older attempt's trouble is old news"
    );
    assert_eq!(stream.opened(first, Answer::Session(3)), None);
    assert_eq!(sends(&mut stream)[0].attempt.session, 3);
    assert_eq!(stream.opened(first + 1, Answer::Session(4)), None);
    assert_eq!(stream.session(), Some(3));
}

/// An answer to an attempt, and whether the attempt has certainly had no effect then.
const ANSWERS: [(fn() -> Answer, bool); 3] = [
    (|| Answer::Refused(Refusal::Gap(1)), true),
    (
        || Answer::Trouble(Trouble::Unreachable("down".into())),
        true,
    ),
    (|| Answer::Trouble(Trouble::Silent("lost".into())), false),
];

/// What may happen next to two writes: an attempt that is in flight is answered (its place among those,
/// which answer), or the stream goes on. What is answered to one has the other sent again while its
/// earlier attempt is in flight.
#[derive(Clone, Copy, Debug)]
enum Event {
    Answered(usize, usize),
    GoesOn,
}

/// Law 8: a caller that gives up is told "no effect" only when that is certain. Whatever is answered
/// in whatever order, a write counts as not sent exactly while every attempt of it that left is known
/// to have had no effect.
#[test]
fn a_write_is_taken_back_only_when_no_attempt_of_it_may_have_an_effect() {
    const LONGEST: usize = 6;
    let mut pending: Vec<Vec<Event>> = vec![Vec::new()];
    let (mut histories, mut taken_back, mut kept, mut doubled) = (0, 0, 0, 0);
    while let Some(history) = pending.pop() {
        let (mut stream, callers, mut flying) = sent(2);
        let mut perhaps = [false; 2];
        for event in &history {
            match *event {
                Event::Answered(which, answer) => {
                    let attempt = flying.remove(which).attempt;
                    let (answer, harmless) = ANSWERS[answer];
                    stream.answer(attempt, answer());
                    perhaps[attempt.seq as usize - 1] |= !harmless;
                }
                Event::GoesOn => {
                    stream.resume();
                    if let Step::Send(out) = stream.step() {
                        flying.extend(out);
                    }
                }
            }
        }
        for (seq, caller) in (1..).zip(&callers) {
            let in_flight = flying.iter().filter(|s| s.attempt.seq == seq).count();
            let certain = !perhaps[seq as usize - 1] && in_flight == 0;
            let expected = if certain { State::Waiting } else { State::Sent };
            assert_eq!(
                caller.state.get(),
                expected,
                "write {seq} after {history:?}"
            );
            match certain {
                true => taken_back += 1,
                false => kept += 1,
            }
            doubled += usize::from(in_flight > 1);
        }
        histories += 1;
        if history.len() == LONGEST {
            continue;
        }
        let attempts = 0..flying.len();
        let answered = attempts
            .flat_map(|which| (0..ANSWERS.len()).map(move |answer| Event::Answered(which, answer)));
        for event in answered.chain([Event::GoesOn]) {
            pending.push([&history[..], &[event]].concat());
        }
    }
    let counts = (histories, taken_back, kept, doubled);
    assert!(
        histories > 10_000 && taken_back > 1000 && kept > 10_000 && doubled > 1000,
        "{counts:?}"
    );
}
