//! The lane of a server: up or down, role and term, commit and applied.

use crate::campaign::record::{Point, Record};
use serde::Serialize;
use std::collections::BTreeMap;

/// Told so often that single ones say little.
const FREQUENT: &[&str] = &[
    "sync", "write", "append", "send", "receive", "ack", "serve", "read", "started",
];
/// Points that say that a server is gone.
const DOWN: &[&str] = &["down", "kill", "stop", "power"];
/// What happens so shortly before the violation is not thinned out (µs).
const NEAR_US: u64 = 500_000;

/// A server.
#[derive(Debug, Default, Serialize)]
pub struct Lane {
    /// For people.
    pub name: String,
    /// Group.
    pub group: u64,
    /// Member.
    pub node: u64,
    /// Role by time.
    pub roles: Vec<Span>,
    /// From, to, and whether the server itself or the harness told so (else it is inferred from the
    /// silence before its next start).
    pub down: Vec<(u64, u64, bool)>,
    /// Commit index by time.
    pub commit: Vec<(u64, u64)>,
    /// Applied index by time.
    pub applied: Vec<(u64, u64)>,
    /// Rarer things: when, and what.
    pub marks: Vec<(u64, String)>,
}

/// A role for a while.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// As in `raft_protocol::Role`.
    pub role: u64,
    /// Term.
    pub term: u64,
    /// Whom it follows; 0: nobody known.
    pub leader: u64,
}

/// A named number of a point.
pub(super) fn field(point: &Point, name: &str) -> Option<u64> {
    let found = point.fields.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| *value)
}

/// The lanes of all servers, in the order of the record.
pub fn lanes(record: &Record, end: u64, pieces: u64) -> Vec<Lane> {
    let mut points: BTreeMap<(u64, u64), Vec<&Point>> = BTreeMap::new();
    for point in &record.points {
        points
            .entry((point.group, point.node))
            .or_default()
            .push(point);
    }
    let thin = Thin {
        piece: (end / pieces.max(1)).max(1),
        near: record.violation.as_ref().map(|v| v.at_us),
    };
    let lane = |server: &crate::campaign::record::Server| {
        let points = points.get(&(server.group, server.node));
        let mut build = Build::default();
        build.lane.name = server.name.clone();
        build.lane.group = server.group;
        build.lane.node = server.node;
        for point in points.into_iter().flatten() {
            build.point(point, thin);
        }
        build.finish(end)
    };
    record.servers.iter().map(lane).collect()
}

/// Which points of a kind that never rests are kept: the last of each piece of time.
#[derive(Clone, Copy)]
struct Thin {
    piece: u64,
    near: Option<u64>,
}

impl Thin {
    fn same_piece(self, a: u64, b: u64) -> bool {
        let near = self
            .near
            .is_some_and(|at| b <= at && at.saturating_sub(b) < NEAR_US);
        a / self.piece == b / self.piece && !near
    }

    fn step(self, steps: &mut Vec<(u64, u64)>, at: u64, value: u64) {
        match steps.last_mut() {
            Some(last) if last.1 == value => {}
            Some(last) if last.1 < value && self.same_piece(last.0, at) => *last = (at, value),
            _ => steps.push((at, value)),
        }
    }
}

#[derive(Default)]
struct Build {
    lane: Lane,
    /// The role now: since when, role, term, leader.
    now: Option<(u64, u64, u64, u64)>,
    /// Down since.
    down: Option<u64>,
    /// The last point of all.
    last: Option<u64>,
    /// The last mark of each kind.
    marked: BTreeMap<String, u64>,
}

