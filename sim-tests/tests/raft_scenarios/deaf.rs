//! Nodes that are cut off in one direction, message by message: connections stand.

use crate::common::*;
use sim_tests::sim::{RaftOptions, wire};
use world::net::Kind;
use world::net::inject::{Verdict, set_judge};

/// A leader that everybody hears and that hears nobody steps down (check-quorum, thesis §6.2):
/// else its heartbeats would keep the others from electing one that can commit.
#[madsim::test]
async fn a_leader_that_hears_nobody_does_not_reign_for_ever() {
    scenario(RaftOptions::of(3), |c| async move {
        let deaf = c.wait_leader(&c.ids()).await;
        let others = c.others(&[deaf]);
        set_judge(Some(Box::new(move |passing| {
            match passing.kind == Kind::Mail && passing.to.node == deaf {
                true => Verdict::Drop,
                false => Verdict::Pass,
            }
        })));
        let index = c.agree_among(&others, b"without it", LONG).await;
        c.settle(&others, index).await;
        wire::install();
        heal_and_settle(&c).await;
    })
    .await;
}
