//! A member before its birth: it takes entries in, and promises nothing.

mod support;

use raft_protocol::*;
use support::Cluster;
use support::solo::*;

fn unborn(terms: &[Term]) -> Solo {
    let mut start = start(3, terms, 1);
    start.born = false;
    Solo::from(start)
}

fn heartbeat(solo: &mut Solo) -> HeartbeatVerdict {
    let out = solo.heartbeat(2, 1, 7);
    match &out.messages[..] {
        [
            Envelope {
                message: Message::HeartbeatReply { verdict, .. },
                ..
            },
        ] => *verdict,
        other => panic!("a heartbeat is answered, not with {other:?}"),
    }
}

#[test]
fn entries_are_taken_in_and_acknowledged_only_after_birth() {
    let mut solo = unborn(&[1]);
    assert!(solo.append(1, (1, 1), 0, &[1, 1]).messages.is_empty());
    assert!(solo.persist().messages.is_empty());
    assert!(solo.append(1, (3, 1), 1, &[]).messages.is_empty());
    assert_eq!(solo.terms(), [1, 1, 1]);
    assert_eq!(solo.status().synced_index, 3);
    let (received, synced) = (3, 0);
    assert_eq!(
        heartbeat(&mut solo),
        HeartbeatVerdict::Matched { received, synced }
    );
    let configuration = support::configuration(3);
    solo.step(Input::Born(configuration));
    let synced = 3;
    assert_eq!(
        heartbeat(&mut solo),
        HeartbeatVerdict::Matched { received, synced }
    );
    let out = solo.append(1, (3, 1), 0, &[]);
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 3 }));
}

/// A leader, a member that is not born yet, and one that is down: nothing is committed until the
/// birth, and everything is after it, without anything being sent again.
#[test]
fn a_group_commits_as_soon_as_the_member_is_born() {
    let mut cluster = Cluster::new(3, support::settings(), 1);
    let mut disk = cluster.node(2).disk.clone();
    disk.born = false;
    cluster.place(2, disk);
    cluster.elect(1);
    let commit = cluster.core(1).status().commit;
    cluster.crash(3);
    for i in 0..20 {
        cluster.propose(1, &format!("entry {i}"));
        cluster.tick(1, 3);
        cluster.settle();
    }
    assert_eq!(cluster.core(1).status().role, Role::Leader);
    assert_eq!(cluster.core(1).status().commit, commit);
    // As many as may be under way are there already.
    assert!(cluster.core(2).status().last_index > commit);
    let configuration = support::configuration(3);
    cluster.step(2, Input::Born(configuration));
    for _ in 0..3 {
        cluster.tick(1, 3);
        cluster.settle();
    }
    assert_eq!(cluster.core(1).status().commit, commit + 20);
}
