//! Where two runs of one seed part.

use crate::campaign::record::{Point, Record};
use std::fmt::Write;

/// Points shown before the first that differs.
const BEFORE: usize = 20;

/// The first point in which two runs differ, with its node and simulated time and the points before
/// it in both; `None`: they are the same, point for point and operation for operation.
pub fn divergence(a: &Record, b: &Record) -> Option<String> {
    let longest = a.points.len().max(b.points.len());
    let differs = (0..longest).find(|i| a.points.get(*i) != b.points.get(*i));
    let mut text = String::new();
    if let Some(at) = differs {
        let (one, other) = (a.points.get(at), b.points.get(at));
        let _ = writeln!(text, "the runs part at point {at} (of {}):", longest);
        for (name, run, point) in [("first", a, one), ("second", b, other)] {
            let _ = writeln!(text, "{name} run:");
            for before in &run.points
                [at.saturating_sub(BEFORE).min(run.points.len())..at.min(run.points.len())]
            {
                let _ = writeln!(text, "    {}", line(before));
            }
            let shown = point.map_or("(no more points)".to_owned(), line);
            let _ = writeln!(text, "  > {shown}");
        }
        return Some(text);
    }
    let longest = a.operations.len().max(b.operations.len());
    let differs = (0..longest).find(|i| a.operations.get(*i) != b.operations.get(*i));
    if let Some(at) = differs {
        let _ = writeln!(
            text,
            "the servers told the same; operation {at} of the clients differs:\n  first run:  {:?}\n  \
             second run: {:?}",
            a.operations.get(at),
            b.operations.get(at)
        );
        return Some(text);
    }
    if a.plan != b.plan {
        return Some("the runs had different plans and told the same\n".into());
    }
    if (a.end_us, &a.violation, a.summary.digest) != (b.end_us, &b.violation, b.summary.digest) {
        let _ = writeln!(
            text,
            "the same points and operations, another end: {} µs, digest {:x}, {:?}; {} µs, digest \
             {:x}, {:?}",
            a.end_us, a.summary.digest, a.violation, b.end_us, b.summary.digest, b.violation
        );
        return Some(text);
    }
    None
}

fn line(point: &Point) -> String {
    let (at, group, node) = (point.at_us, point.group, point.node);
    let mut line = format!(
        "{:>4}.{:06} s  group {group} node {node}  {}",
        at / 1_000_000,
        at % 1_000_000,
        point.kind
    );
    for (name, value) in &point.fields {
        let _ = write!(line, " {name}={value}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::demo;
    use super::*;

    #[test]
    fn the_same_run_twice() {
        assert_eq!(divergence(&demo::record(), &demo::record()), None);
    }

    #[test]
    fn the_first_point_that_differs() {
        let (a, mut b) = (demo::record(), demo::record());
        let at = a
            .points
            .iter()
            .rposition(|p| p.kind == "commit")
            .expect("commits");
        b.points[at].fields[0].1 += 1;
        b.points.pop();
        let text = divergence(&a, &b).expect("they differ");
        let (one, other) = (line(&a.points[at]), line(&b.points[at]));
        assert!(
            text.starts_with(&format!("the runs part at point {at} ")),
            "{text}"
        );
        assert!(text.contains(&format!("  > {one}\n")) && text.contains(&format!("  > {other}\n")));
        assert_eq!(
            text.lines().filter(|l| l.starts_with("    ")).count(),
            2 * BEFORE
        );
    }

    #[test]
    fn one_run_is_longer() {
        let (a, mut b) = (demo::record(), demo::record());
        b.points.truncate(5);
        let text = divergence(&a, &b).expect("they differ");
        assert!(
            text.contains("at point 5 ") && text.contains("(no more points)"),
            "{text}"
        );
    }

    #[test]
    fn operations_and_ends_count() {
        let (a, mut b) = (demo::record(), demo::record());
        b.operations[3].answer = "else".into();
        assert!(
            divergence(&a, &b)
                .expect("they differ")
                .contains("operation 3 ")
        );
        let mut b = demo::record();
        b.summary.digest += 1;
        assert!(
            divergence(&a, &b)
                .expect("they differ")
                .contains("another end")
        );
    }
}
