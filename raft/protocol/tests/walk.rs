//! A random walk over several cores: messages dropped, duplicated, reordered, delayed; crashes
//! between write, sync and report; compaction, snapshots, reads, damage, lost states. Safety is
//! checked at every step; then everything heals and the cluster has to make progress.
//!
//! `RAFT_WALK_SEEDS=10000 cargo test -p raft-protocol --test walk` walks further,
//! `RAFT_WALK_SEED=17` walks one seed and prints its transcript.

#![allow(clippy::disallowed_methods)] // a test of real files and real time, outside the simulation

mod support;

use raft_protocol::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::{Cluster, Parcel, settings};

struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }
}

/// What a seed draws for its whole walk.
#[derive(Debug)]
struct Rates {
    nodes: u64,
    drop: u64,
    duplicate: u64,
    in_order: u64,
    crash: u64,
    damage: u64,
    compact: u64,
    evict: u64,
    cut: u64,
    persist: u64,
    storm: u64,
    append_bytes: u64,
}

impl Rates {
    fn draw(dice: &mut Dice) -> Rates {
        let mut of = |values: &[u64]| values[dice.below(values.len())];
        Rates {
            nodes: of(&[3, 3, 3, 5, 2, 4]),
            drop: of(&[0, 2, 10, 30]),
            duplicate: of(&[0, 5, 20]),
            in_order: of(&[0, 50, 95]),
            crash: of(&[0, 2, 8]),
            damage: of(&[0, 0, 50]),
            compact: of(&[0, 5, 20]),
            evict: of(&[0, 20, 80]),
            cut: of(&[0, 1, 4]),
            persist: of(&[10, 40, 80]),
            storm: of(&[0, 10, 30, 60]),
            append_bytes: of(&[1, 100, 400]),
        }
    }
}

struct Walk {
    cluster: Cluster,
    dice: Dice,
    rates: Rates,
    /// Nodes nobody hears and who hear nobody.
    cut: Vec<NodeId>,
    reads: u64,
}

impl Walk {
    fn new(seed: u64, explain: bool) -> Walk {
        let mut dice = Dice(seed);
        let rates = Rates::draw(&mut dice);
        let max_append_bytes = rates.append_bytes as usize;
        let settings = Settings {
            explain,
            max_append_bytes,
            ..settings()
        };
        let mut cluster = Cluster::new(rates.nodes, settings, seed);
        cluster.note(format!("# seed {seed}: {rates:?}"));
        Walk {
            cluster,
            dice,
            rates,
            cut: Vec::new(),
            reads: 0,
        }
    }

    fn any(&mut self, of: &[NodeId]) -> Option<NodeId> {
        (!of.is_empty()).then(|| of[self.dice.below(of.len())])
    }

    fn step(&mut self) {
        let up = self.cluster.up();
        let Some(id) = self.any(&up) else {
            return self.restart();
        };
        match self.dice.below(100) {
            0..45 => self.mail(),
            45..60 => {
                self.cluster.note(format!("> tick {id}"));
                self.cluster.tick(id, 1);
            }
            60..75 => self.disk(id),
            75..82 => self.propose(id),
            82..87 => self.read(id),
            87..89 => self.compact(id),
            89 if self.dice.chance(self.rates.evict) => {
                // All or a part of what is applied leaves the memory.
                let most = self.cluster.core(id).facts().applied;
                let index = most.saturating_sub(self.dice.below(6) as Index);
                self.cluster.note(format!("> evict {id} {index}"));
                self.cluster.step(id, Input::Evict(index));
            }
            89..92 if self.dice.chance(self.rates.storm) => self.storm(up),
            89..92 => {}
            92..95 => self.restart(),
            95..98 if self.dice.chance(self.rates.crash * 5) => {
                // Chains of leaders that crash early are what figure 8 is made of.
                let leader = self.cluster.leader().filter(|_| self.dice.chance(60));
                self.crash(leader.unwrap_or(id));
            }
            98 if self.dice.chance(self.rates.cut * 20) => {
                let all: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
                self.cut = self.any(&all).into_iter().collect();
                self.cluster.note(format!("> cut {:?}", self.cut));
            }
            99 => self.cut.clear(),
            _ => {}
        }
    }