impl Build {
    fn point(&mut self, point: &Point, thin: Thin) {
        let at = point.at_us;
        let number = |name| field(point, name).unwrap_or(0);
        if self.down.is_some() && point.kind != "start" {
            // A task that was killed runs on to its next await.
            return;
        }
        match point.kind.as_str() {
            "start" => {
                if self.down.is_none()
                    && let Some(last) = self.last
                {
                    self.end_role(last);
                    self.lane.down.push((last, at, false));
                }
                if let Some(since) = self.down.take() {
                    self.lane.down.push((since, at, true));
                }
                self.role(at, (0, number("term"), 0));
                self.mark(point, thin);
            }
            "role" => self.role(at, (number("role"), number("term"), number("leader"))),
            "commit" => thin.step(&mut self.lane.commit, at, number("index")),
            "apply" => thin.step(&mut self.lane.applied, at, number("index")),
            kind if DOWN.contains(&kind) => {
                self.end_role(at);
                self.down.get_or_insert(at);
            }
            "ownership" => {}
            kind if FREQUENT.contains(&kind) => {}
            _ => self.mark(point, thin),
        }
        self.last = Some(at);
    }

    fn role(&mut self, at: u64, (role, term, leader): (u64, u64, u64)) {
        self.end_role(at);
        self.now = Some((at, role, term, leader));
    }

    fn end_role(&mut self, to: u64) {
        if let Some((from, role, term, leader)) = self.now.take() {
            self.lane.roles.push(Span {
                from,
                to,
                role,
                term,
                leader,
            });
        }
    }

    fn mark(&mut self, point: &Point, thin: Thin) {
        let last = self.marked.insert(point.kind.clone(), point.at_us);
        if last.is_some_and(|last| thin.same_piece(last, point.at_us)) {
            return;
        }
        let mut text = point.kind.clone();
        for (name, value) in &point.fields {
            text += &format!(" {name}={value}");
        }
        self.lane.marks.push((point.at_us, text));
    }

    fn finish(mut self, end: u64) -> Lane {
        self.end_role(end);
        if let Some(since) = self.down.take() {
            self.lane.down.push((since, end, true));
        }
        self.lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::record::Server;

    /// Time, kind, fields.
    type Told<'a> = (u64, &'a str, &'a [(&'a str, u64)]);

    fn lane(points: &[Told<'_>]) -> Lane {
        let point = |(at_us, kind, fields): &Told<'_>| Point {
            at_us: *at_us,
            group: 1,
            node: 2,
            kind: (*kind).into(),
            fields: fields.iter().map(|(n, v)| ((*n).into(), *v)).collect(),
        };
        let record = Record {
            servers: vec![Server {
                group: 1,
                node: 2,
                name: "kv-1-2".into(),
            }],
            points: points.iter().map(point).collect(),
            ..Record::default()
        };
        lanes(&record, 1000, 10).remove(0)
    }

    fn span(from: u64, to: u64, role: u64, term: u64) -> Span {
        Span {
            from,
            to,
            role,
            term,
            leader: 0,
        }
    }

    const START: (u64, &str, &[(&str, u64)]) = (10, "start", &[("term", 4)]);

    #[test]
    fn down_until_the_end() {
        let leads: &[_] = &[("role", 3), ("term", 5)];
        let lane = lane(&[
            START,
            (50, "role", leads),
            (60, "down", &[]),
            (61, "role", &[]),
        ]);
        assert_eq!(lane.roles, [span(10, 50, 0, 4), span(50, 60, 3, 5)]);
        assert_eq!(lane.down, [(60, 1000, true)]);
    }

    #[test]
    fn a_start_without_a_word_of_the_end() {
        let lane = lane(&[START, (70, "sync", &[]), (400, "start", &[("term", 6)])]);
        assert_eq!(lane.down, [(70, 400, false)]);
        assert_eq!(lane.roles, [span(10, 70, 0, 4), span(400, 1000, 0, 6)]);
    }

    #[test]
    fn a_step_per_piece_of_time_and_every_step_back() {
        let index = [("index", 1), ("index", 2), ("index", 3)];
        let [one, two, three] = [&index[..1], &index[1..2], &index[2..]];
        let lane = lane(&[
            START,
            (101, "commit", one),
            (102, "commit", two),
            (103, "commit", three),
            (104, "commit", one),
            (290, "commit", two),
            (291, "commit", two),
        ]);
        assert_eq!(lane.commit, [(103, 3), (104, 1), (290, 2)]);
    }
}
