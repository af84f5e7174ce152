//! Histories that are linearizable, and such that are not.

use super::*;

fn op(client: u64, call: Call, called: u64, returned: Option<(u64, Answer)>) -> Operation {
    Operation {
        client,
        call,
        called,
        returned,
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(value: &str, from: u64, to: u64) -> Operation {
    op(
        1,
        Call::Put(bytes(value)),
        from,
        Some((to, Answer::Written)),
    )
}

fn get(value: Option<&str>, from: u64, to: u64) -> Operation {
    op(
        2,
        Call::Get,
        from,
        Some((to, Answer::Value(value.map(bytes)))),
    )
}

fn judge(operations: Vec<Operation>) -> Result<(), Violation> {
    let mut history = History::default();
    for operation in operations {
        history.add(b"k", operation);
    }
    check(&history)
}

#[test]
fn a_read_may_see_either_side_of_an_overlapping_write() {
    assert_eq!(
        judge(vec![put("a", 0, 1), put("b", 2, 9), get(Some("a"), 3, 4)]),
        Ok(())
    );
    assert_eq!(
        judge(vec![put("a", 0, 1), put("b", 2, 9), get(Some("b"), 3, 4)]),
        Ok(())
    );
}

#[test]
fn a_stale_read_is_found() {
    let history = vec![put("a", 0, 1), put("b", 2, 3), get(Some("a"), 4, 5)];
    assert!(matches!(
        judge(history),
        Err(Violation::NotLinearizable { .. })
    ));
}

#[test]
fn two_reads_may_not_go_back_in_time() {
    let history = vec![
        put("a", 0, 1),
        put("b", 2, 9),
        get(Some("b"), 3, 4),
        get(Some("a"), 5, 6),
    ];
    assert!(matches!(
        judge(history),
        Err(Violation::NotLinearizable { .. })
    ));
}

#[test]
fn an_unanswered_write_may_take_effect_late_or_never_but_once() {
    let open = |value: &str| op(3, Call::Append(bytes(value)), 0, None);
    let late = vec![open("x"), get(None, 1, 2), get(Some("x"), 3, 4)];
    assert_eq!(judge(late), Ok(()));
    assert_eq!(judge(vec![open("x"), get(None, 1, 2)]), Ok(()));
    let twice = vec![open("x"), get(Some("xx"), 3, 4)];
    assert!(matches!(
        judge(twice),
        Err(Violation::NotLinearizable { .. })
    ));
    let and_gone = vec![open("x"), get(Some("x"), 1, 2), get(None, 3, 4)];
    assert!(matches!(
        judge(and_gone),
        Err(Violation::NotLinearizable { .. })
    ));
}

#[test]
fn an_unanswered_append_that_shows_only_in_a_length_is_not_dropped() {
    let append = op(
        1,
        Call::Append(bytes("yy")),
        2,
        Some((3, Answer::Length(3))),
    );
    let history = vec![op(3, Call::Append(bytes("x")), 0, None), append];
    assert_eq!(judge(history), Ok(()));
}

#[test]
fn open_appends_that_the_last_read_does_not_show_cost_nothing() {
    let append =
        |token: String, at: u64, returned| op(at, Call::Append(token.into()), at, returned);
    let mut history: Vec<Operation> = (0..60)
        .map(|n| append(format!("<open.{n}>"), n, None))
        .collect();
    // One of them is in the list, at a place that only its length shows at first.
    let open = "<open.7>".len() as u64;
    let tokens = ["<a.1>", "<a.2>", "<a.3>"];
    let mut value = String::new();
    for (n, token) in tokens.into_iter().enumerate() {
        value += token;
        let before = if n >= 1 { open } else { 0 };
        let answer = Answer::Length(value.len() as u64 + before);
        let at = 100 + 10 * n as u64;
        history.push(append(token.into(), at, Some((at + 5, answer))));
    }
    let list = "<a.1><open.7><a.2><a.3>";
    history.push(get(Some(list), 200, 201));
    assert_eq!(judge(history.clone()), Ok(()));
    history.pop();
    history.push(get(Some("<a.1><a.2><open.7><a.3>"), 200, 201));
    assert!(matches!(
        judge(history),
        Err(Violation::NotLinearizable { .. })
    ));
}

#[test]
fn compare_and_set_wins_once() {
    let cas = |client, from, to, won| {
        let call = Call::Cas(None, Some(bytes(&format!("c{client}"))));
        op(client, call, from, Some((to, Answer::Swapped(won))))
    };
    assert_eq!(judge(vec![cas(1, 0, 5, true), cas(2, 0, 5, false)]), Ok(()));
    let both = judge(vec![cas(1, 0, 5, true), cas(2, 0, 5, true)]);
    assert!(matches!(both, Err(Violation::NotLinearizable { .. })));
}

#[test]
fn ten_clients_appending_to_one_key_are_judged() {
    // Client c appends its token during [10 i, 10 i + 15): always two rounds overlap.
    let mut value = String::new();
    let mut history = Vec::new();
    for round in 0..100u64 {
        for client in 0..10u64 {
            let token = format!("{client}.{round};");
            value.push_str(&token);
            let answer = Answer::Length(value.len() as u64);
            let at = 100 * round + client;
            history.push(op(
                client,
                Call::Append(bytes(&token)),
                at,
                Some((at + 60, answer)),
            ));
        }
    }
    history.push(get(Some(&value), 20_000, 20_001));
    assert_eq!(judge(history.clone()), Ok(()));
    history.push(get(Some(&value[..value.len() - 4]), 20_002, 20_003));
    assert!(matches!(
        judge(history),
        Err(Violation::NotLinearizable { .. })
    ));
}