    /// A while passes in which nothing is delivered: leases and leaderships run out.
    fn storm(&mut self, up: Vec<NodeId>) {
        for id in up {
            let ticks = self.dice.below(25) as u32;
            self.cluster.note(format!("> tick {id} {ticks}"));
            self.cluster.tick(id, ticks);
        }
    }

    fn mail(&mut self) {
        let count = self.cluster.mail.len();
        if count == 0 {
            return;
        }
        let at = if self.dice.chance(self.rates.in_order) {
            0
        } else {
            self.dice.below(count)
        };
        let duplicate = self.dice.chance(self.rates.duplicate) && count < 500;
        let dropped = self.dice.chance(self.rates.drop);
        let mail = if duplicate {
            self.cluster.mail[at].clone()
        } else {
            self.cluster.mail.remove(at)
        };
        let cut = self.cut.contains(&mail.from) || self.cut.contains(&mail.to);
        if let Parcel::Message(m) = &mail.parcel {
            let verb = if dropped || cut { "drop" } else { "deliver" };
            let line = format!(
                "> {verb} {}->{}: {}",
                mail.from,
                mail.to,
                support::show::message(m)
            );
            self.cluster.note(line);
            if dropped || cut {
                return;
            }
        } else {
            self.cluster.note(format!(
                "> deliver {}->{}: {:?}",
                mail.from, mail.to, mail.parcel
            ));
        }
        self.cluster.deliver(mail);
    }

    fn disk(&mut self, id: NodeId) {
        if !self.dice.chance(self.rates.persist) {
            return;
        }
        let count = 1 + self.dice.below(4);
        self.cluster.note(format!("> write {id} {count}"));
        self.cluster.write(id, count);
        if self.dice.chance(70) {
            self.cluster.note(format!("> report {id}"));
            self.cluster.report(id);
        }
    }

    fn propose(&mut self, id: NodeId) {
        let id = if self.dice.chance(80) {
            self.cluster.leader().unwrap_or(id)
        } else {
            id
        };
        let count = 1 + self.dice.below(3);
        let text = |n: usize| Payload::from("x".repeat(n * 40));
        let payloads: Vec<Payload> = (0..count).map(text).collect();
        self.cluster.note(format!("> propose {id} {count}"));
        self.cluster.step(id, Input::Propose(payloads));
    }

    fn read(&mut self, id: NodeId) {
        // Small numbers, so that they come again in later lives of a node.
        self.reads += 1;
        let life = self.cluster.node(id).lives;
        let read = self.reads - 1000 * (self.reads / 1000).min(life);
        self.cluster.note(format!("> read {id} {read}"));
        self.cluster.checker.read_asked(id, read);
        self.cluster.step(id, Input::Read(read));
    }

    fn compact(&mut self, id: NodeId) {
        if !self.dice.chance(self.rates.compact * 4) {
            return;
        }
        let node = self.cluster.nodes.get_mut(&id).expect("node exists");
        let core = node.core.as_ref().expect("node is up");
        // The stamp and the log's base move together here, and not past what is on disk.
        if core.base().index != node.disk.base.index || node.disk.state_lost {
            return;
        }
        let index = node.flush();
        if index <= node.disk.base.index || node.disk.term(index).is_none() {
            return;
        }
        let term = node.disk.term(index).expect("checked");
        let dropped = (index - node.disk.base.index) as usize;
        node.disk.entries.drain(..dropped);
        node.disk.base.index = index;
        node.disk.base.term = term;
        self.cluster.note(format!("> compact {id} {index}"));
        self.cluster.step(id, Input::Compact(index));
    }

