//! The client against servers that follow a script: lost answers, gaps, expired sessions, shards
//! that moved, leaders that changed, callers that went away. In both worlds.

mod routes;
mod servers;

use bytes::Bytes;
use kv::api::{Op, Response};
use kv::client::ClientError;
use raft::session::Refusal;
use servers::{Twist, start};
use std::time::Duration;
use world::testing::block_on_test;

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn writes_and_reads_go_through() {
    block_on_test(async {
        let world = start(LONG).await;
        assert_eq!(world.client.get(b"a").await, Ok(None));
        assert_eq!(world.client.put(b"a", b"1").await, Ok(()));
        assert_eq!(world.client.append(b"a", b"2").await, Ok(2));
        assert_eq!(
            world.client.get(b"a").await,
            Ok(Some(Bytes::from_static(b"12")))
        );
        assert_eq!(world.group(1).opened, 1, "one session");
    });
}

#[test]
fn whatever_happens_to_an_append_it_is_there_once() {
    block_on_test(async {
        let unknown = Twist::ExecuteBut(Response::Unknown);
        let not_leader = Twist::Answer(Response::NotLeader(None));
        let moved = Response::WrongGroup {
            config: 1,
            owner: None,
        };
        for twists in [
            vec![Twist::LoseAnswer],
            vec![Twist::LoseRequest],
            vec![unknown.clone()],
            vec![Twist::Answer(Response::Unknown)],
            vec![Twist::Answer(Response::Busy)],
            vec![not_leader],
            vec![Twist::Answer(Response::Refused(Refusal::Window))],
            vec![Twist::Answer(Response::Refused(Refusal::Gap(0)))],
            vec![Twist::Answer(moved)],
            vec![Twist::Answer(Response::Malformed("?".into()))],
            vec![unknown, Twist::LoseAnswer, Twist::Answer(Response::Busy)],
        ] {
            let world = start(LONG).await;
            world
                .client
                .put(b"other", b"")
                .await
                .expect("a session is open");
            world.twist(twists.clone());
            assert_eq!(world.client.append(b"a", b"x").await, Ok(1), "{twists:?}");
            assert_eq!(world.client.append(b"a", b"y").await, Ok(2), "{twists:?}");
            assert_eq!(world.row("a"), "xy", "{twists:?}");
            assert_eq!(world.group(1).opened, 1, "the same session: {twists:?}");
        }
    });
}

#[test]
fn many_callers_share_one_stream_and_lose_nothing() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"other", b"")
            .await
            .expect("a session is open");
        let busy = (0..50).map(|i| match i % 5 {
            0 => Twist::Answer(Response::Busy),
            1 => Twist::ExecuteBut(Response::Unknown),
            _ => Twist::After(MS * 3),
        });
        world.twist(busy);
        let callers: Vec<_> = (0..200u32)
            .map(|i| {
                let client = world.client.clone();
                tokio::spawn(async move { client.append(b"a", format!("{i},").as_bytes()).await })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.expect("no panic").is_ok());
        }
        let row = world.row("a");
        let mut found: Vec<u32> = row
            .trim_end_matches(',')
            .split(',')
            .map(|n| n.parse().expect("a number"))
            .collect();
        found.sort_unstable();
        assert_eq!(found, (0..200).collect::<Vec<_>>());
        let state = world.group(1);
        assert!(state.seen.iter().all(|seq| seq.seq - seq.acked <= 256));
        assert!(
            state.seen.iter().any(|seq| seq.seq - seq.acked > 10),
            "nothing was pipelined"
        );
    });
}

#[test]
fn an_expired_session_makes_what_was_sent_unknown_and_the_next_write_opens_another() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"a", b"1")
            .await
            .expect("a session is open");
        world.group(1).sessions.clear();
        let result = world.client.append(b"a", b"x").await;
        assert!(matches!(result, Err(ClientError::Unknown(_))), "{result:?}");
        assert_eq!(world.row("a"), "1", "not sent again under another session");
        assert_eq!(world.client.append(b"a", b"y").await, Ok(2));
        assert_eq!(world.group(1).opened, 2);
    });
}

#[test]
fn a_shard_that_moved_is_followed_with_its_session() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"a", b"1")
            .await
            .expect("a session is open");
        // Executed by group 1, unanswered; then the shard, its rows and its sessions move.
        world.twist([Twist::ExecuteBut(Response::Unknown)]);
        {
            let (mut old, mut new) = (world.group(1), world.group(2));
            new.sessions.clone_from(&old.sessions);
            new.rows.clone_from(&old.rows);
            new.opened = old.opened;
            // The controllers do not know yet: the refusal alone says where it is.
            old.gone = Some(Response::WrongGroup {
                config: 1,
                owner: Some(2),
            });
        }
        assert_eq!(world.client.append(b"a", b"2").await, Ok(2));
        assert_eq!(
            world.client.get(b"a").await,
            Ok(Some(Bytes::from_static(b"12")))
        );
        // And back, by a newer configuration.
        {
            let (mut old, mut new) = (world.group(1), world.group(2));
            old.sessions.clone_from(&new.sessions);
            old.rows.clone_from(&new.rows);
            old.gone = None;
            old.twists.clear();
            new.gone = Some(Response::WrongGroup {
                config: 3,
                owner: None,
            });
            let mut config = world.config.lock().expect("no panic holds it");
            config.num = 3;
        }
        assert_eq!(world.client.append(b"a", b"3").await, Ok(3));
        assert_eq!(world.group(1).opened, 1, "one session all the time");
    });
}

