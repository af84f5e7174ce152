//! One seed, one run: the same scenario twice gives the same events at the same simulated times.
#![cfg(madsim)]

use sim_tests::sim::{RaftCluster, RaftOptions, trace, wire};
use std::time::Duration;

/// Events shown before the first that differs.
const BEFORE: usize = 30;

fn seed() -> u64 {
    let seed = std::env::var("MADSIM_TEST_SEED").ok();
    seed.and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// Clients, kills, restarts, cuts, a bad network, stalling disks and snapshots.
async fn busy() {
    let mut options = RaftOptions::small_log(3);
    options.disk.stall = 0.02;
    let cluster = RaftCluster::new(options);
    trace::keep_whole();
    let c = cluster.clone();
    let body = async move {
        c.wait_leader(&c.ids()).await;
        wire::faults(wire::Faults::unreliable());
        for round in 0..60u32 {
            for i in 0..5u8 {
                let c = c.clone();
                let node = 1 + wire::below(3);
                let command = [round.to_be_bytes().as_slice(), &[i; 60]].concat();
                tokio::spawn(async move {
                    let _ = c.propose(node, command, Duration::from_secs(2)).await;
                    let _ = c.read(node, Duration::from_secs(1)).await;
                });
            }
            tokio::time::sleep(wire::pause(Duration::from_millis(600))).await;
            let node = 1 + wire::below(3);
            match wire::below(8) {
                0 if c.is_up(node) => c.kill(node),
                1 => c.isolate(&[node]),
                2 | 3 => c.nodes.heal(),
                _ => c.rejoin(&[node]),
            }
            let down = c.ids().into_iter().find(|n| !c.is_up(*n));
            if let Some(node) = down.filter(|_| wire::chance(0.6)) {
                c.start(node);
            }
        }
    };
    cluster.nodes.run(body).await;
    cluster.nodes.finish().await;
}

fn run(seed: u64) -> (Vec<String>, (u64, u64)) {
    // A thread of its own: what thread-locals a run leaves must not reach the next.
    let run = move || {
        let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, Default::default());
        runtime.block_on(busy());
        (trace::lines(), trace::digest())
    };
    #[expect(clippy::disallowed_methods, reason = "a simulation of its own each")]
    let thread = std::thread::spawn(run);
    thread.join().expect("the scenario holds")
}

#[test]
fn same_seed_same_events() {
    let seed = seed();
    let (first, first_digest) = run(seed);
    let (second, second_digest) = run(seed);
    assert!(first.len() > 1000, "{} events", first.len());
    let differ = (0..first.len().max(second.len())).find(|i| first.get(*i) != second.get(*i));
    if let Some(at) = differ {
        let from = at.saturating_sub(BEFORE);
        println!("seed {seed}: event {at} differs; before it:");
        first[from..at].iter().for_each(|line| println!("  {line}"));
        println!("first run:  {:?}", first.get(at));
        println!("second run: {:?}", second.get(at));
        panic!("seed {seed} does not replay: event {at} of {}", first.len());
    }
    assert_eq!(first_digest, second_digest);
}

#[test]
fn another_seed_other_events() {
    let seed = seed();
    assert_ne!(run(seed).1, run(seed.wrapping_add(1)).1);
}