    fn restart(&mut self) {
        let down = |(id, n): (&NodeId, &support::Node)| n.core.is_none().then_some(*id);
        let down: Vec<NodeId> = self.cluster.nodes.iter().filter_map(down).collect();
        if let Some(id) = self.any(&down) {
            self.cluster.note(format!("> restart {id}"));
            self.cluster.restart(id);
        }
    }

    fn crash(&mut self, id: NodeId) {
        // Writes reach the disk in order; the tail that did not is lost.
        let count = self.dice.below(4);
        self.cluster.write(id, count);
        self.cluster
            .note(format!("> crash {id}, {count} more writes on disk"));
        self.cluster.crash(id);
        let hurt = |n: &support::Node| n.disk.hard.abstain.is_some() || n.disk.state_lost;
        let one_hurt = self.cluster.nodes.values().any(hurt);
        // Damage within the budget: one node at a time, and never without a majority beside it.
        if one_hurt || self.rates.nodes < 3 || !self.dice.chance(self.rates.damage) {
            return;
        }
        let at = self.dice.below(64);
        let node = self.cluster.nodes.get_mut(&id).expect("node exists");
        if self.dice.chance(30) {
            node.disk.state_lost = true;
            node.disk.applied = node.disk.base.index;
            return self.cluster.note(format!("> {id} loses its state"));
        }
        let (term, index) = (node.disk.hard.term, node.disk.last());
        let keep = (node.disk.applied - node.disk.base.index) as usize;
        if node.disk.entries.len() > keep {
            let keep = keep + at % (node.disk.entries.len() - keep);
            node.disk.entries.truncate(keep);
            node.disk.hard.abstain = Some(Abstain { term, index });
            self.cluster.note(format!(
                "> {id} loses its log behind {}",
                node_last(&self.cluster, id)
            ));
        }
    }

    /// Everything works again: a leader is elected and what it is given is committed everywhere.
    fn heal(&mut self) {
        self.cluster.note("# heal");
        self.cut.clear();
        let all: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in &all {
            if self.cluster.node(*id).core.is_none() {
                self.cluster.restart(*id);
            }
        }
        let mut healed = false;
        for round in 0..400 {
            for id in &all {
                self.cluster.note(format!("> tick {id}"));
                self.cluster.tick(*id, 1);
            }
            self.cluster.settle();
            let Some(leader) = self.cluster.leader() else {
                continue;
            };
            if round % 10 == 5 {
                self.cluster.note(format!("> propose {leader}"));
                let proposed = self.cluster.propose(leader, "healed");
                healed |= matches!(proposed, Some(Proposed::Accepted { .. }));
                self.cluster.settle();
            }
            if !healed || round % 10 != 9 {
                continue;
            }
            let last = self.cluster.core(leader).status().last_index;
            let applied = |id: &NodeId| self.cluster.node(*id).applied == last;
            let whole = |id: &NodeId| self.cluster.core(*id).status().abstain.is_none();
            if all.iter().all(|id| applied(id) && whole(id)) {
                return;
            }
        }
        panic!("the healed cluster makes no progress");
    }
}

fn node_last(cluster: &Cluster, id: NodeId) -> Index {
    cluster.node(id).disk.last()
}

