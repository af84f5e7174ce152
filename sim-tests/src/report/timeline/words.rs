//! Faults in words: what `Debug` says of them, without its punctuation.

/// `Down { who: Who { group: 1, member: Node(2) }, how: Power }` → `Down: 1.2, its power fails`.
pub fn words(text: &str) -> String {
    let mut text = servers(text);
    for (from, to) in [
        // How a process goes down is said by itself.
        (", how: Power", ", its power fails"),
        (", how: Process", ", its process is killed"),
        (", how: Graceful", ", it is asked to stop"),
        ("Some(", "("),
        (": None", ": none"),
        ("{ who: ", "{ "),
        (" { ", ": "),
        (" }", ""),
        ("(", " "),
        (")", ""),
        ("[", ""),
        ("]", ""),
    ] {
        text = text.replace(from, to);
    }
    // The colons left are those of fields; a name keeps its own.
    let (name, fields) = match text.split_once(": ") {
        Some((name, fields)) => (format!("{name}: "), fields.to_owned()),
        None => (String::new(), text),
    };
    name + &fields.replace(": ", " ")
}

/// Names a server as in its lane: `Who { group: 0, member: Leader }` → `leader of 0`.
fn servers(text: &str) -> String {
    const WHO: &str = "Who { group: ";
    let mut rest = text;
    let mut shown = String::new();
    while let Some((before, behind)) = rest.split_once(WHO) {
        shown += before;
        let Some((who, behind)) = behind.split_once(" }") else {
            return shown + WHO + behind;
        };
        shown += &match who.split_once(", member: ") {
            Some((group, "Leader")) => format!("leader of {group}"),
            Some((group, member)) => match member.split_once('(') {
                Some(("Node", node)) => format!("{group}.{}", node.trim_end_matches(')')),
                _ => format!("a follower of {group}"),
            },
            None => who.to_owned(),
        };
        rest = behind;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fault::{Down, Fault, Member, Who};

    #[test]
    fn faults_in_words() {
        let who = |member| Who { group: 1, member };
        for (fault, told) in [
            (Fault::PowerCut, "PowerCut"),
            (Fault::Isolate(who(Member::Node(2))), "Isolate 1.2"),
            (Fault::Pause(who(Member::Leader)), "Pause leader of 1"),
            (Fault::Join(vec![1, 3]), "Join 1, 3"),
            (
                Fault::DiskStall {
                    who: who(Member::Follower(0)),
                    percent: 20,
                },
                "DiskStall: a follower of 1, percent 20",
            ),
            (
                Fault::Down {
                    who: who(Member::Node(3)),
                    how: Down::Process,
                },
                "Down: 1.3, its process is killed",
            ),
            (Fault::Move { shard: 3, group: 2 }, "Move: shard 3, group 2"),
            (
                Fault::Bridge {
                    group: 1,
                    a: 2,
                    b: 3,
                },
                "Bridge: group 1, a 2, b 3",
            ),
        ] {
            assert_eq!(words(&format!("{fault:?}")), told);
        }
        assert_eq!(words("power fails everywhere"), "power fails everywhere");
        assert_eq!(words("Who { group: 1"), "Who: group 1");
    }
}