#[test]
fn a_changed_leader_is_found_by_hint_and_without() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"a", b"1")
            .await
            .expect("a session is open");
        world.group(1).leader = 2;
        assert_eq!(world.client.append(b"a", b"2").await, Ok(2));
        world.group(1).leader = 1;
        assert_eq!(
            world.client.get(b"a").await,
            Ok(Some(Bytes::from_static(b"12")))
        );
        assert_eq!(world.client.append(b"a", b"3").await, Ok(3));
    });
}

/// Session ids count from 1 in every cluster: a write that reached another one would be taken for
/// somebody else's.
#[test]
fn a_server_of_another_cluster_is_sent_nothing() {
    block_on_test(async {
        let world = start(MS * 300).await;
        world.group(1).cluster = servers::CLUSTER + 1;
        let put = world.client.put(b"a", b"1").await;
        let Err(ClientError::Unavailable(why)) = &put else {
            panic!("{put:?}");
        };
        assert!(why.contains("it belongs to cluster"), "{why}");
        assert_eq!(world.group(1).opened, 0, "no session was asked for");
    });
}

#[test]
fn when_time_is_over_the_caller_learns_whether_it_can_have_happened() {
    block_on_test(async {
        let mut tries = 0;
        let world = loop {
            let world = start(MS * 300).await;
            world
                .client
                .put(b"a", b"1")
                .await
                .expect("a session is open");
            // Refused each time: certainly no effect.
            world.group(1).gone = Some(Response::Busy);
            match world.client.append(b"a", b"2").await {
                Err(ClientError::Unavailable(_)) => break world,
                // The time was over just between an attempt and its refusal.
                Err(ClientError::Unknown(_)) => tries += 1,
                other => panic!("{other:?}"),
            }
            assert!(tries < 5, "the refusals never counted");
        };
        let read = world.client.get(b"a").await;
        assert!(matches!(read, Err(ClientError::Unavailable(_))), "{read:?}");
        // Sent and never answered. (The number of the refused one is used up first.)
        world.group(1).gone = None;
        assert_eq!(world.client.append(b"a", b"").await, Ok(1));
        world.twist([Twist::LoseAnswer]);
        let lost = world.client.append(b"a", b"3").await;
        assert!(matches!(lost, Err(ClientError::Unknown(_))), "{lost:?}");
        // The stream goes on, and neither is executed again.
        let mut last = world.client.append(b"a", b"4").await;
        for _ in 0..20 {
            if last.is_ok() {
                break;
            }
            last = world.client.append(b"a", b"").await;
        }
        assert!(last.is_ok(), "{last:?}");
        assert!(
            ["13", "134"].contains(&world.row("a").as_str()),
            "{}",
            world.row("a")
        );
    });
}

#[test]
fn a_dropped_call_stalls_nobody() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"a", b"1")
            .await
            .expect("a session is open");
        world.twist([Twist::After(MS * 50), Twist::LoseRequest]);
        for _ in 0..2 {
            let call = world.client.append(b"a", b"x");
            assert!(tokio::time::timeout(MS * 10, call).await.is_err());
        }
        let len = world
            .client
            .append(b"a", b"2")
            .await
            .expect("the stream goes on");
        assert_eq!(len, world.row("a").len() as u64);
        assert!(world.row("a").len() <= 4, "{}", world.row("a"));
        assert!(world.row("a").ends_with('2'));
    });
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    block_on_test(async {
        let world = start(LONG).await;
        let large = vec![0; kv::api::MAX_VALUE + 1];
        let refused = world.client.put(b"a", &large).await;
        assert!(
            matches!(refused, Err(ClientError::Invalid(_))),
            "{refused:?}"
        );
        let refused = world.client.get(&large[..kv::api::MAX_KEY + 1]).await;
        assert!(
            matches!(refused, Err(ClientError::Invalid(_))),
            "{refused:?}"
        );
        let many = vec![Op::Delete { key: Bytes::new() }; kv::api::MAX_BATCH + 1];
        let refused = world.client.batch(many).await;
        assert!(
            matches!(refused, Err(ClientError::Invalid(_))),
            "{refused:?}"
        );
        assert_eq!(world.group(1).opened, 0);
        world
            .client
            .put(b"a", &large[1..])
            .await
            .expect("exactly the limit");
        assert_eq!(world.row("a").len(), kv::api::MAX_VALUE);
    });
}

#[test]
fn a_closed_client_leaves_no_session_behind() {
    block_on_test(async {
        let world = start(LONG).await;
        world
            .client
            .put(b"a", b"1")
            .await
            .expect("a session is open");
        world.client.close(LONG).await;
        assert!(world.group(1).sessions.is_empty());
        assert_eq!(
            world.client.append(b"a", b"2").await,
            Ok(2),
            "it can go on with a new one"
        );
    });
}