impl Walk {
    /// One leader after the other, each heard by a few and dead after a few messages: the kind
    /// of history figure 8 is made of, which loose steps seldom line up.
    fn crash_chain(&mut self) {
        let all: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for _ in 0..30 {
            for id in &all {
                if self.cluster.node(*id).core.is_none() && self.dice.chance(70) {
                    self.cluster.note(format!("> restart {id}"));
                    self.cluster.restart(*id);
                }
            }
            let up = self.cluster.up();
            let Some(next) = self.any(&up) else {
                continue;
            };
            for id in &up {
                self.cluster.tick(*id, 9);
            }
            self.cluster.mail.clear();
            self.cluster.note(format!("> campaign {next}"));
            self.cluster.campaign(next);
            for _ in 0..3 + self.dice.below(12) {
                if self.cluster.leader() == Some(next) && self.dice.chance(20) {
                    self.propose(next);
                }
                for id in self.cluster.up() {
                    if self.dice.chance(70) {
                        self.cluster.persist(id);
                    }
                }
                // Deposed leaders that do not know it are asked as well.
                if let Some(id) = self
                    .any(&up)
                    .filter(|id| self.cluster.node(*id).core.is_some())
                {
                    self.read(id);
                }
                for mail in std::mem::take(&mut self.cluster.mail) {
                    let concerns = mail.from == next || mail.to == next;
                    if concerns && self.dice.chance(80) {
                        self.cluster.deliver(mail);
                    }
                }
            }
            if self.dice.chance(60) {
                self.cluster.note(format!("> crash {next}"));
                self.cluster.crash(next);
            }
            self.cluster.checker.log_matching(&self.cluster.nodes);
        }
    }
}

/// (elections, committed, reads answered)
fn walk(seed: u64, chains: bool, explain: bool) -> (Result<(u64, u64, u64), String>, String) {
    let mut walk = Walk::new(seed, explain);
    if chains {
        walk.cluster = Cluster::new(
            5,
            Settings {
                explain,
                max_append_bytes: 1,
                ..settings()
            },
            seed,
        );
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        if chains {
            walk.crash_chain();
        }
        for n in 0..if chains { 0 } else { 2500 } {
            walk.step();
            if n % 50 == 0 {
                walk.cluster.checker.log_matching(&walk.cluster.nodes);
            }
        }
        walk.heal();
        walk.cluster.checker.log_matching(&walk.cluster.nodes);
        let c = &walk.cluster.checker;
        (c.elections, c.last_committed(), c.answered)
    }));
    let why = |e: Box<dyn std::any::Any + Send>| match e.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other
            .downcast_ref::<&str>()
            .map_or("panic".into(), |s| (*s).to_owned()),
    };
    (result.map_err(why), walk.cluster.trace)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn walks(chains: bool) -> ((u64, u64, u64), u64) {
    let seeds = match number("RAFT_WALK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RAFT_WALK_SEEDS").unwrap_or(300),
    };
    let one = seeds.end - seeds.start == 1;
    let count = seeds.end - seeds.start;
    let mut sums = (0, 0, 0);
    for seed in seeds {
        match walk(seed, chains, false).0 {
            Ok((elections, committed, reads)) => {
                sums = (sums.0 + elections, sums.1 + committed, sums.2 + reads);
                if one {
                    println!("{}", walk(seed, chains, true).1);
                }
            }
            Err(why) => {
                let trace = walk(seed, chains, true).1;
                let lines: Vec<&str> = trace.lines().collect();
                let tail = if one {
                    &lines[..]
                } else {
                    &lines[lines.len().saturating_sub(150)..]
                };
                panic!(
                    "{}\nseed {seed}: {why}\n(whole transcript: RAFT_WALK_SEED={seed})",
                    tail.join("\n")
                );
            }
        }
    }
    println!(
        "elections {}, committed {}, reads answered {}",
        sums.0, sums.1, sums.2
    );
    (sums, count)
}

// A walk in which nothing happens shows nothing: hence the sums.

#[test]
fn random_walk() {
    let (sums, count) = walks(false);
    let moves = sums.0 > count && sums.1 > 10 * count && sums.2 > count;
    assert!(moves || count == 1, "the walks stand still: {sums:?}");
}

#[test]
fn chains_of_crashing_leaders() {
    let (sums, count) = walks(true);
    let moves = sums.0 > 5 * count && sums.1 > 10 * count && sums.2 > count;
    assert!(moves || count == 1, "the walks stand still: {sums:?}");
}
